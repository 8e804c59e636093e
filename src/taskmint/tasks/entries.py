"""
What happens to tasks to ledger entries.

What works as a capability (accessor, lease ids) goes to `handles`, what a human typed to
`free_text`. Rows about a later revision have no state: the task's own does not change.
"""

from datetime import datetime

from taskmint.model.scope import DecisionInput, Denial, Json
from taskmint.model.state import TaskState
from taskmint.model.task_id import TaskId
from taskmint.policy.shadow import Shadowed
from taskmint.ports import Entry, Event

from .facts import bound_facts, free_text, input_facts, instant, scope_facts, shadow_facts
from .revision import Revision
from .task import Task

FIRST = 1


def denied(
    given: DecisionInput, denial: Denial, shadow: Shadowed | None, task: TaskId, evidence: str
) -> Entry:
    """Record a refusal, with everything it was decided from."""
    facts = _denial_facts(given, denial, shadow, evidence)
    text = free_text(given)
    return Entry(Event.DENIED, given.now, task, TaskState.DENIED, facts, free_text=text)


def revision_denied(
    given: DecisionInput, denial: Denial, shadow: Shadowed | None, task: Task, evidence: str
) -> Entry:
    """Record a refused change; the task goes on as it was."""
    facts = _denial_facts(given, denial, shadow, evidence)
    return Entry(Event.REVISION_DENIED, given.now, task.id, None, facts, free_text=free_text(given))


def intent(task: Task, revision: Revision, at: datetime, boot_id: str) -> Entry:
    """Record what is about to be minted, before the first call to Vault."""
    text = free_text(revision.given)
    facts: dict[str, Json] = {
        **input_facts(revision.given),
        "asked_by": revision.asked_by,
        "evidence": task.evidence,
        "proven_until": instant(task.proven_until),
        "authority": task.authority,
        "scope": scope_facts(revision.scope),
        "name": revision.name,
        **shadow_facts(revision.shadow),
    }
    if revision.number > FIRST:
        facts["revision"] = revision.number
        facts["idempotency"] = [key.key, key.body] if (key := task.change_key) else None
        return Entry(Event.REVISION_INTENT, at, task.id, None, facts, free_text=text)
    facts |= {
        "deadline_boottime": revision.deadline,
        "started_boottime": task.started,
        "expires_at": instant(revision.expires_at),
        "boot_id": boot_id,
        "process": bound_facts(task.watch.process) if task.watch else None,
        "idempotency": [key.key, key.body] if (key := task.idempotency) else None,
    }
    return Entry(Event.INTENT, at, task.id, task.state, facts, free_text=text)


def accessor(task: Task, revision: Revision, at: datetime) -> Entry:
    """Record the task token's accessor, before the first mint with it."""
    handles: dict[str, Json] = {"accessor": revision.token.id if revision.token else None}
    if revision.number > FIRST:
        facts: dict[str, Json] = {"revision": revision.number}
        return Entry(Event.REVISION_ACCESSOR, at, task.id, None, facts, handles)
    return Entry(Event.ACCESSOR, at, task.id, task.state, handles=handles)


def active(task: Task, revision: Revision, at: datetime) -> Entry:
    """Record what was minted, before the reply that carries it (P7)."""
    entitlements: dict[str, Json] = {
        held.entitlement.name: {
            "kind": held.revocable.kind.value if held.revocable else None,
            "renewable": held.renewable,
            "user_name": held.user_name,
            "serial": held.serial,
            "expires_at": instant(held.expires_at) if held.expires_at else None,
        }
        for held in revision.held
    }
    handles: dict[str, Json] = {
        held.entitlement.name: held.revocable.id for held in revision.held if held.revocable
    }
    facts: dict[str, Json]
    if revision.number > FIRST:
        facts = {
            "revision": revision.number,
            "entitlements": entitlements,
            "deadline_boottime": revision.deadline,
            "expires_at": instant(revision.expires_at),
        }
        return Entry(Event.REVISION_ACTIVE, at, task.id, None, facts, handles)
    facts = {"entitlements": entitlements}
    if task.cause is not None:  # it ended meanwhile: a restart must not adopt it
        facts["cause"] = task.cause.value
    return Entry(Event.ACTIVE, at, task.id, task.state, facts, handles)


def revision_failed(task: Task, revision: Revision, at: datetime, code: str) -> Entry:
    """Record a change of which provably nothing remains."""
    facts: dict[str, Json] = {"revision": revision.number, "code": code}
    return Entry(Event.REVISION_FAILED, at, task.id, None, facts)


def revision_ending(task: Task, revision: Revision, at: datetime, why: str) -> Entry:
    """Record that one revision is taken back while its task goes on, and why."""
    facts: dict[str, Json] = {"revision": revision.number, "why": why}
    return Entry(Event.REVISION_ENDING, at, task.id, None, facts)


def revision_revoked(task: Task, revision: Revision, at: datetime, seconds: float) -> Entry:
    """Record that nothing of one revision is left, and to which level that is proven."""
    facts: dict[str, Json] = {
        "revision": revision.number,
        "revocation_seconds": seconds,
        **_proof(revision),
    }
    return Entry(Event.REVISION_REVOKED, at, task.id, None, facts)


def ending(task: Task, at: datetime) -> Entry:
    """Record that a task's end began, and why."""
    facts: dict[str, Json] = {"cause": task.cause.value if task.cause else None}
    text: dict[str, Json] = {}
    if task.ended_by is not None:
        facts["by_uid"] = task.ended_by.uid
        text["reason"] = task.ended_by.reason
    return Entry(Event.ENDING, at, task.id, task.state, facts, free_text=text)


def revoked(task: Task, at: datetime) -> Entry:
    """Record that revocation is proven, how long it took, and to which level."""
    facts: dict[str, Json] = {
        "cause": task.cause.value if task.cause else None,
        "revocation_seconds": task.revocation_seconds,
        "lifetime_seconds": task.ended - task.started,
        **_proof(task.current),
    }
    return Entry(Event.REVOKED, at, task.id, task.state, facts)


def failed(task: Task, at: datetime, code: str) -> Entry:
    """Record a start of which provably nothing remains."""
    return Entry(Event.FAILED, at, task.id, TaskState.FAILED, {"code": code})


def adopted(task: Task, at: datetime) -> Entry:
    """Record that a task outlived a restart of the daemon."""
    return Entry(Event.ADOPTED, at, task.id, task.state)


def _denial_facts(
    given: DecisionInput, denial: Denial, shadow: Shadowed | None, evidence: str
) -> dict[str, Json]:
    return {
        **input_facts(given),
        "evidence": evidence,
        "code": denial.code,
        "detail": denial.detail,
        "trace": list(denial.trace),
        "policy_digest": denial.policy_digest,
        **shadow_facts(shadow),
    }


def _proof(revision: Revision) -> dict[str, Json]:
    return {
        "disabled": revision.disabled,
        "proof": {held.entitlement.name: held.entitlement.proof.value for held in revision.held},
    }
