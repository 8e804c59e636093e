"""Restarts and crashes of the real daemon: adopted, or gone; never orphaned (P8)."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from taskmint.devstack.stack import Stack
from taskmint.devstack.stack_files import WORKLOAD_ID

from e2e.ground import Workload, admin, daemon_log, until_refused
from stack import DEAD_MAN

pytestmark = pytest.mark.real

ACCEPTED = 202
UNPROCESSABLE = 422
NOBODY_ANSWERS = 3  # of a command


async def test_p8_a_planned_restart_keeps_task_user_and_open_session(
    stack: Stack, workload: Workload
) -> None:
    """P8: the same PostgreSQL session, opened before, works after; then the end is proven."""
    async with stack.daemon() as daemon:
        task = await workload.start()
        statement = "SELECT 1; SELECT pg_sleep(4); SELECT count(*) > 0 FROM orders"
        session = asyncio.create_task(workload.query(task, statement))
        await asyncio.sleep(0.3)
        await daemon.stop()
        await daemon.start()
        shown = await workload.ask("GET", f"/v1/tasks/{task['id']}")

        assert shown.status == 200, (shown.body, daemon_log(daemon)[-40:])
        assert shown.body["state"] == "active"
        assert shown.body["credentials"] is None
        assert (await session).rows[-1] == "t"
        assert (await workload.end(task)).status == 200
        assert (await workload.query(task)).status == 2


@contextmanager
def told_to_revoke(stack: Stack, **more: str) -> Iterator[None]:
    """Start daemons with `on_stop: revoke`, and more such settings, while inside."""
    text = stack.paths.config.read_text()
    config = json.loads(text) | {"on_stop": "revoke", **more}
    stack.paths.config.write_text(json.dumps(config))
    try:
        yield
    finally:
        stack.paths.config.write_text(text)


async def test_sigterm_revokes_when_told(stack: Stack, workload: Workload) -> None:
    """`on_stop: revoke`: nothing outlives the daemon, and it stops within its bound."""
    with told_to_revoke(stack):
        async with stack.daemon() as daemon:
            task = await workload.start()
            assert (await workload.query(task)).status == 0
            assert await daemon.stop() == 0, daemon_log(daemon)[-20:]
        assert (await workload.query(task)).status == 2, daemon_log(daemon)[-20:]


async def test_p8_an_operators_order_is_answered_when_no_crash_can_undo_it(
    stack: Stack, workload: Workload
) -> None:
    """Killed before its row: no answer, and the task lives. Answered, then killed: carried out."""
    async with stack.daemon(TASKMINT_FAILPOINT="before_ending:1:kill") as daemon:
        task = await workload.start()
        code, said = await admin(stack, "revoke", "--all", "--timeout", "0.1")
        assert code == NOBODY_ANSWERS, said
    async with stack.daemon() as daemon:
        assert (await workload.ask("GET", f"/v1/tasks/{task['id']}")).body["state"] == "active"
        stack.bao.signal(signal.SIGSTOP)
        try:
            code, said = await admin(stack, "revoke", "--all", "--timeout", "0.1")
            await daemon.kill()
        finally:
            stack.bao.signal(signal.SIGCONT)
        assert (code, "0 of 1 proven" in said) == (1, True), said
        await daemon.start()
        shown = (await workload.ask("GET", f"/v1/tasks/{task['id']}?wait=20s")).body
        assert (shown["state"], shown["end_cause"]) == ("revoked", "operator")
        assert (await workload.query(task)).status == 2


async def test_p12_a_crash_during_the_stop_is_logged_and_shows_in_the_status(
    stack: Stack, workload: Workload
) -> None:
    """Nobody reads a clean exit from a daemon whose own work has crashed while it stopped."""
    with told_to_revoke(stack):
        async with stack.daemon(TASKMINT_FAILPOINT="after_revoked:1:error") as daemon:
            await workload.start()
            assert await daemon.stop() == 1
        said = [line["event"] for line in daemon_log(daemon)]
        assert "background_work_crashed" in said[said.index("stopping") :]


async def test_p4_a_stop_that_could_not_revoke_does_not_exit_with_0(
    stack: Stack, workload: Workload
) -> None:
    """Vault is silent: the status says that credentials live on, and the next start ends them."""
    with told_to_revoke(stack, shutdown_timeout="1s"):
        async with stack.daemon() as daemon:
            task = await workload.start()
            stack.bao.signal(signal.SIGSTOP)
            try:
                assert await daemon.stop() == 1
                assert (await workload.query(task)).status == 0
            finally:
                stack.bao.signal(signal.SIGCONT)
            await daemon.start()
            await until_refused(workload, task, timedelta(seconds=5))


async def test_p8_a_stop_is_short_while_vault_is_silent(stack: Stack, workload: Workload) -> None:
    """What it does not prove is the next start's: no stop waits 30 s for a Vault that hangs."""
    async with stack.daemon() as daemon:
        task = await workload.start()
        stack.bao.signal(signal.SIGSTOP)
        try:
            ending = asyncio.create_task(workload.end(task))
            await asyncio.sleep(0.3)
            async with asyncio.timeout(15):
                assert await daemon.stop() == 0
            assert (await ending).status == ACCEPTED
        finally:
            stack.bao.signal(signal.SIGCONT)
        assert "left_to_the_next_start" in {line["event"] for line in daemon_log(daemon)}
        await daemon.start()
        shown = (await workload.ask("GET", f"/v1/tasks/{task['id']}?wait=20s")).body
        assert (shown["state"], shown["end_cause"]) == ("revoked", "succeeded")


async def test_p5_offline_the_database_refuses_by_itself_when_vault_is_away(
    stack: Stack, workload: Workload
) -> None:
    """P6, offline: Vault stopped, so VALID UNTIL is what ends the login: lease TTL and 5 s."""
    async with stack.daemon():
        task = await workload.start()
        await stack.bao.stop()
        try:
            await until_refused(workload, task, DEAD_MAN + timedelta(seconds=10))
        finally:
            await stack.bao.start()


async def test_what_an_identity_was_given_before_a_kill_still_counts_in_its_last_hour(
    stack: Stack, workload: Workload
) -> None:
    """Grants, denials and processes: the `history` of the daemon after goes on from there."""

    async def counted() -> dict[str, int]:
        who = ("--as", WORKLOAD_ID, "--uid", str(os.getuid()))
        _, said = await admin(
            *(stack, "explain", "--task", "e2e-report", *who),
            *("-p", "region=eu", "--output", "json"),
        )
        history: dict[str, int] = json.loads(said)["history"]
        return history

    async with stack.daemon() as daemon:
        for _ in range(2):
            await workload.end(await workload.start())
        bad = {"task": "e2e-report", "parameters": {"region": "no"}}
        assert (await workload.ask("POST", "/v1/tasks", json=bad)).status == UNPROCESSABLE
        before = await counted()
        await daemon.kill()
        await daemon.start()
        await workload.end(await workload.start())  # which waits until the last hour is known
        after = await counted()

    assert before["grants"] >= 2
    assert before["denials"] >= 1
    assert after == {**before, "grants": before["grants"] + 1}
