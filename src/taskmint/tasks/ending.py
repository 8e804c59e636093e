"""Every end ends: the first cause wins, all take the one path (P4)."""

import asyncio
from typing import Final

from taskmint.errors import Unavailable
from taskmint.failpoints import Failpoint
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Entry

from . import entries
from .outside import Outside
from .owned import OwnedWork
from .register import Register
from .revocation import Revoker
from .task import Task

LEDGER_RETRY_SECONDS: Final = 5.0


class Ender:
    """Ends tasks and sees the end through: revoked, proven, recorded."""

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

    def end(self, task: Task, cause: EndCause) -> None:
        """Begin a task's end; a later cause changes nothing."""
        if task.cause is not None:
            return
        task.cause = cause
        task.ended = self._outside.clock.boottime()
        if task.state is TaskState.ACTIVE:
            self.begin_taking_back(task)
        # A task still minting is taken back by its start, which looks at `cause` when it is done.

    def begin_taking_back(self, task: Task) -> None:
        """Go to `revoking` and start the revocation as work of our own."""
        task.move(TaskState.REVOKING)
        task.delivery = None
        task.stop_watching()
        task.settled.put_up()
        cause = task.cause or EndCause.START_FAILED
        self._outside.observer.ended(task.scope.definition, cause)
        self._outside.log.info("task_ending", task=task.id, cause=cause)
        self._work.start(self._take_back(task))

    async def _take_back(self, task: Task) -> None:
        # The row ENDING is written beside the revocation, not before it: a ledger that cannot
        # write must not keep access alive (P7). The one writer keeps it before the row REVOKED.
        outside = self._outside
        outside.failpoints.reach(Failpoint.BEFORE_ENDING)
        at = outside.clock.utcnow()
        await asyncio.gather(
            self._revoker.take_back(task), self._recorded(entries.ending(task, at))
        )
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
            await self._record_when_possible(entry)

    def settle(self, task: Task) -> None:
        """Nothing more will happen to this task: let go of what it holds, wake who waits."""
        task.stop_watching()
        task.settled.put_up()
        task.finished.put_up()
        self._register.admission.leave(task.owner.spiffe_id, task.scope.definition)

    def record_later(self, entry: Entry) -> None:
        """Append as work of our own, however long the ledger takes."""
        self._work.start(self._record_when_possible(entry))

    async def _record_when_possible(self, entry: Entry) -> None:
        while not await self._recorded(entry):  # noqa: ASYNC110 - polls a disk, not a flag of ours
            await asyncio.sleep(LEDGER_RETRY_SECONDS)

    async def _recorded(self, entry: Entry) -> bool:
        try:
            await self._outside.ledger.append(entry)
        except Unavailable as error:
            self._outside.log.warning("ledger_append_failed", row=entry.event, code=error.code)
            return False
        return True
