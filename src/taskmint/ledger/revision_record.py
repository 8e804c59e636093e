"""
The rows of a task that was changed to what became of each of its revisions, in order.

A change asked for another scope, or for the same credentials anew: what it added, by which policy,
why and when it was taken back, and when that was proven.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from taskmint.model.scope import Json
from taskmint.ports import Event

from .cells import facts_of, json_object, number, seconds_between, text
from .rows import StoredRow
from .traces import traces_left

FIRST: Final = 1
_CHANGES: Final = "revision_"  # how the events of later revisions begin
_OF_ONE: Final = frozenset({Event.INTENT, Event.ACTIVE, Event.FAILED})
_OF_ALL: Final = frozenset({Event.ENDING, Event.REVOKED})  # which still stand then


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """
    One revision, or one change that was refused and has no number. None: it did not come to that.

    `added` and `removed` name entitlements against the revision that ran before, with where each
    is asked for. `why` is the task's cause where the revision stood to the end. `disabled` counts
    accounts left without login by a revision that was taken back while its task went on.
    """

    revision: int | None
    decision: str
    policy_digest: str | None
    parameters: Json
    added: list[Json]
    removed: list[Json]
    user_names: list[Json]
    serials: list[Json]
    asked_at: str
    active_at: str | None
    why: str | None
    ended_at: str | None
    revoked_at: str | None
    disabled: float | None
    revocation_seconds: float | None


@dataclass(slots=True)
class _Told:
    """The rows of one revision by what they tell: intent, active, denied, failed, ending, ..."""

    revision: int | None
    rows: dict[str, StoredRow] = field(default_factory=dict)

    def facts(self, event: str) -> Mapping[str, Json]:
        return facts_of(self.rows[event]) if event in self.rows else {}

    def at(self, event: str) -> str | None:
        return self.rows[event].row.body.at if event in self.rows else None

    def scope(self) -> Mapping[str, Json]:
        return json_object(self.facts(Event.INTENT).get("scope"))

    def entitlements(self) -> Mapping[str, Json]:
        return json_object(self.scope().get("entitlements"))


def revision_records(rows: Sequence[StoredRow]) -> list[RevisionRecord]:
    """Tell of each revision, the first included; of a task that nobody tried to change, nothing."""
    if not any(stored.row.body.event.startswith(_CHANGES) for stored in rows):
        return []
    return list(_records(_by_revision(rows)))


def _by_revision(rows: Sequence[StoredRow]) -> list[_Told]:
    told: list[_Told] = []
    numbered: dict[int, _Told] = {}
    for stored in rows:
        event = stored.row.body.event
        if event == Event.REVISION_DENIED:
            told.append(_Told(None, {Event.DENIED: stored}))
        elif event in _OF_ONE or event.startswith(_CHANGES):
            revision = (
                found if isinstance(found := facts_of(stored).get("revision"), int) else FIRST
            )
            if revision not in numbered:
                numbered[revision] = _Told(revision)
                told.append(numbered[revision])
            numbered[revision].rows[event.removeprefix(_CHANGES)] = stored
        elif event in _OF_ALL:
            for one in numbered.values():
                if Event.FAILED not in one.rows:
                    one.rows.setdefault(event, stored)
    return told


def _records(told: Sequence[_Told]) -> Iterator[RevisionRecord]:
    ran: _Told = _Told(None)
    for one in told:
        yield _record(one, ran)
        if Event.ACTIVE in one.rows:
            ran = one


def _record(one: _Told, ran: _Told) -> RevisionRecord:
    asked = one.rows.get(Event.INTENT) or next(iter(one.rows.values()))
    facts = facts_of(asked)
    left = traces_left(one.rows.values())
    ending, gone = one.facts(Event.ENDING), one.facts(Event.REVOKED)
    ended, revoked = one.at(Event.ENDING), one.at(Event.REVOKED)
    # Taken back for itself and proven with its task: only the rows' times tell how long that took.
    alike = ("why" in ending) is ("revision" in gone)
    measured = number(gone.get("revocation_seconds")) if alike else None
    return RevisionRecord(
        revision=one.revision,
        decision=_decision(one),
        policy_digest=text(facts.get("policy_digest") or one.scope().get("policy_digest")),
        parameters=facts.get("parameters"),
        added=_missing(one, ran) if Event.INTENT in one.rows else [],
        removed=_missing(ran, one) if Event.INTENT in one.rows else [],
        user_names=left["user_names"],
        serials=left["serials"],
        asked_at=asked.row.body.at,
        active_at=one.at(Event.ACTIVE),
        why=text(ending.get("why") or ending.get("cause")),
        ended_at=ended,
        revoked_at=revoked,
        disabled=number(gone.get("disabled")) if "revision" in gone else None,
        revocation_seconds=measured or seconds_between(ended, revoked),
    )


def _decision(one: _Told) -> str:
    for event, word in ((Event.DENIED, "denied"), (Event.FAILED, "granted, then failed")):
        if event in one.rows:
            return f"{word}: {one.facts(event).get('code')}"
    return "granted"


def _missing(one: _Told, other: _Told) -> list[Json]:
    """Name the entitlements of one that the other has not, or has otherwise."""
    theirs = other.entitlements()
    return [
        f"{name} {where.get('mount')}/{where.get('path')}"
        for name, item in one.entitlements().items()
        if item != theirs.get(name)
        for where in (json_object(item),)
    ]
