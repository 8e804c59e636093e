"""A ledger in memory that can be full."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from taskmint.errors import Code, Unavailable
from taskmint.model.state import TERMINAL, TaskState
from taskmint.ports import Entry, Event, Unfinished


@dataclass
class MemoryLedger:
    """
    `full` fails every append; `full_at` fails the appends of one event; `doubt` is damage.
    Rows of the events in `unheard` are kept and told to have failed.

    `unreadable` says how many times what is unfinished cannot be read; `opened` is how many rows
    there were when the daemon started, where a test says so.
    """

    full: bool = False
    full_at: set[Event] = field(default_factory=set)
    unheard: set[Event] = field(default_factory=set)
    entries: list[Entry] = field(default_factory=list)
    doubt: str | None = None
    unreadable: int = 0
    hour_unreadable: int = 0  # how many times the last hour cannot be read
    opened: int | None = None
    gates: dict[TaskState, asyncio.Event] = field(default_factory=dict)  # hold rows of a state
    reading: asyncio.Event | None = None  # holds who reads what is unfinished
    held: asyncio.Event = field(default_factory=asyncio.Event)

    async def append(self, entry: Entry) -> None:
        """Keep the entry."""
        if (reason := self.ready()) or entry.event in self.full_at:
            raise Unavailable(Code.LEDGER_UNAVAILABLE, reason or "disk full")
        if entry.state in self.gates:
            self.held.set()
            await self.gates[entry.state].wait()
        self.entries.append(entry)
        if entry.event in self.unheard:
            raise Unavailable(Code.LEDGER_UNAVAILABLE, "written, and nobody knows")

    async def unfinished(self) -> Unfinished:
        """Group by task what has not reached a terminal state; once finished is finished."""
        if self.reading:
            await self.reading.wait()
        if self.unreadable:
            self.unreadable -= 1
            raise Unavailable(Code.LEDGER_UNAVAILABLE, "the disk is away")
        by_task: dict[str, list[Entry]] = {}
        for entry in self.entries[: self.opened]:
            if entry.task is not None:
                by_task.setdefault(entry.task, []).append(entry)
        open_ones = (rows for rows in by_task.values() if _is_open(rows))
        return Unfinished(list(open_ones), self.doubt)

    async def newest_first(self, events: Collection[Event], look: Callable[[Entry], bool]) -> None:
        """Show the rows, backwards; of a ledger in doubt none."""
        if self.hour_unreadable:
            self.hour_unreadable -= 1
            raise Unavailable(Code.LEDGER_UNAVAILABLE, "the disk is away")
        for entry in () if self.doubt else reversed(self.entries[: self.opened]):
            if entry.event in events and not look(entry):
                return

    def ready(self) -> str | None:
        """As told."""
        return "disk full" if self.full else self.doubt

    def events(self) -> list[str]:
        """The events, in order."""
        return [entry.event.value for entry in self.entries]


def _is_open(rows: Sequence[Entry]) -> bool:
    return TERMINAL.isdisjoint(row.state for row in rows)
