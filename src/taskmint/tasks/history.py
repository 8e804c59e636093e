"""What an identity did here in the last hour: the `history` facts of a policy."""

from collections import defaultdict, deque
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


class History:
    """Remembers grants, denials and asking processes per identity, for an hour, in memory."""

    def __init__(self) -> None:
        self._asked: defaultdict[SpiffeId, deque[_Asked]] = defaultdict(
            lambda: deque(maxlen=MOST_REMEMBERED)
        )
        self._tidy_at = 0.0

    def record(
        self, identity: SpiffeId, process: tuple[int, int | None], now: float, *, granted: bool
    ) -> None:
        """Note one decided request; `process` is pid and start time."""
        if now >= self._tidy_at:
            self._tidy_at = now + HOUR_SECONDS / 60
            self._forget_idle(now)
        self._asked[identity].append(_Asked(now, granted, process))

    def facts(self, identity: SpiffeId, now: float) -> HistoryFacts:
        """Count this identity's last hour."""
        asked = self._asked.get(identity)
        if asked is None:
            return HistoryFacts()
        while asked and asked[0].at <= now - HOUR_SECONDS:
            asked.popleft()
        grants = sum(one.granted for one in asked)
        return HistoryFacts(grants, len(asked) - grants, len({one.process for one in asked}))

    def _forget_idle(self, now: float) -> None:
        """Drop identities that asked for nothing in the last hour."""
        idle = [k for k, asked in self._asked.items() if asked[-1].at <= now - HOUR_SECONDS]
        for identity in idle:
            del self._asked[identity]
