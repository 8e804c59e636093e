"""Every end ends: the first cause wins, all take the one path (P4)."""

import asyncio
from contextlib import suppress
from typing import Final

from taskmint.errors import Unavailable
from taskmint.failpoints import Failpoint
from taskmint.model.state import EndCause, RevisionState, TaskState
from taskmint.ports import BoundUnit, Entry

from . import entries
from .alarm import alarm
from .outside import Outside
from .owned import OwnedWork
from .recording import Recording
from .register import Register
from .revision import Revision
from .revocation import Revoker
from .task import EndedBy, Task

LEDGER_RETRY_SECONDS: Final = 5.0


class Ender:
    """Ends tasks and single revisions and sees it through: revoked, proven, recorded."""

    def __init__(
        self,
        outside: Outside,
        revoker: Revoker,
        register: Register,
        work: OwnedWork,
    ) -> None:
        self._outside = outside
        self._revoker = revoker
        self._register = register
        self._work = work
        self._stopping = asyncio.Event()

    def end(self, task: Task, cause: EndCause, by: EndedBy | None = None) -> None:
        """Begin a task's end; a later cause changes nothing."""
        if task.cause is not None:
            return
        task.cause = cause
        task.ended_by = by
        task.ended = self._outside.clock.boottime()
        if task.state is TaskState.ACTIVE:
            self.begin_taking_back(task)
        # A task still minting is taken back by its start, which looks at `cause` when it is done.

    def hurry(self, *, insist: bool) -> None:
        """
        The daemon stops: see through what can be done now, leave the rest to the next start; with
        `insist` only what waits for the server's clocks, or for a disk.
        """
        self._stopping.set()
        self._revoker.hurry(insist=insist)

    def bound_ended(self, task: Task) -> None:
        """What the task is bound to has ended: its process, or everything in its unit."""
        unit = task.watch is not None and isinstance(task.watch.process, BoundUnit)
        self.end(task, EndCause.UNIT_EMPTY if unit else EndCause.PROCESS_EXITED)

    def begin_taking_back(self, task: Task) -> None:
        """Go to `revoking` and start the revocation as work of our own."""
        task.move(TaskState.REVOKING)
        task.delivery = None
        task.stop_watching()
        cause = task.cause or EndCause.START_FAILED
        self._outside.observer.ended(task.scope.definition, cause)
        self._outside.log.info("task_ending", task=task.id, cause=cause)
        alarm(self._outside, task, "ended")
        self._work.start(self._take_back(task))

    async def retire(self, task: Task, revision: Revision, why: str) -> None:
        """Take one revision back while its task goes on; return when proven and recorded."""
        clock = self._outside.clock
        since = clock.boottime()
        await asyncio.gather(
            self.take_back(task, revision),
            self._recorded(entries.revision_ending(task, revision, clock.utcnow(), why)),
        )
        if not revision.is_gone():
            return  # the next start goes on
        seconds = clock.boottime() - since
        await self._recorded(entries.revision_revoked(task, revision, clock.utcnow(), seconds))
        if task.lives():
            task.revisions.remove(revision)

    async def take_back(self, task: Task, revision: Revision) -> None:
        """
        Take a revision back unless somebody does already; return when nothing of it is left, or,
        while the daemon stops, when nothing but waiting is left to do.
        """
        if revision.state is RevisionState.REVOKING or revision.is_gone():
            await task.changed.until(revision.is_settled)
            return
        revision.move(RevisionState.REVOKING)
        if await self._revoker.take_back(task, revision):
            revision.move(RevisionState.REVOKED)
        else:
            revision.left = True
        task.changed.ring()

    async def _take_back(self, task: Task) -> None:
        # The row ENDING is written beside the revocation, not before it: a ledger that cannot
        # write must not keep access alive (P7). The one writer keeps it before the row REVOKED.
        outside = self._outside
        outside.failpoints.reach(Failpoint.BEFORE_ENDING)
        await asyncio.gather(
            *(self.take_back(task, one) for one in task.revisions if one is not task.changing),
            self._record_ending(task, entries.ending(task, outside.clock.utcnow())),
        )
        # What a change was minting meanwhile is taken back by that change.
        await task.changed.until(lambda: all(one.is_settled() for one in task.revisions))
        if not all(one.is_gone() for one in task.revisions):
            return  # the next start goes on
        outside.failpoints.reach(Failpoint.AFTER_ENDING)
        now = outside.clock.boottime()
        task.revocation_seconds = now - task.ended
        task.move(TaskState.REVOKED)
        outside.observer.revoked(task.scope.definition, task.revocation_seconds)
        outside.log.info("task_revoked", task=task.id, seconds=round(task.revocation_seconds, 4))
        entry = entries.revoked(task, outside.clock.utcnow())
        recorded = await self._recorded(entry)
        self.settle(task)
        self._register.ended(task, now)
        outside.failpoints.reach(Failpoint.AFTER_REVOKED)
        if not recorded:
            await self._record_when_possible(Recording(entry))

    def settle(self, task: Task) -> None:
        """Nothing more will happen to this task: its place is free."""
        task.close()
        self._register.admission.leave(task.owner.spiffe_id, task.scope.definition)

    def record_later(self, entry: Entry) -> Recording:
        """Append as work of our own, however long the ledger takes."""
        recording = Recording(entry)
        self._work.start(self._record_when_possible(recording))
        return recording

    async def _record_when_possible(self, recording: Recording) -> None:
        while True:
            recording.tried(durable=await self._recorded(recording.entry))
            if recording.durable or await self._stops_within(LEDGER_RETRY_SECONDS):
                return

    async def _record_ending(self, task: Task, entry: Entry) -> None:
        """Record it, later too: until then a crash would make a live task of it again."""
        task.end_recorded = await self._recorded(entry)
        task.changed.ring()
        if not task.end_recorded:
            self._work.start(self._record_ending_late(task, entry))

    async def _record_ending_late(self, task: Task, entry: Entry) -> None:
        while not (task.over or task.end_recorded):
            if await self._stops_within(LEDGER_RETRY_SECONDS):
                return
            if not task.over:  # else the row REVOKED says it all
                task.end_recorded = await self._recorded(entry)
        task.changed.ring()

    async def _stops_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def _recorded(self, entry: Entry) -> bool:
        try:
            await self._outside.ledger.append(entry)
        except Unavailable as error:
            self._outside.log.warning("ledger_append_failed", row=entry.event, code=error.code)
            return False
        return True
