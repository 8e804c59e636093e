"""The main job on real servers: minted, used, taken back, and provably gone."""

import asyncio
import os
import signal
from datetime import timedelta
from typing import Any

import pytest

from taskmint.devstack.daemon_process import Daemon
from taskmint.devstack.stack import Stack

from auditor import difference
from e2e.conftest import Ground
from e2e.ground import Workload, admin, daemon_log, until_refused
from plugins.canaries import Canaries
from stack import DEAD_MAN

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("daemon")]


async def test_a_credential_works_while_its_task_runs_and_not_a_moment_longer(
    stack: Stack, workload: Workload
) -> None:
    """P5: 200 on DELETE means that the very next login is refused and the account is gone."""
    task = await workload.start()
    inside = await workload.query(task, "SELECT DISTINCT region FROM orders")
    ended = await workload.end(task)
    after = await workload.query(task)
    user = task["credentials"]["warehouse"]["data"]["username"]

    assert inside.rows == ("eu",)
    assert (ended.status, ended.body["state"]) == (200, "revoked")
    assert after.status == 2
    assert await stack.postgres.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{user}'") == ()


async def test_p1_the_inventories_before_and_after_are_equal(
    ground: Ground, workload: Workload
) -> None:
    """P1: tokens, leases, policies, roles, entities, accounts, sessions, by an outsider's count."""
    before = await asyncio.to_thread(ground.auditor.inventory)
    for task in ("e2e-report", "e2e-brief", "e2e-beating"):
        started = await workload.start(task)
        during = await asyncio.to_thread(ground.auditor.inventory)
        assert (await workload.end(started)).status == 200

        assert difference(before, during) != []
    after = await asyncio.to_thread(ground.auditor.inventory)

    assert difference(before, after) == []


async def test_the_tasks_id_stands_in_the_database_user_name(workload: Workload) -> None:
    """From the database's log an admin finds the task; 63 bytes is what PostgreSQL keeps."""
    task = await workload.start()
    await workload.end(task)
    user = task["credentials"]["warehouse"]["data"]["username"]

    assert user.startswith(f"taskmint-dev-{task['id'].removeprefix('tm_')}-")
    assert len(user) <= 63


async def test_p5_sessions_an_open_session_is_gone_with_the_task(workload: Workload) -> None:
    """P5, level sessions: a session held open through the end does not outlive the 200."""
    task = await workload.start()
    held = asyncio.create_task(workload.query(task, "SELECT 1; SELECT pg_sleep(60)"))
    async with asyncio.timeout(20):
        while not await sessions(workload, task):
            await asyncio.sleep(0.05)
    ended = await workload.end(task)

    assert ended.status == 200
    assert await sessions(workload, task) == ()
    assert (await held).status != 0


async def sessions(workload: Workload, task: dict[str, Any]) -> tuple[str, ...]:
    """Open sessions of the task's user, asked as the superuser."""
    user = task["credentials"]["warehouse"]["data"]["username"]
    return await workload.stack.postgres.sql(
        f"SELECT pid FROM pg_stat_activity WHERE usename = '{user}'"
    )


async def test_p5_an_account_that_tries_to_be_undroppable_cannot_log_in_any_more(
    workload: Workload,
) -> None:
    """The attack of decisions.md 3: a large object, a temporary table in an open session."""
    task = await workload.start()
    attack = "SELECT lo_create(0); CREATE TEMP TABLE mine (a int); SELECT pg_sleep(60)"
    attempt = asyncio.create_task(workload.query(task, attack))
    second = asyncio.create_task(workload.query(task, "BEGIN; SELECT 1; SELECT pg_sleep(60)"))
    async with asyncio.timeout(20):
        while not await sessions(workload, task):
            await asyncio.sleep(0.05)
    ended = await workload.end(task)
    await asyncio.gather(attempt, second)

    assert ended.status == 200
    assert (await workload.query(task)).status == 2


async def test_the_deadline_ends_a_task_on_the_server(workload: Workload) -> None:
    """Nobody calls; the credential is gone after its two seconds."""
    task = await workload.start("e2e-brief")
    assert (await workload.query(task)).status == 0
    shown = await workload.ask("GET", f"/v1/tasks/{task['id']}?wait=20s")

    assert shown.body["end_cause"] == "deadline"
    assert (await workload.query(task)).status == 2


async def test_a_missed_heartbeat_ends_a_task_and_its_handed_token(
    stack: Stack, workload: Workload
) -> None:
    """The handed token is a child with one policy; with the task it dies."""
    task = await workload.start("e2e-beating")
    token = task["credentials"]["reader"]["data"]
    async with stack.admin() as vault:
        found = await vault.call("POST", "auth/token/lookup", {"token": token["token"]})
        assert found.data["policies"] == ["e2e-reader"]
        assert (await workload.ask("POST", f"/v1/tasks/{task['id']}/heartbeat")).status == 200
        shown = await workload.ask("GET", f"/v1/tasks/{task['id']}?wait=20s")

        assert shown.body["end_cause"] == "heartbeat_missed"
        gone = await vault.send("POST", "auth/token/lookup", {"token": token["token"]})
        assert gone.status == 403


