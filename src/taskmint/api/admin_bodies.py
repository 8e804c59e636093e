"""What the admin socket answers, and what that is made of; never a lease id or an accessor."""

from dataclasses import dataclass

from pydantic import BaseModel

from taskmint.tasks.figures import Figures
from taskmint.tasks.operating import OrderView
from taskmint.tasks.views import OperatorDetail, OperatorView

from .bodies import ReadyReply


class OperatorTask(BaseModel):
    """A task as operators and auditors see it; never a lease id or an accessor."""

    id: str
    definition: str
    state: str
    spiffe_id: str
    uid: int
    started_seconds_ago: float
    expires_at: str
    end_cause: str | None
    user_names: list[str]
    revocation_attempts_failed: int
    last_problem: str


class TasksReply(BaseModel):
    """Every task that is not over, oldest first."""

    tasks: list[OperatorTask]


class EntitlementReply(BaseModel):
    """One thing that a task was given: where it is minted, and how far its end is proven."""

    kind: str
    path: str
    proof: str


class TaskDetailReply(OperatorTask):
    """One task, whole; never a lease id, an accessor or a secret."""

    purpose: str
    ticket: str | None
    context: dict[str, str]
    parameters: dict[str, str | int | bool]
    bound: str | None
    guarantee: str
    guaranteed_until: str
    revision: int
    policy_digest: str
    evidence: str
    entitlements: dict[str, EntitlementReply]
    revocation_seconds: float | None


class OrderReply(BaseModel):
    """
    How far an order to revoke has come; `waiting` are the first of those not proven yet.

    `unrecorded` counts ends that the ledger could not take: a crash before their proof undoes them.
    """

    order: int
    matched: int
    proven: int
    unrecorded: int
    waiting: list[OperatorTask]


class BacklogReply(BaseModel):
    """What waits: starts for Vault, revocations for their proof, rows for the disk."""

    mints_waiting: int
    approvals_waiting: int
    revocations_unproven: int
    oldest_unproven_seconds: float
    unproven_at: dict[str, int]
    ledger_queue: int


@dataclass(frozen=True, slots=True)
class Standing:
    """
    How the daemon stands, for its status: rows that wait for the disk, and its rights in Vault
    against the plan, as last looked at.
    """

    uptime_seconds: float
    ledger_queue: int
    rights_wider: tuple[str, ...] = ()
    definitions_unapplied: frozenset[str] = frozenset()


class StatusReply(BaseModel):
    """Whether the daemon can do its work."""

    ready: ReadyReply
    node: str
    version: str
    policy_digest: str
    uptime_seconds: float
    rights_wider: list[str]
    definitions_unapplied: list[str]
    live_tasks: int
    revoking_tasks: int
    backlog: BacklogReply


class ReloadReply(BaseModel):
    """What a reload did: the digest now in force, and how many tasks it ended."""

    policy_digest: str
    ended: int


def backlog_reply(figures: Figures, ledger_queue: int) -> BacklogReply:
    return BacklogReply(
        mints_waiting=figures.waiting.mints,
        approvals_waiting=figures.waiting.approvals,
        revocations_unproven=figures.unproven,
        oldest_unproven_seconds=round(figures.oldest_unproven, 3),
        unproven_at={mount: count for mount, count in figures.unproven_at.items() if count},
        ledger_queue=ledger_queue,
    )


def detail_reply(detail: OperatorDetail) -> TaskDetailReply:
    return TaskDetailReply(
        **operator_task(detail.view).model_dump(),
        purpose=detail.purpose,
        ticket=detail.ticket,
        context=dict(detail.context),
        parameters=dict(detail.parameters),
        bound=detail.bound,
        guarantee=detail.guarantee.value,
        guaranteed_until=detail.guaranteed_until.isoformat(),
        revision=detail.revision,
        policy_digest=detail.policy_digest,
        evidence=detail.evidence,
        entitlements={
            name: EntitlementReply(kind=kind, path=path, proof=proof)
            for name, (kind, path, proof) in detail.entitlements.items()
        },
        revocation_seconds=detail.revocation_seconds,
    )


def order_reply(view: OrderView) -> OrderReply:
    return OrderReply(
        order=view.number,
        matched=view.matched,
        proven=view.proven,
        unrecorded=view.unrecorded,
        waiting=[operator_task(task) for task in view.waiting],
    )


def operator_task(view: OperatorView) -> OperatorTask:
    return OperatorTask(
        id=view.id,
        definition=view.definition,
        state=view.state.value,
        spiffe_id=view.spiffe_id,
        uid=view.uid,
        started_seconds_ago=round(view.started_seconds_ago, 3),
        expires_at=view.expires_at.isoformat(),
        end_cause=view.cause.value if view.cause else None,
        user_names=list(view.user_names),
        revocation_attempts_failed=view.attempts_failed,
        last_problem=view.last_problem,
    )
