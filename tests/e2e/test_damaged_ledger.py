"""A damaged ledger under the real daemon: it starts, takes everything back, and starts nothing."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import aiohttp

from taskmint.devstack.daemon_process import Daemon, daemon_environment
from taskmint.devstack.stack import DAEMON, Stack

from e2e.conftest import Ground
from e2e.ground import Reply, Workload, admin, daemon_log, until_refused

AT_ONCE = timedelta(seconds=5)


async def test_p8_a_damaged_ledger_stops_no_revocation_and_starts_no_task(
    ground: Ground, workload: Workload
) -> None:
    """P7, P8, P12: everything it lists is taken back, starts get 503, and an operator decides."""
    stack = ground.stack
    daemon = Daemon(stack.python[DAEMON], stack.paths, daemon_environment())
    try:
        await daemon.start()
        task = await workload.start()
        assert (await workload.query(task)).status == 0
        await daemon.kill()
        row = await asyncio.to_thread(edit_the_first_row, stack.paths.ledger)
        await daemon.launch()
        ready = await answering(workload, "GET", "/v1/ready")

        assert ready.status == 503
        assert f"row {row} " in ready.body["components"]["ledger"]["reason"]
        await until_refused(workload, task, AT_ONCE)
        refused = await workload.ask("POST", "/v1/tasks", json={"task": "e2e-brief"})
        assert (refused.status, refused.body["code"]) == (503, "ledger_unavailable")
        code, said = await admin(stack, "audit", "verify", "--ledger", str(stack.paths.ledger))
        assert (code, f"row {row}: edited" in said) == (1, True)
        alarms = [line["event"] for line in daemon_log(daemon) if line["level"] == "error"]
        assert {"ledger_failed", "ledger_in_doubt"} <= set(alarms)
        await an_operator_decides(stack, daemon, workload)
    finally:
        await daemon.stop()


async def an_operator_decides(stack: Stack, daemon: Daemon, workload: Workload) -> None:
    """The ledger moves away only by an operator's act, not beside a daemon, and it is kept."""
    set_aside = ("audit", "set-aside", "--ledger", str(stack.paths.ledger))
    code, said = await admin(stack, *set_aside)
    assert (code, "another process" in said) == (3, True)
    await daemon.kill()  # an orderly stop would wait for the dead-man interval, to prove the end
    assert (await admin(stack, *set_aside))[0] == 0
    (kept,) = stack.paths.ledger.parent.glob("ledger.db.set-aside-*Z")
    await daemon.start()

    assert (await workload.end(await workload.start())).status == 200
    assert (await admin(stack, "audit", "verify", "--ledger", str(kept)))[0] == 1


def edit_the_first_row(path: Path) -> int:
    """Change what the oldest row says, as a bad disk or a bad hand would; return its position."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        (position,) = database.execute("SELECT min(position) FROM entries").fetchone()
        database.execute("UPDATE entries SET at = at || '0' WHERE position = ?", (position,))
    return int(position)


async def answering(workload: Workload, method: str, path: str) -> Reply:
    """Ask until the daemon answers at all."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await workload.ask(method, path)
            except (OSError, aiohttp.ClientError):
                await asyncio.sleep(0.05)
