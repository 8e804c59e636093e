"""A row on its way to the ledger, written as work of our own however long that takes."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from taskmint.ports import Entry

from .bell import Bell

LONGEST_APPEND: Final = timedelta(seconds=10)


@dataclass(slots=True, eq=False)
class Recording:
    """One row; whoever wrote it says after each try whether the ledger has it."""

    entry: Entry
    tries: int = 0
    durable: bool = False
    _tried: Bell = field(default_factory=Bell)

    def tried(self, *, durable: bool) -> None:
        """Note how a try went."""
        self.tries += 1
        self.durable = durable
        self._tried.ring()

    async def is_durable(self) -> bool:
        """Whether the ledger has it, as the latest try went; the first is waited for."""
        await self._tried.until(lambda: self.tries > 0, LONGEST_APPEND)
        return self.durable
