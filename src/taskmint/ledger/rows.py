"""
Entries to what a row stores, and stored rows back to entries.

An entry is made ready on the caller's side, so that a value which JSON cannot carry is the
caller's error and never a batch's; position and hash are given by the one writer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from taskmint.canonical import canonical
from taskmint.model.scope import Json
from taskmint.model.state import TERMINAL, TaskState
from taskmint.model.task_id import TaskId
from taskmint.ports import Entry, Event

from .chain import Body, Row, commitment, is_intact

SALT_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ClearValue:
    """What stands beside the chain until it is purged, and what opens its commitment."""

    salt: bytes = field(repr=False)
    text: str = field(repr=False)

    @property
    def commitment(self) -> str:
        """What the chained row says of it. Raises ValueError for text that is none."""
        return commitment(self.salt, self.text)

    def opens(self, committed: str | None) -> bool:
        """Whether this is what a row committed to."""
        try:
            return self.commitment == committed
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Prepared:
    """An entry, encoded, without its place in the chain; `final` means its task is finished."""

    event: str
    task: str | None
    state: str | None
    at: str
    facts: str
    handles: ClearValue | None
    free_text: ClearValue | None
    final: bool

    def at_position(self, position: int) -> Body:
        """Return the row's body at this place."""
        return Body(
            position,
            self.event,
            self.task,
            self.state,
            self.at,
            self.facts,
            self.handles.commitment if self.handles else None,
            self.free_text.commitment if self.free_text else None,
        )


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row and those of its clear values that have not been purged."""

    row: Row
    handles: ClearValue | None
    free_text: ClearValue | None


def instant(moment: datetime) -> str:
    """Return RFC 3339 in UTC with Z and microseconds; such texts sort as their times do."""
    if moment.tzinfo is None:
        raise ValueError("a ledger's time needs its zone")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def prepare(entry: Entry, salts: bytes) -> Prepared:
    """Encode an entry with 64 fresh random bytes. Raises ValueError for what JSON cannot carry."""
    if entry.handles and entry.task is None:
        raise ValueError("handles belong to a task")
    return Prepared(
        event=entry.event.value,
        task=entry.task,
        state=entry.state.value if entry.state else None,
        at=instant(entry.at),
        facts=canonical(dict(entry.facts)).decode(),
        handles=_clear(salts[:SALT_BYTES], entry.handles),
        free_text=_clear(salts[SALT_BYTES:], entry.free_text),
        final=entry.task is not None and entry.state in TERMINAL,
    )


def _clear(salt: bytes, value: Mapping[str, Json]) -> ClearValue | None:
    return ClearValue(salt, canonical(dict(value)).decode()) if value else None


def damage(stored: StoredRow) -> str | None:
    """Say what does not fit in a row of an unfinished task, taken for itself, or None."""
    if not is_intact(stored.row):
        return "its hash does not fit its fields"
    return clear_damage(stored, purged=False)


def clear_damage(stored: StoredRow, *, purged: bool) -> str | None:
    """
    Say what does not fit in the clear values beside a row, or None.

    `purged` says whether they may be gone; those of an unfinished task may not.
    """
    body = stored.row.body
    for name, clear, committed in (
        ("handles", stored.handles, body.handles),
        ("free text", stored.free_text, body.free_text),
    ):
        if clear is None:
            if committed is not None and not purged:
                return f"its {name} are gone although its task is not finished"
        elif not clear.opens(committed):
            return f"its {name} do not fit their commitment"
    return None


def entry_of(stored: StoredRow) -> Entry:
    """Return the entry that an intact row was made from; purged values are empty."""
    body = stored.row.body
    return Entry(
        event=Event(body.event),
        at=datetime.fromisoformat(body.at),
        task=TaskId(body.task) if body.task is not None else None,
        state=TaskState(body.state) if body.state is not None else None,
        facts=json.loads(body.facts),
        handles=json.loads(stored.handles.text) if stored.handles else {},
        free_text=json.loads(stored.free_text.text) if stored.free_text else {},
    )
