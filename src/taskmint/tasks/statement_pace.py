"""How fast statements about requests may be brought: each that is recorded costs a durable row."""

from collections import Counter, deque
from datetime import timedelta
from typing import Final

from taskmint.errors import Limit, LimitExceeded
from taskmint.ports import Clock

PER_MINUTE: Final = 600
PER_MINUTE_OF_UID: Final = 120
_MINUTE_SECONDS: Final = 60.0


class StatementPace:
    """
    Counts statements of the last minute, in all and by the local user who brought them: whatever
    one of them brings leaves places for the others.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._brought: deque[tuple[float, int]] = deque()
        self._of_uid: Counter[int] = Counter()

    def count(self, uid: int) -> None:
        """Count one more, brought by `uid`. Raises LimitExceeded and counts nothing."""
        now = self._clock.boottime()
        self._tidy(now)
        for limit, count, most, whose in (
            (Limit.STATEMENTS_PER_MINUTE, len(self._brought), PER_MINUTE, ""),
            (
                Limit.STATEMENTS_PER_MINUTE_OF_UID,
                self._of_uid[uid],
                PER_MINUTE_OF_UID,
                f" from uid {uid}",
            ),
        ):
            if count >= most:
                own = (at for at, who in self._brought if not whose or who == uid)
                raise LimitExceeded(
                    limit,
                    f"the limit of {most} statements per minute{whose} is reached",
                    retry_after=timedelta(seconds=next(own) + _MINUTE_SECONDS - now),
                    fix="bring each statement once",
                )
        self._brought.append((now, uid))
        self._of_uid[uid] += 1

    def _tidy(self, now: float) -> None:
        while self._brought and self._brought[0][0] <= now - _MINUTE_SECONDS:
            _, uid = self._brought.popleft()
            self._of_uid[uid] -= 1
            if not self._of_uid[uid]:
                del self._of_uid[uid]
