"""
A task's rows to the answers an auditor asks for: who, why, what was decided, how it ended.

Times between events come from the daemon's own measurement (boot clock) where a row holds one,
else from the difference of the rows' wall-clock times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taskmint.model.scope import Json
from taskmint.ports import Event

from .cells import facts_of, json_object, number, seconds_between, text
from .export import parsed
from .revision_record import RevisionRecord, revision_records
from .rows import StoredRow
from .traces import traces_left

PURGED = "[purged]"


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """
    One task, as the ledger tells it. None: it did not come to that, or no row says.

    `disabled` counts database accounts that are left without login, for the database's owner to
    drop. `user_names` and `serials` are what others see of it, of all its revisions.

    `lived_seconds` counts from the intent to the end, `revocation_seconds` from the end to the
    proof. Purged texts read `[purged]`. `revisions` is empty when nobody tried to change it.
    """

    task: str
    state: str | None
    definition: str | None
    spiffe_id: str | None
    uid: int | None
    method: str | None
    parameters: Json
    purpose: str | None
    ticket: str | None
    context: Json
    decision: str
    shadow: str | None  # what the definition's shadow would have changed
    policy_digest: str | None
    requested_at: str
    active_at: str | None
    user_names: list[Json]
    serials: list[Json]
    ended_at: str | None
    cause: str | None
    revoked_at: str | None
    disabled: int | None
    lived_seconds: float | None
    revocation_seconds: float | None
    revisions: list[RevisionRecord]


def task_record(rows: Sequence[StoredRow]) -> TaskRecord:
    """Tell one task's story from its rows, at least one, in order."""
    first = rows[0]
    facts, left = facts_of(first), traces_left(rows)
    scope = json_object(facts.get("scope"))
    free = _free_text(first)
    at = {row.row.body.event: row.row.body.at for row in rows}
    last: dict[str, Mapping[str, Json]] = {row.row.body.event: facts_of(row) for row in rows}
    proof = last.get(Event.REVOKED, {})
    ending = last.get(Event.ENDING, {})
    states = [row.row.body.state for row in rows if row.row.body.state]
    ended, revoked = at.get(Event.ENDING), at.get(Event.REVOKED)
    return TaskRecord(
        task=first.row.body.task or "",
        state=states[-1] if states else None,
        definition=text(facts.get("definition")),
        spiffe_id=text(facts.get("spiffe_id")),
        uid=uid if isinstance(uid := facts.get("uid"), int) else None,
        method=text(facts.get("method")),
        parameters=facts.get("parameters"),
        purpose=text(free.get("purpose")),
        ticket=text(free.get("ticket")),
        context=free.get("context"),
        decision=_decision(last),
        shadow=_shadow(json_object(facts.get("shadow"))),
        policy_digest=text(facts.get("policy_digest") or scope.get("policy_digest")),
        requested_at=first.row.body.at,
        active_at=at.get(Event.ACTIVE),
        user_names=left["user_names"],
        serials=left["serials"],
        ended_at=ended,
        cause=text(ending.get("cause") or proof.get("cause")),
        revoked_at=revoked,
        disabled=left_over if isinstance(left_over := proof.get("disabled"), int) else None,
        lived_seconds=number(proof.get("lifetime_seconds"))
        or seconds_between(first.row.body.at, ended),
        revocation_seconds=number(proof.get("revocation_seconds"))
        or seconds_between(ended, revoked),
        revisions=revision_records(rows),
    )


def _decision(last: Mapping[str, Mapping[str, Json]]) -> str:
    for event, word in ((Event.DENIED, "denied"), (Event.FAILED, "granted, then failed")):
        if event in last:
            return f"{word}: {last[event].get('code')}"
    return "granted"


def _shadow(facts: Mapping[str, Json]) -> str | None:
    if not facts:
        return None
    code = facts.get("code")
    return f"{facts.get('verdict')}" + (f": {code}" if code is not None else "")


def _free_text(stored: StoredRow) -> Mapping[str, Json]:
    if stored.free_text:
        return json_object(parsed(stored.free_text.text))
    if stored.row.body.free_text:
        return {"purpose": PURGED, "ticket": PURGED, "context": PURGED}
    return {}
