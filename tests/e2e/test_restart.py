"""Restarts and crashes of the real daemon: adopted, or gone; never orphaned (P8)."""

import asyncio
from datetime import timedelta

import pytest

from taskmint.devstack.stack import Stack

from e2e.conftest import Ground
from e2e.ground import Workload, daemon_log, until_refused
from stack import DEAD_MAN

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def stack(ground: Ground) -> Stack:
    """The stack alone."""
    return ground.stack


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


async def test_sigterm_revokes_when_told(stack: Stack, workload: Workload) -> None:
    """`on_stop: revoke`: nothing outlives the daemon, and it stops within its bound."""
    text = stack.paths.config.read_text()
    stack.paths.config.write_text(
        text.replace('{\n  "node"', '{\n  "on_stop": "revoke",\n  "node"')
    )
    try:
        async with stack.daemon() as daemon:
            task = await workload.start()
            assert (await workload.query(task)).status == 0
            assert await daemon.stop() == 0, daemon_log(daemon)[-20:]
        assert (await workload.query(task)).status == 2, daemon_log(daemon)[-20:]
    finally:
        stack.paths.config.write_text(text)


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
