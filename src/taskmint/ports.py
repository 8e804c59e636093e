"""
The outside world, on one page: what this process can touch, in our words.

Adapters do not inherit from these; mypy checks that they fit where daemon/ plugs them in.
Every method names the errors it raises; nothing else comes out of an adapter.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from .errors import Limit
from .model.approval import Approver, Statement, Vouched
from .model.caller import Caller
from .model.peer import Peer
from .model.scope import BindKind, Entitlement, Ephemeral, Json, Scope
from .model.secret import Secret
from .model.state import EndCause, TaskState
from .model.task_id import TaskId


class Clock(Protocol):
    """Time. Deadlines use `boottime`, which goes on during suspend and never jumps."""

    def utcnow(self) -> datetime:
        """Wall-clock time, aware, in UTC: for records and for comparing with SVIDs."""

    def boottime(self) -> float:
        """CLOCK_BOOTTIME in seconds."""


# --- identity ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Presented:
    """What a caller put forward: a bearer token, or a DER certificate chain, leaf first."""

    bearer: Secret[str] | None = None
    chain: tuple[bytes, ...] = ()


class Identity(Protocol):
    """Proves callers. A refusal is `Unproven`; an absent agent is `Unavailable`."""

    async def identify(self, presented: Presented, peer: Peer) -> Caller:
        """Prove who is calling. Raises Unproven, Unavailable(identity_unavailable)."""

    def require_present(self, peer: Peer) -> None:
        """Raise Unproven when the process that connected has exited, whoever holds its socket."""

    def ready(self) -> str | None:
        """None when callers can be proven now, else the reason why not."""


class Authorities(Protocol):
    """Tells when what vouched for callers is withdrawn, so that what rests on it ends (P4)."""

    def stands(self, authority: str) -> bool:
        """Whether a `Caller.authority` has not been withdrawn since, as far as it is known."""

    async def changed(self, after: int) -> int:
        """Wait until `stands` may have other answers; pass 0, then what it returned last."""


class Approvers(Protocol):
    """Says who vouches for a statement; nothing in the statement does."""

    def verify(self, text: str) -> Vouched:
        """Verify a compact JWS. Raises Denied(approval_invalid)."""

    def vouch_local(self, uid: int, statement: Statement) -> Vouched:
        """Take the kernel's word for who speaks. Raises Denied(approval_refused)."""

    def current(self, vouched: Vouched) -> Approver | None:
        """Say who vouches for it by what is known now; None when nobody does any more."""

    def recall(self, facts: Mapping[str, Json]) -> Vouched:
        """
        Take up what was verified before a restart, as our own ledger has it.

        Raises KeyError, TypeError or ValueError when the facts are not those of a statement.
        """


@dataclass(frozen=True, slots=True)
class Notice:
    """
    What people are told: that a request waits, or that an emergency door was used. No secret.

    `kind` and what stands in `facts` are the interface of whoever is told (docs/approvals.md).
    """

    kind: str
    task: TaskId
    facts: Mapping[str, Json] = field(default_factory=dict)


class Tickets(Protocol):
    """Says whether a ticket is open; what cannot be asked is not open."""

    async def why_not_open(self, ticket: str, definition: str, spiffe_id: str) -> str | None:
        """None when it is open, else why not, for the operator's eyes; within seconds."""


class Notifier(Protocol):
    """Tells people; never waits, never fails, and its failing changes no decision."""

    def notify(self, notice: Notice) -> None:
        """Tell, soon; what cannot be told is counted and logged."""


@dataclass(frozen=True, slots=True)
class BoundProcess:
    """A process a task is bound to, as recorded in the ledger; all four make it the same one."""

    kind: BindKind
    pid: int
    start_time: int
    pid_namespace: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class BoundUnit:
    """
    A control group a task is bound to: it ends when the last process in or below it has ended.

    `path` is as in /proc/PID/cgroup; `id` is its directory's inode, which names it within a boot.
    """

    path: str
    id: int
    boot_id: str


