"""The watchdog is fed while ends are noticed and revocations move, and not a moment longer."""

import asyncio
import io
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import structlog

from taskmint.model.state import EndCause, TaskState
from taskmint.tasks.service import LATEST_LOOK
from taskmint.tasks.timetable import Timetable
from taskmint.telemetry.systemd import Systemd, fed

from fakes.clock import SteppedClock
from fakes.vault import away
from tasks.world import World, ask, caller

WATCHDOG = timedelta(seconds=0.06)
LONGEST_ATTEMPT = timedelta(seconds=0.1)
NO_WAIT = timedelta()
WAIT = timedelta(seconds=20)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(str(tmp_path / "notify"))
        server.setblocking(False)
        yield server


def logger(out: io.StringIO) -> structlog.stdlib.BoundLogger:
    """A logger of our own, read by the test."""
    log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(out),
        processors=[structlog.processors.JSONRenderer()],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return log


async def next_feeding(manager: socket.socket) -> bytes:
    """Drop what has come so far; what comes next."""
    with suppress(BlockingIOError):
        while manager.recv(4096):
            pass
    async with asyncio.timeout(5):
        return await asyncio.get_running_loop().sock_recv(manager, 4096)


async def until(condition: Callable[[], bool]) -> None:
    """Ask until it is so."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_revocation_that_does_not_move_stops_the_feeding(manager: socket.socket) -> None:
    """An attempt beyond its longest time silences the watchdog; once it moves, feeding goes on."""
    world, out = World(), io.StringIO()
    async with world.running() as service:
        healthy = partial(service.standstill, LONGEST_ATTEMPT)
        async with fed(Systemd(manager.getsockname(), WATCHDOG), healthy, logger(out)):
            view = await service.start(caller(), ask(), None)
            assert await next_feeding(manager) == b"WATCHDOG=1"
            world.vault.gates["revoke"] = asyncio.Event()
            await service.end(caller(), view.id, EndCause.SUCCEEDED, NO_WAIT)
            await until(lambda: "has not moved" in out.getvalue())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(WATCHDOG.total_seconds() * 2):
                    await next_feeding(manager)

            world.vault.gates["revoke"].set()
            await service.show(caller(), view.id, WAIT)
            assert await next_feeding(manager) == b"WATCHDOG=1"
            assert service.standstill(LONGEST_ATTEMPT) is None


async def test_a_vault_that_is_away_is_no_reason_for_a_new_process() -> None:
    """Failed attempts have ended: however many there are, the queue moves."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        world.vault.faults["revoke"].extend([away()] * 6)
        await service.end(caller(), view.id, EndCause.SUCCEEDED, NO_WAIT)
        look = timedelta(seconds=0.02)
        while (await service.show(caller(), view.id, look)).state is not TaskState.REVOKED:
            assert service.standstill(LONGEST_ATTEMPT) is None

        assert world.vault.alive == set()


async def test_a_timetable_that_stands_still_stops_the_feeding() -> None:
    """Nobody looks at the deadlines any more: after ten seconds only a new process can."""
    world = World()
    async with world.running() as service:
        await service.start(caller(), ask(), None)
        assert service.standstill(LONGEST_ATTEMPT) is None
        world.clock.pass_time(timedelta(minutes=20))  # seen before the timetable wakes

        assert "the timetable is" in str(service.standstill(LONGEST_ATTEMPT))


async def test_a_timetable_is_late_by_what_waits_first() -> None:
    """Nothing waits, something will be due, something should have been long ago."""
    clock = SteppedClock()
    called: list[str] = []
    timetable: Timetable[str] = Timetable(clock, called.append)
    assert timetable.late() == 0
    timetable.at(clock.boottime() + 1, "soon")
    assert timetable.late() == 0
    clock.pass_time(LATEST_LOOK)

    assert LATEST_LOOK.total_seconds() - 2 < timetable.late() < LATEST_LOOK.total_seconds()
    await until(lambda: called == ["soon"])
    assert timetable.late() == 0
    timetable.close()
