"""
When a task may run: recurring windows in local time, and releases with a beginning and an end.

Both are half open: the first moment is inside, the last is not. A window bounds the deadline at
the start, so whoever is let in near the end gets what is left.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Recurring:
    """
    From `start` to `end`, minutes after midnight in `zone`, on `days` (0 is Monday).

    With `end` not after `start` it runs past midnight and belongs to the day on which it starts.
    """

    days: frozenset[int]
    start: int
    end: int
    zone: ZoneInfo

    def open_until(self, now: datetime) -> datetime | None:
        """Return the end of the window that is open at `now`, in UTC."""
        try:
            today = now.astimezone(self.zone).date()
            for day in (today, today - _DAY):
                if day.weekday() in self.days and self._moment(day, self.start) <= now:
                    last = day if self.end > self.start else day + _DAY
                    closes = self._moment(last, self.end)
                    if now < closes:
                        return closes
        except OverflowError:  # at the ends of the calendar
            return None
        return None

    def _moment(self, day: date, minutes: int) -> datetime:
        """Turn wall-clock time into UTC: two moments of one zone would be compared by the wall."""
        over, minutes = divmod(minutes, 24 * 60)
        wall = datetime.combine(day + over * _DAY, time(minutes // 60, minutes % 60), self.zone)
        return wall.astimezone(UTC)

    def __str__(self) -> str:
        days = ",".join(DAYS[day] for day in sorted(self.days))
        return f"{days} {clock(self.start)}-{clock(self.end)} {self.zone.key}"


@dataclass(frozen=True, slots=True)
class Release:
    """From `starts` to `ends`; with `tag`, for requests whose context names that tag only."""

    starts: datetime
    ends: datetime
    tag: str | None = None

    def open_until(self, now: datetime) -> datetime | None:
        """Return the end of the window when it is open at `now`, in UTC."""
        return self.ends if self.starts <= now < self.ends else None

    def __str__(self) -> str:
        tag = f" tag {self.tag}" if self.tag is not None else ""
        return f"{_instant(self.starts)} to {_instant(self.ends)}{tag}"


Window: TypeAlias = Recurring | Release


def clock(minutes: int) -> str:
    """Write minutes after midnight as a clock shows them."""
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _instant(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
