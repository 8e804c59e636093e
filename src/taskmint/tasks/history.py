"""What an identity did here in the last hour: the `history` facts of a policy."""

from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from typing import Final

from taskmint.model.scope import HistoryFacts
from taskmint.model.spiffe import SpiffeId

HOUR_SECONDS: Final = 3600.0
MOST_REMEMBERED: Final = 1024  # grants, and as many denials, per identity; busier counts as this

Process = tuple[int | str | None, ...]  # pid and start time; of another boot, with its id


@dataclass(frozen=True, slots=True)
class _Asked:
    at: float
    process: Process


class _Hour:
    """
    One identity's requests, counted as they come and go: a decision must not add them up.

    Grants and denials are kept apart: denials, which anybody can bring about, push out no grant.
    """

    def __init__(self) -> None:
        self._grants: deque[_Asked] = deque()
        self._denials: deque[_Asked] = deque()
        self._processes: Counter[Process] = Counter()

    def add(self, process: Process, now: float, *, granted: bool) -> None:
        asked = self._grants if granted else self._denials
        if len(asked) == MOST_REMEMBERED:
            self._drop_oldest(asked)
        asked.append(_Asked(now, process))
        self._processes[process] += 1

    def facts(self, now: float) -> HistoryFacts:
        for asked in (self._grants, self._denials):
            while asked and asked[0].at <= now - HOUR_SECONDS:
                self._drop_oldest(asked)
        return HistoryFacts(len(self._grants), len(self._denials), len(self._processes))

    def idle(self, now: float) -> bool:
        newest = [asked[-1].at for asked in (self._grants, self._denials) if asked]
        return all(at <= now - HOUR_SECONDS for at in newest)

    def _drop_oldest(self, asked: deque[_Asked]) -> None:
        process = asked.popleft().process
        self._processes[process] -= 1
        if not self._processes[process]:
            del self._processes[process]


class History:
    """
    Remembers grants, denials and asking processes per identity, for an hour, in memory.

    After a restart what the ledger holds of the hour is recorded again, first (recall.py).
    """

    def __init__(self) -> None:
        self._hours: defaultdict[SpiffeId, _Hour] = defaultdict(_Hour)
        self._tidy_at = 0.0

    def record(self, identity: SpiffeId, process: Process, now: float, *, granted: bool) -> None:
        """Note one decided request."""
        if now >= self._tidy_at:
            self._tidy_at = now + HOUR_SECONDS / 60
            self._forget_idle(now)
        self._hours[identity].add(process, now, granted=granted)

    def facts(self, identity: SpiffeId, now: float) -> HistoryFacts:
        """Count this identity's last hour."""
        hour = self._hours.get(identity)
        return HistoryFacts() if hour is None else hour.facts(now)

    def _forget_idle(self, now: float) -> None:
        """Drop identities that asked for nothing in the last hour."""
        for identity in [name for name, hour in self._hours.items() if hour.idle(now)]:
            del self._hours[identity]
