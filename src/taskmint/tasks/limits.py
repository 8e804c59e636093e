"""How many tasks there may be, and how fast they may start (P10)."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from taskmint.errors import Limit, LimitExceeded
from taskmint.model.spiffe import SpiffeId

K = TypeVar("K")

MINUTE_SECONDS: Final = 60.0
_WORDS: Final = {
    Limit.TASKS: "tasks on this node",
    Limit.TASKS_PER_IDENTITY: "tasks of this identity",
    Limit.CONCURRENT_PER_IDENTITY: "concurrent tasks of this identity and definition",
}


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """
    From the config: over a limit the caller gets 429 with Retry-After.

    `unproven_revocations` is for each mount: where so much of what was minted cannot be taken back,
    no more is minted.
    """

    tasks: int = 10_000
    tasks_per_identity: int = 1_000
    starts_per_minute: int = 60_000
    starts_per_minute_per_identity: int = 6_000
    mints_in_flight: int = 64
    unproven_revocations: int = 100
    pending: int = 1_000
    pending_per_identity: int = 10


@dataclass(frozen=True, slots=True)
class DefinitionLimits:
    """From the definition; None is no limit of its own."""

    concurrent_per_identity: int | None = None
    starts_per_minute: int | None = None


class Admission:
    """
    Counts live tasks and recent starts; `admit` takes a place, `leave` gives it back.

    `unproven` is counted by who revokes, by mount.
    """

    def __init__(self, limits: TaskLimits) -> None:
        self._limits = limits
        self._live: Counter[SpiffeId] = Counter()
        self._live_by_definition: Counter[tuple[SpiffeId, str]] = Counter()
        self.unproven: Counter[str] = Counter()
        self._total = 0
        self._tidy_at = 0.0
        self._starts: defaultdict[tuple[SpiffeId | None, str], deque[float]] = defaultdict(deque)

    def attempt(self, identity: SpiffeId, now: float) -> None:
        """
        Count one request to start or to change, before anything is decided or written.

        Raises LimitExceeded; refusals count like starts, for each costs a durable row.
        """
        self._tidy(now)
        per_identity = self._limits.starts_per_minute_per_identity
        self._paced(Limit.STARTS_PER_MINUTE, (None, ""), self._limits.starts_per_minute, now)
        self._paced(Limit.STARTS_PER_MINUTE_PER_IDENTITY, (identity, ""), per_identity, now)
        self._starts[None, ""].append(now)
        self._starts[identity, ""].append(now)

    def admit(self, identity: SpiffeId, definition: str, own: DefinitionLimits, now: float) -> None:
        """Count one more task, or raise LimitExceeded and count nothing."""
        limits = self._limits
        pair = (identity, definition)
        self._below(Limit.TASKS, self._total, limits.tasks)
        self._below(Limit.TASKS_PER_IDENTITY, self._live[identity], limits.tasks_per_identity)
        self._below(
            Limit.CONCURRENT_PER_IDENTITY,
            self._live_by_definition[pair],
            own.concurrent_per_identity,
        )
        self.pace(identity, definition, own, now)
        self.count(identity, definition)

    def pace(self, identity: SpiffeId, definition: str, own: DefinitionLimits, now: float) -> None:
        """Count a start, or a change of a running task, by its definition; or LimitExceeded."""
        pair = (identity, definition)
        self._paced(Limit.STARTS_PER_MINUTE_OF_DEFINITION, pair, own.starts_per_minute, now)
        if own.starts_per_minute is not None:
            self._starts[pair].append(now)

    def count(self, identity: SpiffeId, definition: str) -> None:
        """Count a task that is there already: one adopted after a restart."""
        self._total += 1
        self._live[identity] += 1
        self._live_by_definition[identity, definition] += 1

    def leave(self, identity: SpiffeId, definition: str) -> None:
        """Give a task's place back."""
        self._total -= 1
        _lower(self._live, identity)
        _lower(self._live_by_definition, (identity, definition))

    def require_provable(self, mounts: Iterable[str]) -> None:
        """Raise LimitExceeded where too much of what was minted cannot be taken back."""
        most = self._limits.unproven_revocations
        for mount in mounts:
            if self.unproven[mount] >= most:
                raise LimitExceeded(
                    Limit.UNPROVEN_REVOCATIONS,
                    f"the limit of {most} unproven revocations at {mount} is reached",
                    retry_after=timedelta(seconds=10),
                    fix="see `taskmint tasks` for what cannot be revoked, and why",
                )

    def _tidy(self, now: float) -> None:
        """Once a minute, drop what the last minute no longer needs."""
        if now < self._tidy_at:
            return
        self._tidy_at = now + MINUTE_SECONDS
        for key in [k for k, starts in self._starts.items() if not _recent(starts, now)]:
            del self._starts[key]

    @staticmethod
    def _below(which: Limit, value: int, limit: int | None) -> None:
        if limit is not None and value >= limit:
            raise LimitExceeded(
                which,
                f"the limit of {limit} {_WORDS[which]} is reached",
                retry_after=timedelta(seconds=1),
                fix="end a task first, or ask the operator for a higher limit",
            )

    def _paced(
        self, which: Limit, key: tuple[SpiffeId | None, str], limit: int | None, now: float
    ) -> None:
        if limit is None:
            return
        starts = self._starts[key]
        if _recent(starts, now) >= limit:
            wait = starts[0] + MINUTE_SECONDS - now if starts else MINUTE_SECONDS
            raise LimitExceeded(
                which,
                f"the limit of {limit} starts per minute is reached",
                retry_after=timedelta(seconds=wait),
                fix="start tasks more slowly, or ask the operator for a higher limit",
            )


def _recent(starts: deque[float], now: float) -> int:
    while starts and starts[0] <= now - MINUTE_SECONDS:
        starts.popleft()
    return len(starts)


def _lower(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
