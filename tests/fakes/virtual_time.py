"""
An event loop whose time is not real: when nothing can run, the clock jumps to the next timer.

For services among fakes only. A loop that waits for something outside never gets it here, and says
so instead of hanging.
"""

import asyncio
import selectors
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class _Jumping(selectors.DefaultSelector):
    """Never waits: time that would have been waited has passed."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("nothing will ever happen: no timer is set and nothing is ready")
        self.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that lives through hours in a moment."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """The time that it is, here."""
        return self._jumping.now


@dataclass
class VirtualClock:
    """The loop's time as ports.Clock; boot clock and wall clock can be stepped beside it."""

    loop: asyncio.AbstractEventLoop
    boot_offset: float = 0.0
    wall_offset: timedelta = timedelta()

    def utcnow(self) -> datetime:
        """Wall-clock time."""
        return _EPOCH + timedelta(seconds=self.loop.time()) + self.wall_offset

    def boottime(self) -> float:
        """Boot-clock seconds."""
        return self.loop.time() + self.boot_offset
