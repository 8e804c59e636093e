"""Ledger entries back to the task they tell of, with every revision that may still stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from taskmint.model.state import EndCause, RevisionState, TaskState
from taskmint.ports import BoundProcess, BoundUnit, Entry, Event, Revocable, RevocableKind

from .entries import FIRST
from .facts import read_bound, read_input, read_scope
from .requests import Request
from .revision import Held, Revision
from .task import IdempotencyKey, Owner, Task


@dataclass(frozen=True, slots=True)
class Recorded:
    """
    A task as the ledger remembers it after a restart.

    Of its revisions the newest that was minted completely is current, older ones are overlapping,
    and what was not complete is MINTING. Where an end had begun, `overlap_until` has passed.
    `request` is what it was while it waited for an approval, if it did.
    """

    task: Task
    boot_id: str
    bound: BoundProcess | BoundUnit | None
    request: Request | None = None

    @property
    def may_live(self) -> bool:
        """Whether its start was complete and no end had begun."""
        return self.task.state is TaskState.ACTIVE and self.task.cause is None


def read_back(history: Sequence[Entry]) -> Recorded:
    """
    Rebuild an unfinished task from its entries, the intent first.

    Raises KeyError, TypeError or ValueError when the entries are not ones this package wrote.
    """
    first = history[0]
    if first.event is not Event.INTENT or first.task is None:
        raise ValueError("a task's history begins with its intent")
    facts = cast("Mapping[str, Any]", first.facts)
    revision = _read_intent(first, facts)
    caller = revision.given.caller
    task = Task(
        id=first.task,
        owner=Owner(caller.spiffe_id, caller.uid),
        current=revision,
        started=float(facts["started_boottime"]),
        evidence=str(facts["evidence"]),
        proven_until=datetime.fromisoformat(facts["proven_until"]),
        authority=str(facts.get("authority", "")),
        idempotency=_read_key(facts),
    )
    for entry in history[1:]:
        _apply(task, entry, cast("Mapping[str, Any]", entry.facts))
    bound = facts["process"]
    return Recorded(task, str(facts["boot_id"]), read_bound(bound) if bound else None)


def _apply(task: Task, entry: Entry, facts: Mapping[str, Any]) -> None:
    if entry.event is Event.ENDING:
        task.cause = EndCause(facts["cause"])
        return
    if entry.event is Event.REVISION_INTENT:
        revision = _read_intent(entry, facts, task.current)
        task.newest = revision.number
        task.revisions.append(revision)
        task.change_key = _read_key(facts)
        return
    named = _named(task, facts)
    if named is not None:
        _apply_to(task, named, entry, facts)


def _apply_to(task: Task, revision: Revision, entry: Entry, facts: Mapping[str, Any]) -> None:
    match entry.event:
        case Event.ACCESSOR | Event.REVISION_ACCESSOR:
            revision.token = Revocable(RevocableKind.TOKEN, str(entry.handles["accessor"]))
        case Event.ACTIVE | Event.REVISION_ACTIVE:
            _activate(task, revision, entry, facts)
        case Event.REVISION_ENDING:
            revision.overlap_until = 0.0
        case Event.REVISION_REVOKED | Event.REVISION_FAILED:
            task.revisions.remove(revision)
        case _:
            return


def _named(task: Task, facts: Mapping[str, Any]) -> Revision | None:
    number = facts.get("revision", FIRST)
    return next((one for one in task.revisions if one.number == number), None)


def _activate(task: Task, revision: Revision, entry: Entry, facts: Mapping[str, Any]) -> None:
    revision.held = tuple(_read_held(revision, entry, facts["entitlements"]))
    if "cause" in facts:
        task.cause = EndCause(facts["cause"])
    if revision.number > FIRST:
        revision.deadline = float(facts["deadline_boottime"])
        revision.expires_at = datetime.fromisoformat(facts["expires_at"])
    if revision.state is not RevisionState.MINTING:
        return
    revision.move(RevisionState.CURRENT)
    if revision is not task.current and task.current.state is RevisionState.CURRENT:
        task.current.move(RevisionState.OVERLAPPING)
    task.current = revision
    task.state = TaskState.ACTIVE


def _read_intent(
    entry: Entry, facts: Mapping[str, Any], before: Revision | None = None
) -> Revision:
    given = read_input(facts, cast("Mapping[str, Any]", entry.free_text))
    scope = read_scope(given.request.task, facts["scope"])
    if before is not None:
        number, deadline, expires = int(facts["revision"]), before.deadline, before.expires_at
    else:
        number, deadline = FIRST, float(facts["deadline_boottime"])
        expires = datetime.fromisoformat(facts["expires_at"])
    revision = Revision(number, given, scope, deadline, expires, str(facts.get("name", "")))
    revision.written |= {one.path for one in revision.ephemerals()}
    return revision


def _read_key(facts: Mapping[str, Any]) -> IdempotencyKey | None:
    key = facts["idempotency"]
    return IdempotencyKey(*key) if key else None


def _read_held(
    revision: Revision, entry: Entry, minted: Mapping[str, Mapping[str, Any]]
) -> list[Held]:
    held = []
    for item in revision.entitlements():
        facts = minted[item.name]
        kind = facts["kind"]
        revocable = Revocable(RevocableKind(kind), str(entry.handles[item.name])) if kind else None
        expires_at = facts.get("expires_at")
        held.append(
            Held(
                item,
                revocable,
                bool(facts["renewable"]),
                user_name=facts["user_name"],
                serial=facts.get("serial"),
                expires_at=datetime.fromisoformat(expires_at) if expires_at else None,
            )
        )
    return held
