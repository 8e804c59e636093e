"""A ledger in memory that can be full."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from taskmint.errors import Code, Unavailable
from taskmint.model.state import TERMINAL
from taskmint.ports import Entry, Event


@dataclass
class MemoryLedger:
    """`full` fails every append; `full_at` fails the appends of one event."""

    full: bool = False
    full_at: set[Event] = field(default_factory=set)
    entries: list[Entry] = field(default_factory=list)

    async def append(self, entry: Entry) -> None:
        """Keep the entry."""
        if self.full or entry.event in self.full_at:
            raise Unavailable(Code.LEDGER_UNAVAILABLE, "disk full")
        self.entries.append(entry)

    async def unfinished(self) -> Sequence[Sequence[Entry]]:
        """Group by task what has not reached a terminal state."""
        by_task: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.task is not None:
                by_task.setdefault(entry.task, []).append(entry)
        return [rows for rows in by_task.values() if rows[-1].state not in TERMINAL]

    def ready(self) -> str | None:
        """As told."""
        return "disk full" if self.full else None

    def events(self) -> list[str]:
        """The events, in order."""
        return [entry.event.value for entry in self.entries]
