"""
What happens to requests for approval to ledger entries, and back after a restart.

What a human typed, and the nonce without which a digest over it could be guessed, is free text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from taskmint.model.approval import Outcome, Vouched
from taskmint.model.scope import Json
from taskmint.model.state import TaskState
from taskmint.model.task_id import TaskId
from taskmint.policy.approval import Standing, is_same_person
from taskmint.ports import Approvers, Entry, Event

from .facts import (
    approval_facts,
    free_text,
    input_facts,
    instant,
    read_approval,
    read_input,
    read_scope,
    scope_facts,
)
from .requests import Evidence, Request, Until
from .task import IdempotencyKey, Owner


def awaiting(request: Request, boot_id: str) -> Entry:
    """Record a request, before anybody is told that it waits."""
    key = request.idempotency
    facts: dict[str, Json] = {
        **input_facts(request.given),
        "evidence": request.proof.evidence,
        "proven_until": instant(request.proof.proven_until),
        "authority": request.proof.authority,
        "scope": scope_facts(request.scope),
        "scope_digest": request.shown.scope_digest,
        "approval": approval_facts(request.needed),
        **_until(request.until, boot_id),
        "idempotency": [key.key, key.body] if key else None,
    }
    text = {**free_text(request.given), "nonce": request.nonce}
    at, state = request.asked_at, TaskState.AWAITING_APPROVAL
    return Entry(Event.AWAITING_APPROVAL, at, request.id, state, facts, free_text=text)


def statement(
    vouched: Vouched, state: TaskState | None, until: Until, at: datetime, boot_id: str
) -> Entry:
    """Record a statement that counts, the state that it leads to, and until when that is good."""
    facts = {**vouched_facts(vouched), **_until(until, boot_id)}
    return Entry(Event.STATEMENT, at, TaskId(vouched.statement.task), state, facts)


def statement_refused(
    vouched: Vouched | None, reason: str, at: datetime, task: TaskId | None = None
) -> Entry:
    """Record a statement that does not count: of nobody, of no task of ours, or of this one."""
    facts: dict[str, Json] = {"reason": reason}
    if vouched is not None:
        facts |= vouched_facts(vouched)
    return Entry(Event.STATEMENT_REFUSED, at, task, None, facts)


def request_ended(request: Request, at: datetime) -> Entry:
    """Record that a request is over and was never minted."""
    facts: dict[str, Json] = {
        "why": request.why,
        "cause": request.cause.value if request.cause else None,
    }
    text: dict[str, Json] = {}
    if request.ended_by is not None:
        facts["by_uid"] = request.ended_by.uid
        text["reason"] = request.ended_by.reason
    return Entry(Event.REQUEST_ENDED, at, request.id, request.state, facts, free_text=text)


def vouched_facts(vouched: Vouched) -> dict[str, Json]:
    """Write who said what, and what proves it."""
    said, who = vouched.statement, vouched.approver
    return {
        "about": said.task,
        "scope_digest": said.scope_digest,
        "policy_digest": said.policy_digest,
        "outcome": said.outcome.value,
        "not_after": instant(said.not_after),
        "jti": said.jti,
        "by": vouched.by,
        "principal": who.principal,
        "groups": [*sorted(who.groups)],
        "uids": [*sorted(who.uids)],
        "spiffe_ids": [*sorted(map(str, who.spiffe_ids))],
        "proven_id": str(who.proven_id) if who.proven_id else None,
    }


def read_request(history: Sequence[Entry], approvers: Approvers) -> tuple[Request, str]:
    """
    Rebuild a request from its entries, and the boot id that its boot-clock time is of.

    Raises KeyError, TypeError or ValueError when the entries are not ones this package wrote.
    """
    first = history[0]
    if first.event is not Event.AWAITING_APPROVAL or first.task is None:
        raise ValueError("a request's history begins when it began to wait")
    facts = cast("Mapping[str, Any]", first.facts)
    text = cast("Mapping[str, Any]", first.free_text)
    given = read_input(facts, text)
    key = facts["idempotency"]
    request = Request(
        id=first.task,
        owner=Owner(given.caller.spiffe_id, given.caller.uid),
        given=given,
        scope=read_scope(given.request.task, facts["scope"]),
        needed=read_approval(facts["approval"]),
        nonce=str(text["nonce"]),
        proof=Evidence(
            str(facts["evidence"]),
            datetime.fromisoformat(facts["proven_until"]),
            str(facts["authority"]),
        ),
        asked_at=first.at,
        until=_read_until(facts),
        idempotency=IdempotencyKey(*key) if key else None,
        state=TaskState.AWAITING_APPROVAL,
    )
    boot_id = str(facts["boot_id"])
    for entry in history[1:]:
        if entry.event is Event.STATEMENT:
            boot_id = _apply(request, entry, approvers)
    return request, boot_id


def _apply(request: Request, entry: Entry, approvers: Approvers) -> str:
    """
    Count a statement again as it was counted when it came; return the boot of its times.

    A row can be here of which nobody heard that it was written, and after it another of the same
    person, which was counted in its place: the later one stands for both.
    """
    facts = cast("Mapping[str, Any]", entry.facts)
    vouched = approvers.recall(entry.facts)
    said, tally = vouched.statement, request.tally
    tally = replace(tally, used=tally.used | {said.jti})
    others = tuple(
        one for one in tally.approvals if not is_same_person(one.approver, vouched.approver)
    )
    if said.outcome is Outcome.APPROVE:
        live = tuple(one for one in others if one.statement.not_after > entry.at)
        tally = replace(tally, approvals=(*live, vouched))
    elif said.outcome is Outcome.DENY:
        tally = replace(tally, standing=Standing.DENIED)
    else:
        tally = replace(tally, approvals=others)
        if tally.standing is Standing.APPROVED:
            tally = replace(tally, standing=Standing.WITHDRAWN)
    if entry.state is TaskState.APPROVED:
        request.state = TaskState.APPROVED
        tally = replace(tally, standing=Standing.APPROVED)
    request.tally = tally
    request.until = _read_until(facts)
    return str(facts["boot_id"])


def _until(until: Until, boot_id: str) -> dict[str, Json]:
    return {"until": instant(until.wall), "until_boottime": until.boot, "boot_id": boot_id}


def _read_until(facts: Mapping[str, Any]) -> Until:
    return Until(float(facts["until_boottime"]), datetime.fromisoformat(facts["until"]))
