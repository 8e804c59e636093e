"""A daemon that may open few files, and a crowd: what is to be taken back still is (P4, P10)."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from taskmint.devstack.daemon_process import Daemon
from taskmint.devstack.stack import DAEMON, Stack

from e2e.ground import Workload, admin, daemon_log
from e2e.test_saturation import connected

pytestmark = pytest.mark.real

LIMIT: Final = 192
CROWD: Final = 150
MOST_TASKS: Final = LIMIT


@asynccontextmanager
async def narrow_daemon(stack: Stack, directory: Path) -> AsyncIterator[Daemon]:
    """Run the daemon under a hard limit of descriptors, which it cannot raise."""
    python = directory / "python"
    python.write_text(f'#!/bin/sh\nulimit -n {LIMIT}\nexec {stack.python[DAEMON]} "$@"\n')
    python.chmod(0o755)
    async with Daemon.running(python, stack.paths) as daemon:
        yield daemon


async def bound_tasks(workload: Workload) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Start tasks, each bound to this process, until one is refused; return both."""
    granted: list[dict[str, Any]] = []
    for _ in range(MOST_TASKS):
        answer = await workload.ask("POST", "/v1/tasks", json={"task": "e2e-bound"})
        if answer.status != 201:
            return granted, {"status": answer.status, **answer.body}
        granted.append(answer.body)
    raise AssertionError(f"{MOST_TASKS} descriptors of {LIMIT} were given out")


def descriptors(daemon: Daemon) -> list[Path]:
    """List what the daemon has open."""
    return list(Path(f"/proc/{daemon.pid}/fd").iterdir())


def crowd(stack: Stack) -> list[socket.socket]:
    """Connect, and say nothing."""
    return [connected(stack) for _ in range(CROWD)]


async def test_p10_revocation_works_when_callers_have_taken_every_descriptor_there_was(
    stack: Stack, workload: Workload, tmp_path: Path
) -> None:
    """
    Bound tasks take what they get, a crowd of silent connections the rest: the last descriptors
    are left, so Vault that lost its connections is connected anew, and everything is taken back.
    """
    async with narrow_daemon(stack, tmp_path) as daemon:
        granted, refusal = await bound_tasks(workload)
        silent = await asyncio.to_thread(crowd, stack)
        try:
            await asyncio.sleep(0.5)  # whoever is let in is in
            open_now = len(await asyncio.to_thread(descriptors, daemon))
            await stack.bao.stop()  # every pooled connection ends with it
            await stack.bao.start()
            code, said = await admin(stack, "revoke", "--all", "--timeout", "30")
        finally:
            for one in silent:
                one.close()
        log = daemon_log(daemon)

    assert (refusal["status"], refusal["code"]) == (429, "limit_exceeded")
    assert "Too many open files" in str(refusal["errors"])
    assert len(granted) > 1
    assert open_now <= LIMIT - 16
    assert (code, f"{len(granted)} ended" in said) == (0, True), (said, log[-20:])
    assert "background_work_crashed" not in {line["event"] for line in log}
