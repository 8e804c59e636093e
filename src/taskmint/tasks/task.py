"""A live task as the daemon keeps it in memory: small, mutable, owned by the service alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from taskmint.errors import Code, Conflict
from taskmint.model.scope import DecisionInput, Scope
from taskmint.model.spiffe import SpiffeId
from taskmint.model.state import EndCause, TaskState, advance
from taskmint.model.task_id import TaskId
from taskmint.ports import Minted, ProcessWatch

from .bell import Bell
from .revision import NEVER, Revision


class Guarantee(StrEnum):
    """How firmly a task's credentials stand."""

    KEPT = "kept"  # renewed in time
    HALF = "half"  # half of their life is over, or may be, and no renewal has worked yet
    LOST = "lost"  # lapsed; the task has ended


@dataclass(frozen=True, slots=True)
class Owner:
    """Who may see and end a task: the proven SPIFFE ID under the uid that started it."""

    spiffe_id: SpiffeId
    uid: int


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """SHA-256 of the caller's Idempotency-Key, and of the request body in canonical JSON."""

    key: str
    body: str


def idempotency_mismatch() -> Conflict:
    """Build the refusal of a key that was used with another body."""
    return Conflict(
        Code.IDEMPOTENCY_MISMATCH,
        "this Idempotency-Key was used with another request body",
        fix="use a new key for a new request",
    )


@dataclass(frozen=True, slots=True)
class Delivery:
    """The current revision's credentials within their delivery window (design.md, section 5)."""

    credentials: Mapping[str, Minted]
    until: float


@dataclass(frozen=True, slots=True)
class EndedBy:
    """Who ended a task from the admin socket, and why; `reason` is free text."""

    uid: int
    reason: str = ""


@dataclass(slots=True, eq=False)
class Task:
    """
    One run of a definition. Times are boot-clock seconds unless their type says otherwise.

    `revisions` are those that stand or are being made, oldest first; `current` is what the caller
    was given last. `changing` is the one that a change is minting.
    """

    id: TaskId
    owner: Owner
    current: Revision
    started: float
    proven_until: datetime  # the latest expiry of an SVID shown for this task
    state: TaskState = TaskState.MINTING
    revisions: list[Revision] = field(default_factory=list)
    changing: Revision | None = None
    newest: int = 1  # the highest number that a revision was given, whatever became of it
    heartbeat_due: float = NEVER
    reprove_due: float = NEVER
    connection_due: float = NEVER  # a task bound to its event stream must have one by then
    followers: int = 0  # open event streams
    evidence: str = ""
    authority: str = ""  # what vouched for the caller; its withdrawal ends the task
    idempotency: IdempotencyKey | None = None
    change_key: IdempotencyKey | None = None  # of the latest change
    watch: ProcessWatch | None = None
    delivery: Delivery | None = None
    cause: EndCause | None = None
    ended_by: EndedBy | None = None
    ended: float = 0.0
    end_recorded: bool | None = None  # whether the row of its end is durable; None: not told yet
    revocation_seconds: float | None = None
    attempts_failed: int = 0
    last_problem: str = ""
    over: bool = False  # nothing more will happen
    changed: Bell = field(default_factory=Bell)

    def __post_init__(self) -> None:
        if not self.revisions:
            self.revisions.append(self.current)

    @property
    def scope(self) -> Scope:
        """What the caller was given last."""
        return self.current.scope

    @property
    def given(self) -> DecisionInput:
        """From what that was decided."""
        return self.current.given

    @property
    def deadline(self) -> float:
        """When it ends at the latest."""
        return self.current.deadline

    @property
    def expires_at(self) -> datetime:
        """The deadline in wall-clock time."""
        return self.current.expires_at

    @property
    def guarantee(self) -> Guarantee:
        """How firmly the credentials stand now."""
        if self.cause is EndCause.RENEWAL_LOST:
            return Guarantee.LOST
        return Guarantee.HALF if self.current.warned else Guarantee.KEPT

    def move(self, following: TaskState) -> None:
        """Go to another state, as the table in model/state.py allows."""
        self.state = advance(self.state, following)
        self.changed.ring()

    def is_settled(self) -> bool:
        """Whether its start is over, one way or the other."""
        return self.state is not TaskState.MINTING

    def is_change(self, key: IdempotencyKey) -> bool:
        """
        Whether the latest change was asked for under this key.

        Raises Conflict(idempotency_mismatch) when it was, with another body.
        """
        known = self.change_key
        if known is None or known.key != key.key:
            return False
        if known.body != key.body:
            raise idempotency_mismatch()
        return True

    def outlasts_a_crash(self) -> bool | None:
        """
        Whether its end, which has begun, would stand after a crash now; None while it is not known.

        What is minted without an approval and has no row yet that makes it active is never adopted,
        and that row will name the end (entries.active).
        """
        if self.over:
            return True
        if self.state is TaskState.MINTING:
            return True if not self.current.held and not self.given.approved else None
        return self.end_recorded

    def lives(self) -> bool:
        """Whether it is active and no end has come."""
        return self.state is TaskState.ACTIVE and self.cause is None

    def close(self) -> None:
        """Nothing more will happen to it: let go of what it holds, wake who waits."""
        self.stop_watching()
        self.over = True
        self.changed.ring()

    def stop_watching(self) -> None:
        """Let go of the bound process, if there is one."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None

    def next_due(self) -> float:
        """When something about this task is to be looked at next."""
        return min(
            self.deadline,
            self.heartbeat_due,
            self.reprove_due,
            self.connection_due,
            self.delivery.until if self.delivery else NEVER,
            *(revision.next_due() for revision in self.revisions),
        )

    def guaranteed_for(self, now: float) -> timedelta:
        """How long the credentials work from `now` if nobody renews them again."""
        until = min(self.current.guaranteed_until, self.deadline)
        return timedelta(seconds=max(0.0, until - now))
