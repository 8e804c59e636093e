"""sd_notify(3) against a real datagram socket."""

import asyncio
import io
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from taskmint.telemetry.systemd import Systemd, keep_alive

WAIT_SECONDS = 5


@pytest.fixture
def manager_socket(tmp_path: Path) -> Iterator[socket.socket]:
    """Return a service manager's socket."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(WAIT_SECONDS)
        yield server


@pytest.fixture
def manager(manager_socket: socket.socket) -> Systemd:
    """Return the service manager behind the socket, as the environment names it."""
    return Systemd.of({"NOTIFY_SOCKET": manager_socket.getsockname()})


def logger(out: io.StringIO) -> structlog.stdlib.BoundLogger:
    """Return a logger of our own that writes JSON to `out`."""
    log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(out),
        processors=[structlog.processors.JSONRenderer()],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return log


def test_messages_are_those_of_the_manual(manager: Systemd, manager_socket: socket.socket) -> None:
    """READY, STATUS, RELOADING with the monotonic time, WATCHDOG, STOPPING."""
    before = time.monotonic_ns() // 1000
    for say in (manager.reloading, manager.alive, manager.stopping):
        say()
    manager.ready("7 tasks\nREADY=0")
    manager.status("degraded")
    reloading, alive, stopping, ready, status = (
        manager_socket.recv(4096).decode() for _ in range(5)
    )

    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert before <= int(reloading.rpartition("=")[2]) <= time.monotonic_ns() // 1000
    assert (alive, stopping) == ("WATCHDOG=1", "STOPPING=1")
    assert ready == "READY=1\nSTATUS=7 tasks READY=0"
    assert status == "STATUS=degraded"


def test_abstract_sockets_are_reached() -> None:
    """`@name` is the kernel's abstract name space."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(f"\0taskmint-test-{os.getpid()}")
        server.settimeout(WAIT_SECONDS)
        Systemd.of({"NOTIFY_SOCKET": f"@taskmint-test-{os.getpid()}"}).ready()
        assert server.recv(4096) == b"READY=1\nSTATUS="


def test_without_a_socket_nothing_is_said() -> None:
    """Started by hand, the daemon has nobody to tell."""
    nobody = Systemd.of({})
    nobody.ready()
    nobody.alive()

    assert nobody == Systemd(None, None)
    with pytest.raises(ValueError, match="NOTIFY_SOCKET"):
        Systemd.of({"NOTIFY_SOCKET": "relative"})
    with pytest.raises(OSError, match="No such file"):
        Systemd.of({"NOTIFY_SOCKET": "/nonexistent/notify"}).ready()


@pytest.mark.parametrize(
    ("pid", "expected"),
    [(None, timedelta(seconds=30)), (os.getpid(), timedelta(seconds=30)), (1, None)],
)
def test_the_watchdog_may_be_somebody_elses(pid: int | None, expected: timedelta | None) -> None:
    """WATCHDOG_PID names whom the interval is for (sd_watchdog_enabled(3))."""
    environ = {"WATCHDOG_USEC": "30000000"} | ({"WATCHDOG_PID": str(pid)} if pid else {})

    assert Systemd.of(environ).watchdog == expected


async def test_the_watchdog_is_fed_while_the_daemon_is_healthy(
    manager_socket: socket.socket,
) -> None:
    """Fed three times per interval; a reason why not silences it, and is logged."""
    out = io.StringIO()
    reasons: list[str | None] = [None]
    manager = Systemd(manager_socket.getsockname(), timedelta(seconds=0.06))
    feeding = asyncio.create_task(keep_alive(manager, lambda: reasons[0], logger(out)))
    first = await asyncio.to_thread(manager_socket.recv, 4096)
    reasons[0] = "the revocation queue stands still"
    async with asyncio.timeout(WAIT_SECONDS):
        while "stands still" not in out.getvalue():
            await asyncio.sleep(0.01)
    feeding.cancel()

    assert first == b"WATCHDOG=1"
    line = json.loads(out.getvalue().splitlines()[0])
    assert line["event"] == "watchdog_not_fed"
    assert line["reason"] == "the revocation queue stands still"


async def test_a_loop_that_comes_back_late_does_not_feed(manager_socket: socket.socket) -> None:
    """What stops the loop stops the feeding: lateness is measured, not assumed."""
    out = io.StringIO()
    manager = Systemd(manager_socket.getsockname(), timedelta(seconds=0.06))
    feeding = asyncio.create_task(keep_alive(manager, lambda: None, logger(out)))
    await asyncio.sleep(0)
    time.sleep(0.1)  # noqa: ASYNC251 - the blocked loop is what is tested
    async with asyncio.timeout(WAIT_SECONDS):
        while "late" not in out.getvalue():
            await asyncio.sleep(0.001)
    feeding.cancel()


async def test_a_manager_that_went_away_is_logged_and_no_end() -> None:
    """The daemon lives on without its manager's socket."""
    out = io.StringIO()
    manager = Systemd("/nonexistent/notify", timedelta(seconds=0.03))
    feeding = asyncio.create_task(keep_alive(manager, lambda: None, logger(out)))
    async with asyncio.timeout(WAIT_SECONDS):
        while out.getvalue().count("watchdog_unreachable") < 2:
            await asyncio.sleep(0.01)
    assert not feeding.done()
    feeding.cancel()


async def test_without_a_watchdog_there_is_nothing_to_feed() -> None:
    """It returns at once."""
    async with asyncio.timeout(WAIT_SECONDS):
        await keep_alive(Systemd(), lambda: None, logger(io.StringIO()))
