"""What may be told of a task: to its owner, and to an operator. Never a lease id or accessor."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from taskmint.model.scope import Json
from taskmint.model.state import EndCause, TaskState
from taskmint.model.task_id import TaskId
from taskmint.ports import BoundProcess, BoundUnit, Clock, Minted

from .requests import Request
from .revision import Held
from .task import Guarantee, Task


@dataclass(frozen=True, slots=True)
class Credential:
    """
    One entitlement's credential, on its way to the task.

    What is not renewed says itself when it expires; None when nobody said that it ever does.
    """

    kind: str
    minted: Minted
    revocable: bool
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class ApprovalView:
    """
    What a request waits for, and what to show whoever may approve it.

    `approvers` are those whom the policy names, `given` is how many of `quorum` have approved,
    `until` when it must be approved or, once it is, collected. `why` says why it is over.
    """

    approvers: tuple[str, ...]
    quorum: int
    given: int
    until: datetime
    plan: Mapping[str, Json]
    scope_digest: str
    policy_digest: str
    why: str


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task as its owner sees it; `credentials` only within the delivery window."""

    id: TaskId
    definition: str
    state: TaskState
    expires_at: datetime
    guaranteed_until: datetime
    heartbeat: timedelta | None
    reprove: timedelta | None
    credentials: Mapping[str, Credential] | None
    cause: EndCause | None
    revocation_seconds: float | None
    guarantee: Guarantee
    revision: int
    approval: ApprovalView | None = None


@dataclass(frozen=True, slots=True)
class OperatorView:
    """A task as an operator sees it; `user_names` tie it to the database's own log."""

    id: TaskId
    definition: str
    state: TaskState
    spiffe_id: str
    uid: int
    started_seconds_ago: float
    expires_at: datetime
    cause: EndCause | None
    user_names: tuple[str, ...]
    attempts_failed: int
    last_problem: str


@dataclass(frozen=True, slots=True)
class OperatorDetail:
    """
    One task as an operator sees it, whole. `bound` says to what it is bound, if to anything.

    `entitlements` has, by name, the kind, where it is minted, and how far its end is proven.
    """

    view: OperatorView
    purpose: str
    ticket: str | None
    context: Mapping[str, str]
    parameters: Mapping[str, str | int | bool]
    bound: str | None
    guarantee: Guarantee
    guaranteed_until: datetime
    revision: int
    policy_digest: str
    evidence: str
    entitlements: Mapping[str, tuple[str, str, str]]
    revocation_seconds: float | None


def owners_view(task: Task, clock: Clock, *, delivering: bool = True) -> TaskView:
    """Show a task to its owner; with its credentials, when this goes to nobody else."""
    now = clock.boottime()
    guaranteed_until = _guaranteed_until(task, clock)
    credentials = None
    if delivering and task.lives() and task.delivery is not None and now < task.delivery.until:
        credentials = {
            held.entitlement.name: Credential(
                kind=held.entitlement.kind.value,
                minted=task.delivery.credentials[held.entitlement.name],
                revocable=held.revocable is not None,
                expires_at=_expiry(held, min(guaranteed_until, task.expires_at)),
            )
            for held in task.current.held
        }
    return TaskView(
        id=task.id,
        definition=task.scope.definition,
        state=task.state,
        expires_at=task.expires_at,
        guaranteed_until=guaranteed_until,
        heartbeat=task.scope.ends.heartbeat,
        reprove=task.scope.ends.reprove,
        credentials=credentials,
        cause=task.cause,
        revocation_seconds=task.revocation_seconds,
        guarantee=task.guarantee,
        revision=task.current.number,
    )


def request_view(request: Request, clock: Clock) -> TaskView:
    """Show a request that waits, or was never minted, to its owner: nothing stands for it."""
    return TaskView(
        id=request.id,
        definition=request.scope.definition,
        state=request.state,
        expires_at=request.until.wall,
        guaranteed_until=clock.utcnow(),
        heartbeat=request.scope.ends.heartbeat,
        reprove=request.scope.ends.reprove,
        credentials=None,
        cause=request.cause,
        revocation_seconds=None,
        guarantee=Guarantee.KEPT,
        revision=0,
        approval=approval_view(request),
    )


def approval_view(request: Request) -> ApprovalView:
    """Show what a request waits for."""
    return ApprovalView(
        approvers=request.needed.approvers,
        quorum=request.needed.quorum,
        given=len(request.tally.approvals),
        until=request.until.wall,
        plan=request.plan,
        scope_digest=request.shown.scope_digest,
        policy_digest=request.scope.policy_digest,
        why=request.why,
    )


def operators_view(task: Task, clock: Clock) -> OperatorView:
    """Show a task to an operator."""
    return OperatorView(
        id=task.id,
        definition=task.scope.definition,
        state=task.state,
        spiffe_id=str(task.owner.spiffe_id),
        uid=task.owner.uid,
        started_seconds_ago=clock.boottime() - task.started,
        expires_at=task.expires_at,
        cause=task.cause,
        user_names=tuple(
            held.user_name
            for revision in task.revisions
            for held in revision.held
            if held.user_name
        ),
        attempts_failed=task.attempts_failed,
        last_problem=task.last_problem,
    )


def operators_detail(task: Task, clock: Clock) -> OperatorDetail:
    """Show everything about a task that is no secret."""
    request = task.given.request
    return OperatorDetail(
        view=operators_view(task, clock),
        purpose=request.purpose,
        ticket=request.ticket,
        context=request.context,
        parameters=request.parameters,
        bound=_bound(task.watch.process) if task.watch else None,
        guarantee=task.guarantee,
        guaranteed_until=_guaranteed_until(task, clock),
        revision=task.current.number,
        policy_digest=task.scope.policy_digest,
        evidence=task.evidence,
        entitlements={
            item.name: (item.kind.value, f"{item.mount}/{item.path}", item.proof.value)
            for item in task.scope.entitlements
        },
        revocation_seconds=task.revocation_seconds,
    )


def _bound(process: BoundProcess | BoundUnit) -> str:
    if isinstance(process, BoundUnit):
        return f"unit {process.path}"
    return f"{process.kind} {process.pid}"


def _guaranteed_until(task: Task, clock: Clock) -> datetime:
    """The least expiry of the token and of every lease, of those too that nobody can renew."""
    renewed = clock.utcnow() + task.guaranteed_for(clock.boottime())
    return min(renewed, task.current.leases_end() or renewed)


def _expiry(held: Held, with_task: datetime) -> datetime | None:
    """A certificate says itself when it ends; everything else ends with the task, or before."""
    if held.revocable is None or held.serial is not None:
        return held.expires_at
    return min(with_task, held.expires_at or with_task)
