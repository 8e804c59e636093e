"""What may be told of a task: to its owner, and to an operator. Never a lease id or accessor."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from taskmint.model.state import EndCause, TaskState
from taskmint.model.task_id import TaskId
from taskmint.ports import Clock, Minted

from .task import Guarantee, Task


@dataclass(frozen=True, slots=True)
class Credential:
    """One entitlement's credential, on its way to the task."""

    kind: str
    minted: Minted
    revocable: bool
    expires_at: datetime


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


def owners_view(task: Task, clock: Clock, *, delivering: bool = True) -> TaskView:
    """Show a task to its owner; with its credentials, when this goes to nobody else."""
    now = clock.boottime()
    guaranteed_until = clock.utcnow() + task.guaranteed_for(now)
    credentials = None
    if delivering and task.lives() and task.delivery is not None and now < task.delivery.until:
        credentials = {
            held.entitlement.name: Credential(
                kind=held.entitlement.kind.value,
                minted=task.delivery.credentials[held.entitlement.name],
                revocable=held.revocable is not None,
                expires_at=min(guaranteed_until, task.expires_at),
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
