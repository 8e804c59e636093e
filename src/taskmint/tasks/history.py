"""What an identity did here in the last hour: the `history` facts of a policy."""

from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from typing import Final

from taskmint.model.scope import HistoryFacts
from taskmint.model.spiffe import SpiffeId

HOUR_SECONDS: Final = 3600.0
MOST_REMEMBERED: Final = 1024  # per identity; a busier one counts as at least this busy


@dataclass(frozen=True, slots=True)
class _Asked:
    at: float
    granted: bool
    process: tuple[int, int | None]


class _Hour:
    """One identity's requests, counted as they come and go: a decision must not add them up."""

    def __init__(self) -> None:
        self._asked: deque[_Asked] = deque()
        self._processes: Counter[tuple[int, int | None]] = Counter()
        self._grants = 0

    def add(self, asked: _Asked) -> None:
        if len(self._asked) == MOST_REMEMBERED:
            self._drop_oldest()
        self._asked.append(asked)
        self._processes[asked.process] += 1
        self._grants += asked.granted

    def facts(self, now: float) -> HistoryFacts:
        while self._asked and self._asked[0].at <= now - HOUR_SECONDS:
            self._drop_oldest()
        return HistoryFacts(self._grants, len(self._asked) - self._grants, len(self._processes))

    def idle(self, now: float) -> bool:
        return self._asked[-1].at <= now - HOUR_SECONDS if self._asked else True

    def _drop_oldest(self) -> None:
        asked = self._asked.popleft()
        self._grants -= asked.granted
        self._processes[asked.process] -= 1
        if not self._processes[asked.process]:
            del self._processes[asked.process]


class History:
    """Remembers grants, denials and asking processes per identity, for an hour, in memory."""

    def __init__(self) -> None:
        self._hours: defaultdict[SpiffeId, _Hour] = defaultdict(_Hour)
        self._tidy_at = 0.0

    def record(
        self, identity: SpiffeId, process: tuple[int, int | None], now: float, *, granted: bool
    ) -> None:
        """Note one decided request; `process` is pid and start time."""
        if now >= self._tidy_at:
            self._tidy_at = now + HOUR_SECONDS / 60
            self._forget_idle(now)
        self._hours[identity].add(_Asked(now, granted, process))

    def facts(self, identity: SpiffeId, now: float) -> HistoryFacts:
        """Count this identity's last hour."""
        hour = self._hours.get(identity)
        return HistoryFacts() if hour is None else hour.facts(now)

    def _forget_idle(self, now: float) -> None:
        """Drop identities that asked for nothing in the last hour."""
        for identity in [name for name, hour in self._hours.items() if hour.idle(now)]:
            del self._hours[identity]
