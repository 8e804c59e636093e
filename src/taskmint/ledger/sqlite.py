"""
`ports.Ledger` on one SQLite file: entries in, durable and chained rows out.

It writes what it is given: whether a task may go from one state to another is not decided here.
"""

import asyncio
import os
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from taskmint.errors import Unavailable
from taskmint.failpoints import Failpoints
from taskmint.ports import Entry, Event, Unfinished

from .chain import Head
from .files import Damaged, refusal
from .group_commit import COMMIT_SECONDS, LONGEST_QUEUE, GroupCommit
from .remembered import Opened, remembered, show_newest_first
from .rows import SALT_BYTES, Prepared, instant, prepare
from .writer import LedgerWriter

LONGEST_RETRY_SECONDS: Final = 30.0
ROWS_AT_ONCE: Final = 1000  # per transaction, so that appends do not wait for retention


@dataclass(frozen=True, slots=True)
class Patience:
    """
    For how many and how long the ledger waits.

    `longest_queue` entries may wait for the disk; a commit may take `commit_seconds`; the first
    attempt to open the file anew after a passing fault comes after `retry_seconds`.
    """

    longest_queue: int = LONGEST_QUEUE
    commit_seconds: float = COMMIT_SECONDS
    retry_seconds: float = 1.0


_PATIENCE: Final = Patience()


