"""A live task as the daemon keeps it in memory: small, mutable, owned by the service alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from taskmint.model.scope import DecisionInput, Entitlement, Scope
from taskmint.model.spiffe import SpiffeId
from taskmint.model.state import EndCause, TaskState, advance
from taskmint.model.task_id import TaskId
from taskmint.ports import Minted, ProcessWatch, Revocable

from .flag import Flag


@dataclass(frozen=True, slots=True)
class Owner:
    """Who may see and end a task: the proven SPIFFE ID under the uid that started it."""

    spiffe_id: SpiffeId
    uid: int


@dataclass(frozen=True, slots=True)
class Held:
    """What stands in Vault for one entitlement; the secret itself is not in here."""

    entitlement: Entitlement
    revocable: Revocable | None
    renewable: bool
    user_name: str | None = None


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """SHA-256 of the caller's Idempotency-Key, and of the request body in canonical JSON."""

    key: str
    body: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """Credentials within their delivery window (design.md, section 5)."""

    credentials: Mapping[str, Minted]
    until: float


@dataclass(slots=True, eq=False)
class Task:
    """
    One run of a definition. Times are boot-clock seconds unless their type says otherwise.

    `guaranteed_until` is the least of token and lease expiry as last heard from Vault.
    """

    id: TaskId
    owner: Owner
    given: DecisionInput
    scope: Scope
    started: float
    deadline: float
    expires_at: datetime
    proven_until: datetime  # the latest expiry of an SVID shown for this task
    state: TaskState = TaskState.MINTING
    token: Revocable | None = None
    held: tuple[Held, ...] = ()
    guaranteed_until: float = 0.0
    renew_at: float = float("inf")
    heartbeat_due: float = float("inf")
    reprove_due: float = float("inf")
    evidence: str = ""
    authority: str = ""  # what vouched for the caller; its withdrawal ends the task
    idempotency: IdempotencyKey | None = None
    watch: ProcessWatch | None = None
    delivery: Delivery | None = None
    cause: EndCause | None = None
    ended: float = 0.0
    revocation_seconds: float | None = None
    disabled: int = 0
    attempts_failed: int = 0
    last_problem: str = ""
    # When the last creating call went without a clear answer: a token without a known accessor,
    # or a lease without a known id, may exist, and only the server's own clocks bound it.
    unheard_since: float | None = None
    settled: Flag = field(default_factory=Flag)  # the start is over, one way or the other
    finished: Flag = field(default_factory=Flag)  # nothing more will happen

    def move(self, following: TaskState) -> None:
        """Go to another state, as the table in model/state.py allows."""
        self.state = advance(self.state, following)

    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.finished.is_up()

    def stop_watching(self) -> None:
        """Let go of the bound process, if there is one."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None

    def next_due(self) -> float:
        """When something about this task is to be looked at next."""
        forget = self.delivery.until if self.delivery else float("inf")
        return min(
            self.deadline,
            self.heartbeat_due,
            self.reprove_due,
            self.renew_at,
            self.guaranteed_until,
            forget,
        )

    def guaranteed_for(self, now: float) -> timedelta:
        """How long the credentials work from `now` if nobody renews them again."""
        return timedelta(seconds=max(0.0, min(self.guaranteed_until, self.deadline) - now))
