"""Clocks: a real one with an offset, so that time can be stepped while timers go on."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass
class SteppedClock:
    """Real time plus what the test added; boot clock and wall clock step on their own."""

    boot_offset: float = 0.0
    wall_offset: timedelta = timedelta()

    def utcnow(self) -> datetime:
        """Wall-clock time."""
        return datetime.now(UTC) + self.wall_offset

    def boottime(self) -> float:
        """Boot-clock seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self.boot_offset

    def pass_time(self, span: timedelta) -> None:
        """Let time pass on both clocks, as a suspend does."""
        self.boot_offset += span.total_seconds()
        self.wall_offset += span