async def test_a_workload_that_is_killed_loses_its_credential(
    stack: Stack, workload: Workload
) -> None:
    """SIGKILL of `taskmint run`: the kernel tells the daemon, nobody has to call."""
    runner = await asyncio.create_subprocess_exec(
        *(str(stack.python["orders-report"]), "-m", "taskmint", "run"),
        *("--task", "orders-report", "-p", "region=eu"),
        *("--env", "PGUSER=warehouse.username", "--env", "PGPASSWORD=warehouse.password"),
        *("--", "sh", "-c", 'echo "$PGUSER $PGPASSWORD"; exec sleep 60'),
        env={"PATH": os.environ["PATH"], **stack.environment()},
        stdout=asyncio.subprocess.PIPE,
    )
    assert runner.stdout is not None
    user, password = (await runner.stdout.readline()).decode().split()
    task = {"credentials": {"warehouse": {"data": {"username": user, "password": password}}}}
    assert (await workload.query(task)).status == 0
    runner.kill()
    await runner.wait()

    await until_refused(workload, task, timedelta(seconds=5))


async def test_operators_see_and_end_tasks(stack: Stack, workload: Workload) -> None:
    """`taskmint tasks`, `status` and `end` over the admin socket."""
    task = await workload.start()
    listed = await admin(stack, "tasks")
    status = await admin(stack, "status")
    ended = await admin(stack, "end", task["id"])

    assert task["id"] in listed[1]
    assert status[0] == 0
    assert ended[0] == 0
    assert (await workload.query(task)).status == 2


async def test_a_reload_that_narrows_ends_what_it_forbids_and_a_bad_file_changes_nothing(
    stack: Stack, daemon: Daemon, workload: Workload
) -> None:
    """P11 on the running daemon, through the command and through SIGHUP."""
    task = await workload.start()
    policy = stack.paths.policy / "e2e.yaml"
    text = policy.read_text()
    try:
        policy.write_text(text.replace("owner:", "ovner:", 1))
        refused = await admin(stack, "reload")
        still = await workload.ask("GET", f"/v1/tasks/{task['id']}")
        policy.write_text(text.replace("enum: [eu, us]", "enum: [us]", 1))
        daemon.signal(signal.SIGHUP)
        ended = await workload.ask("GET", f"/v1/tasks/{task['id']}?wait=20s")
    finally:
        policy.write_text(text)
        await admin(stack, "reload")

    assert refused[0] != 0
    assert "ovner" in refused[1]
    assert still.body["state"] == "active"
    assert ended.body["end_cause"] == "policy_narrowed"


async def test_a_key_rotation_followed_by_a_new_login_goes_unnoticed(
    stack: Stack, daemon: Daemon, workload: Workload, canaries: Canaries
) -> None:
    """New JWT keys, the old retired, and the daemon's own token revoked: the next start works."""
    await stack.workload_api.rotate_jwt(retire=True)
    async with stack.admin() as vault:
        accessors = (await vault.call("LIST", "auth/token/accessors")).data["keys"]
        for accessor in accessors:
            found = await vault.send("POST", "auth/token/lookup-accessor", {"accessor": accessor})
            if found.status == 200 and found.data["path"] == "auth/jwt/login":
                await vault.call("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    async with asyncio.timeout(20):
        while (await workload.ask("GET", "/v1/ready")).status != 200:
            await asyncio.sleep(0.1)
    async with Workload.of(stack, canaries) as fresh:  # the old one's SVID is of a retired key
        task = await fresh.start()

        assert (await fresh.end(task)).status == 200
    assert daemon_log(daemon)


async def test_a_second_daemon_on_the_same_socket_is_refused(
    stack: Stack, workload: Workload
) -> None:
    """The first goes on; the second says why and exits."""
    second = await asyncio.create_subprocess_exec(
        *(str(stack.python["daemon"]), "-m", "taskmint", "serve"),
        *("--config", str(stack.paths.config)),
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
    )
    _, errors = await second.communicate()

    assert second.returncode == 1
    assert b"Traceback" not in errors
    assert (await workload.ask("GET", "/v1/ready")).status == 200


async def test_a_sealed_vault_refuses_starts_and_delays_ends(
    stack: Stack, workload: Workload
) -> None:
    """503 with a code while sealed; an end stays `revoking` and is proven after the unseal."""
    task = await workload.start()
    await stack.bao.seal()
    try:
        refused = await workload.ask("POST", "/v1/tasks", json={"task": "e2e-brief"})
        ending = await workload.end(task)
    finally:
        await stack.bao.unseal()
    proven = await workload.ask("GET", f"/v1/tasks/{task['id']}?wait=50s")

    assert refused.status == 503
    assert refused.body["code"] == "vault_unavailable"
    assert (ending.status, ending.body["state"]) == (202, "revoking")
    assert proven.body["state"] == "revoked"
    assert (await workload.query(task)).status == 2


async def test_p6_the_dead_man_takes_everything_back_when_the_daemon_is_killed(
    daemon: Daemon, workload: Workload
) -> None:
    """P6: no daemon, no renewal: the server ends it within the dead-man interval."""
    task = await workload.start()
    assert (await workload.query(task)).status == 0
    await daemon.kill()
    try:
        await until_refused(workload, task, DEAD_MAN + timedelta(seconds=6))
    finally:
        await daemon.start()
