"""The kernel's clocks as `ports.Clock`; whoever needs another time passes another clock."""

import time
from datetime import UTC, datetime


class SystemClock:
    """Real time. CLOCK_BOOTTIME goes on during suspend and is never set (clock_gettime(2))."""

    def utcnow(self) -> datetime:
        """Wall-clock time, aware, in UTC."""
        return datetime.now(UTC)

    def boottime(self) -> float:
        """CLOCK_BOOTTIME in seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