class ProcessWatch(Protocol):
    """A held process, or a held unit."""

    @property
    def process(self) -> BoundProcess | BoundUnit:
        """What is held, as it is recorded."""

    def exited(self) -> bool:
        """Whether the process has exited, or the unit is empty; asks the kernel."""

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call back once, on the loop, when that happens; soon when it already has."""

    def close(self) -> None:
        """Stop watching and let go."""


class Processes(Protocol):
    """Resolves and holds the processes that tasks are bound to."""

    def bind(self, peer: Peer, kind: BindKind) -> ProcessWatch:
        """Hold what `kind` means for this peer. Raises Unprocessable(bind_refused)."""

    def reopen(self, process: BoundProcess | BoundUnit) -> ProcessWatch | None:
        """Hold what was recorded again, or None when it is not provably the same one, alive."""


# --- Vault ---------------------------------------------------------------------------------


class RevocableKind(StrEnum):
    """Two kinds of thing can be renewed and taken back."""

    LEASE = "lease"
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Revocable:
    """A lease by its id or a token by its accessor. Either is a capability: it does not print."""

    kind: RevocableKind
    id: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """The task token to make: by role, with exactly one policy, named after the task."""

    role: str
    policy: str
    display_name: str
    meta: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TaskToken:
    """
    The Vault token that owns every lease of one revision of a task; never leaves the daemon.

    `policy` is its one policy: what may be asked with it.
    """

    token: Secret[str]
    accessor: str = field(repr=False)
    ttl: timedelta
    policy: str = ""

    @property
    def revocable(self) -> Revocable:
        """The handle by which it is renewed and revoked."""
        return Revocable(RevocableKind.TOKEN, self.accessor)


@dataclass(frozen=True, slots=True)
class Minted:
    """
    What Vault made for one entitlement.

    `revocable` is None for what cannot be taken back; `user_name` is the database user, no secret,
    kept for correlation; `warnings` are Vault's own, for instance that a TTL was capped. A
    certificate has a `serial` (hex, dashes between bytes; or OpenSSH's number in hex), no secret
    either, and says itself when it `expires_at`; so does a lease that cannot be renewed. `ttl`
    counts only for what the daemon renews.
    """

    entitlement: str
    data: Secret[dict[str, Json]]
    revocable: Revocable | None
    ttl: timedelta | None
    renewable: bool
    user_name: str | None = None
    serial: str | None = None
    expires_at: datetime | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the probe role counted for a task's database users, after revocation."""

    sessions: int  # open sessions seen (and terminated) in this call
    roles: int  # roles left behind, without login: `disabled`


@dataclass(frozen=True, slots=True)
class Written:
    """An object that was written for a task; its path below /v1/."""

    path: str
    task: TaskId


class Vault(Protocol):
    """
    Mints, renews and takes back. Each call satisfies the plan's predicate before it is sent (P3).

    Raises Unavailable (away, sealed, timed out; plan_not_applied; rights_too_wide) and
    BackendFailed. Both say whether the call provably created nothing. Nothing that creates is
    retried here.
    """

    async def create_task_token(self, request: TokenRequest) -> TaskToken:
        """Create by role (auth/token/create/:role)."""

    async def write(self, request: TokenRequest, ephemeral: Ephemeral) -> None:
        """Write what must exist before the task of this token can mint; once."""

    async def mint(self, token: TaskToken, entitlement: Entitlement) -> Minted:
        """Make the entitlement's one request with the task token."""

    async def renew(self, revocable: Revocable, increment: timedelta) -> timedelta:
        """Renew by lease id or accessor; returns the life that is left now."""

    async def revoke(self, revocable: Revocable) -> None:
        """Take back, synchronously; what is already gone is success, nothing else is."""

    async def is_gone(self, revocable: Revocable) -> bool:
        """Look up; True only when the server says that there is no such thing."""

    async def probe(self, request: TokenRequest, entitlement: Entitlement) -> ProbeResult:
        """Terminate and count the sessions of the task's users through the mount's probe role."""

    async def own_clock(self, entitlement: Entitlement) -> timedelta | None:
        """
        How long an account of this entitlement's standing role works at most, unrenewed, if Vault
        never revokes it; None when it has no such clock, or nobody can say.
        """

    async def is_listed(self, entitlement: Entitlement, serial: str) -> bool:
        """Fetch the issuer's revocation list; True only when it names the certificate."""

    async def delete(self, path: str) -> None:
        """Delete an object that was written for a task; that it is not there is success."""

    async def written(self, node: str) -> Sequence[Written]:
        """List what was written for tasks of this node and not deleted yet, whoever wrote it."""

    def ready(self) -> str | None:
        """None when tasks can be started now, else the reason why not."""


# --- ledger --------------------------------------------------------------------------------


class Event(StrEnum):
    """What a ledger row says happened."""

    DAEMON_STARTED = "daemon_started"
    DAEMON_STOPPED = "daemon_stopped"
    POLICY_LOADED = "policy_loaded"
    POLICY_REFUSED = "policy_refused"  # the one of before stays in force
    UNPROVEN = "unproven"  # somebody could not prove an identity; no task
    DENIED = "denied"
    INTENT = "intent"
    ACCESSOR = "accessor"
    ACTIVE = "active"
    FAILED = "failed"
    ENDING = "ending"
    REVOKED = "revoked"
    ADOPTED = "adopted"
    REVISION_DENIED = "revision_denied"
    REVISION_INTENT = "revision_intent"
    REVISION_ACCESSOR = "revision_accessor"
    REVISION_ACTIVE = "revision_active"
    REVISION_FAILED = "revision_failed"
    REVISION_ENDING = "revision_ending"
    REVISION_REVOKED = "revision_revoked"
    AWAITING_APPROVAL = "awaiting_approval"
    STATEMENT = "statement"  # an approver's word that counts
    STATEMENT_REFUSED = "statement_refused"
    REQUEST_ENDED = "request_ended"  # never minted: denied, cancelled, expired, voided
    NOTICE_FAILED = "notice_failed"
    LEDGER_MIGRATED = "ledger_migrated"  # its tables, from the schema of an older version
    RETENTION = "retention"  # old rows were removed; this one vouches for them


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One row. `facts` is chained in clear; `handles` (lease ids, accessors) and `free_text`
    (purpose, ticket, context) are chained as salted digests, their clear values kept beside:
    handles until the task's row REVOKED, free text until the end of `ledger.retention`.
    """

    event: Event
    at: datetime
    task: TaskId | None = None
    state: TaskState | None = None
    facts: Mapping[str, Json] = field(default_factory=dict)
    handles: Mapping[str, Json] = field(default_factory=dict, repr=False)
    free_text: Mapping[str, Json] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """
    The entries, in order, of every task whose last state is not terminal.

    `doubt` says why the record is not to be believed whole: then of what is missing from it, the
    end of a task may be a part.
    """

    tasks: Sequence[Sequence[Entry]] = ()
    doubt: str | None = None


class Ledger(Protocol):
    """The durable record; one writer. Raises Unavailable(ledger_unavailable)."""

    async def append(self, entry: Entry) -> None:
        """Return once the entry is on stable storage."""

    async def unfinished(self) -> Unfinished:
        """What was going on when the daemon started; tasks that it started itself are not in it."""

    async def newest_first(self, events: Collection[Event], look: Callable[[Entry], bool]) -> None:
        """
        Show every row of these events, without its clear values, the newest first.

        Until `look`, which is called on a thread of its own, returns False. From a record in doubt
        nothing is shown, or no more.
        """

    def ready(self) -> str | None:
        """None when entries can be appended, else the reason why not."""


# --- telemetry -----------------------------------------------------------------------------


class VaultCall(StrEnum):
    """What a call to Vault is for."""

    CREATE_TOKEN = "create_token"
    WRITE = "write"
    MINT = "mint"
    RENEW = "renew"
    REVOKE = "revoke"
    LOOK_UP = "look_up"
    PROBE = "probe"
    DELETE = "delete"
    LIST = "list"


class Answered(StrEnum):
    """What became of a call to Vault."""

    OK = "ok"  # it said what was asked for, "no such thing" of a look-up included
    REFUSED = "refused"  # it will not: denied, malformed, absent
    FAILED = "failed"  # it cannot: an error of the backend, sealed, standby
    AWAY = "away"  # it was not reached, or did not answer in time


class RenewalOutcome(StrEnum):
    """What became of a renewal of a task's token and leases."""

    OK = "ok"
    FAILED = "failed"  # to be tried again
    LOST = "lost"  # the server knows no such token or lease any more


class Observer(Protocol):
    """Counts and times what happens, under closed label sets."""

    def started(self, scope: Scope, seconds: float) -> None:
        """A task became active; the time from request to credentials."""

    def refused(self, code: str) -> None:
        """A request was answered with this code of a refusal."""

    def limited(self, limit: Limit) -> None:
        """A request met a limit."""

    def shadowed(self, definition: str, verdict: str) -> None:
        """A shadow was decided beside the definition of this name (policy/shadow.py)."""

    def emergency(self, definition: str, moment: str) -> None:
        """A break-glass task started, changed, was renewed, or ended."""

    def ended(self, definition: str, cause: EndCause) -> None:
        """A task's end began."""

    def revoked(self, definition: str, seconds: float) -> None:
        """A task's revocation was proven; the time from its end."""

    def renewal(self, outcome: RenewalOutcome) -> None:
        """A renewal came to this."""

    def vault_called(self, mount: str, call: VaultCall, answered: Answered, seconds: float) -> None:
        """A call to Vault came back, or did not; the time it took, without the wait for a place."""

    def recorded(self, seconds: float) -> None:
        """A row became durable; the time from the append."""


class Tracer(Protocol):
    """Spans of what happens, each within another; W3C Trace Context at both ends."""

    def serving(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """Enter a request's span, below the caller's own where its headers name one."""

    def span(self, name: str, attributes: Mapping[str, str]) -> AbstractContextManager[None]:
        """Enter a span below the one that is entered."""

    def outgoing(self) -> Mapping[str, str]:
        """Headers by which what is asked now belongs to the span that is entered."""


class Untraced:
    """The tracer where none is wanted: it does nothing."""

    def serving(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """Enter nothing."""
        del name, headers
        return _NOTHING

    def span(self, name: str, attributes: Mapping[str, str]) -> AbstractContextManager[None]:
        """Enter nothing."""
        del name, attributes
        return _NOTHING

    def outgoing(self) -> Mapping[str, str]:
        """Send nothing along."""
        return _NO_HEADERS


_NOTHING: Final = nullcontext()
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
UNTRACED: Final = Untraced()