class SqliteLedger:
    """
    One file, one writer; `async with SqliteLedger(...) as ledger`.

    `changed` is called on the loop with the reason when appending stops to work, and with None
    when it works again: for the log and the alarm. Each append happens within `appending(entry)`:
    for whoever measures.

    While it does not work, `append` refuses at once (P7: new tasks get 503, revocation goes on
    without the ledger). A fault that may pass, such as a full disk, is tried again in the
    background: the file is opened and checked anew. Any other fault lasts until a restart, and
    damage until an operator moves the file away.
    """

    def __init__(
        self,
        path: Path,
        *,
        node: str,
        failpoints: Failpoints,
        changed: Callable[[str | None], None] = lambda _: None,
        appending: Callable[[Entry], AbstractContextManager[None]] = lambda _: nullcontext(),
        patience: Patience = _PATIENCE,
    ) -> None:
        self._path = path
        self._appending = appending
        self._writer = LedgerWriter(path, node, failpoints)
        self._changed = changed
        self._patience = patience
        self._commits: GroupCommit[Prepared] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._reason: str | None = None
        self._repaired: tuple[str, ...] = ()

    async def __aenter__(self) -> Self:
        """
        Open the file and start the writer.

        A ledger of ours that is damaged, or on a disk that does not take writes, is opened: it
        refuses every row and `unfinished` says what is to be taken back. Raises
        Unavailable(ledger_unavailable) for a place or a file that is not this daemon's.
        """
        commits = GroupCommit(
            self._writer.append,
            close=self._writer.close,
            noticed=self._notice,
            longest_queue=self._patience.longest_queue,
            deadline=self._patience.commit_seconds,
        )
        commits.start()
        try:
            await commits.run(self._writer.open)
        except BaseException:
            await commits.stop()
            raise
        self._commits = commits
        self._notice()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write what is queued, then close the file and let go of its lock."""
        if self._recovery:
            self._recovery.cancel()
        commits, self._commits = self._commits, None
        if commits:
            await commits.stop()

    async def append(self, entry: Entry) -> None:
        """
        Return once the entry is on stable storage.

        Raises Unavailable(ledger_unavailable); then it may be there or not. Raises ValueError for
        an entry that JSON cannot carry.
        """
        if self._commits is None:
            raise refusal("the ledger is not open")
        if reason := self.ready():
            raise refusal(reason)
        with self._appending(entry):
            await self._commits.submit(prepare(entry, os.urandom(2 * SALT_BYTES)))

    async def unfinished(self) -> Unfinished:
        """
        Return what was going on when the last row before ours was written (remembered.py).

        Works while appending does not. Raises Unavailable(ledger_unavailable) while the file cannot
        be read. Damage that is found here stops appending, as damage found at the opening does.
        """
        writer = self._writer
        found = await asyncio.to_thread(
            remembered, self._path, lambda: Opened(writer.opened_at, writer.doubt)
        )
        self._repaired = found.astray
        if found.astray and self._commits is not None:
            with suppress(Unavailable):  # the next start tries again
                await self._commits.run(writer.rebuild_projection)
        if found.unfinished.doubt is not None:
            writer.doubt = found.unfinished.doubt
            self._notice()
        return found.unfinished

    async def newest_first(self, events: Collection[Event], look: Callable[[Entry], bool]) -> None:
        """
        Show every row of these events to `look`, the newest first, until it returns False.

        Raises Unavailable(ledger_unavailable) while the file cannot be read. Damage that is found
        here stops appending, and with it the showing: what has been seen by then is not all.
        """
        writer = self._writer
        if writer.doubt is not None:
            return
        try:
            await asyncio.to_thread(show_newest_first, self._path, frozenset(events), look)
        except Damaged as error:
            writer.doubt = error.detail
            self._notice()

    def ready(self) -> str | None:
        """None when entries can be appended, else the reason why not."""
        if self._commits is None:
            return "the ledger is not open"
        if self._writer.doubt is not None:
            return self._writer.doubt
        fault = self._writer.fault
        return fault.reason if fault else self._commits.trouble()

    async def purge_older_than(self, moment: datetime) -> int:
        """
        Purge the free texts of rows older than this whose task is finished; say how many.

        Raises Unavailable(ledger_unavailable).
        """
        at = instant(moment)
        return await self._by_and_by(lambda: self._writer.purge_free_text(at, ROWS_AT_ONCE))

    async def remove_older_than(self, moment: datetime, *, now: datetime) -> int:
        """
        Remove the oldest rows, up to the first that is younger or whose task is unfinished.

        A row RETENTION vouches for them, so that the chain stays verifiable. Returns how many
        rows are gone. Raises Unavailable(ledger_unavailable).
        """
        at = instant(moment)
        return await self._by_and_by(lambda: self._writer.remove_rows(at, ROWS_AT_ONCE, now))

    @property
    def head(self) -> Head:
        """The newest durable row's position and hash: export it, and truncation shows."""
        return self._writer.head

    @property
    def genesis(self) -> str:
        """What its first row follows: tells this ledger's heads from another's."""
        return self._writer.genesis

    @property
    def waiting(self) -> int:
        """How many entries wait for the disk."""
        return self._commits.waiting() if self._commits else 0

    @property
    def created(self) -> bool:
        """Whether there was no ledger before: a first start, or somebody took it away."""
        return self._writer.created

    @property
    def migrated_from(self) -> int | None:
        """The schema that the file had when it was opened, if that was an older one."""
        return self._writer.migrated_from

    @property
    def repaired(self) -> tuple[str, ...]:
        """Tasks whose projection did not follow from the rows when `unfinished` looked."""
        return self._repaired

    async def _by_and_by(self, step: Callable[[], int]) -> int:
        """Repeat a step on the writer's thread, letting appends in between, until it does less."""
        if self._commits is None:
            raise refusal("the ledger is not open")
        counts: list[int] = []
        while not counts or counts[-1] == ROWS_AT_ONCE:
            await self._commits.run(lambda: counts.append(step()))
        return sum(counts)

    def _notice(self) -> None:
        if self._commits is None:
            return  # opening or closing; whoever does that is told
        reason = self.ready()
        if reason != self._reason:
            self._reason = reason
            self._changed(reason)
        fault = None if self._writer.doubt else self._writer.fault
        if fault and fault.passing and (self._recovery is None or self._recovery.done()):
            recovery = self._recover(self._commits)
            self._recovery = asyncio.create_task(recovery, name="ledger-recovery")

    async def _recover(self, commits: GroupCommit[Prepared]) -> None:
        delay = self._patience.retry_seconds
        while (fault := self._writer.fault) and fault.passing and self._writer.doubt is None:
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_RETRY_SECONDS)
            try:
                await commits.run(self._writer.recover)
            except Unavailable:
                continue
        self._notice()
