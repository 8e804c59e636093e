"""
After a restart: adopt what may live on, take back the rest.

A task is adopted when every end that binds it still permits: its process is provably the same
and alive; its deadline has not passed; heartbeat and re-proof get one interval from now.
"""

import asyncio
from collections.abc import Sequence

from taskmint.errors import Unavailable
from taskmint.model.state import EndCause
from taskmint.ports import Entry

from . import entries
from .ending import Ender
from .entries import Recorded
from .keeping import Keeper
from .outside import Outside, Settings
from .register import Register
from .task import Task


class Recovery:
    """Replays the ledger's unfinished tasks, once, in the background after readiness."""

    def __init__(
        self,
        outside: Outside,
        settings: Settings,
        register: Register,
        ender: Ender,
        keeper: Keeper,
    ) -> None:
        self._outside = outside
        self._settings = settings
        self._register = register
        self._ender = ender
        self._keeper = keeper

    async def run(self) -> None:
        """Take up every unfinished task. Raises Unavailable(ledger_unavailable)."""
        adopted: list[Task] = []
        taken_back = 0
        for history in await self._outside.ledger.unfinished():
            recorded = self._read(history)
            if recorded is None:
                continue
            if self._may_live(recorded):
                self._adopt(recorded.task)
                adopted.append(recorded.task)
            else:
                self._take_back(recorded)
                taken_back += 1
        self._outside.log.info("recovered", adopted=len(adopted), taken_back=taken_back)
        await asyncio.gather(*(self._record_adoption(task) for task in adopted))

    def _read(self, history: Sequence[Entry]) -> Recorded | None:
        """One task that cannot be read must not keep the others from being taken up."""
        try:
            return entries.read_back(history)
        except (KeyError, TypeError, ValueError) as error:
            self._outside.log.error(  # noqa: TRY400 - the row may hold what a traceback would show
                "task_unreadable", task=history[0].task, error=type(error).__name__
            )
            return None

    def _may_live(self, recorded: Recorded) -> bool:
        task = recorded.task
        now = self._outside.clock.boottime()
        if not recorded.complete or recorded.ended:
            return False
        if recorded.boot_id != self._settings.boot_id:
            # Boot-clock times of another boot mean nothing here; the wall clock has to do.
            left = min(task.expires_at - self._outside.clock.utcnow(), task.scope.lifetime)
            task.started = now
            task.deadline = now + left.total_seconds()
        if task.deadline <= now:
            return False
        if recorded.process is not None:
            task.watch = self._outside.processes.reopen(recorded.process)
            return task.watch is not None
        return True

    def _adopt(self, task: Task) -> None:
        now = self._outside.clock.boottime()
        self._register.admission.count(task.owner.spiffe_id, task.scope.definition)
        self._register.add(task)
        # How long the credentials have left is not known until the first renewal has answered;
        # until then the dead-man interval is the longest it can be, and the renewal is due.
        task.guaranteed_until = now + task.scope.dead_man.total_seconds()
        task.renew_at = now
        task.settled.put_up()
        if task.watch is not None:
            task.watch.on_exit(lambda: self._ender.end(task, EndCause.PROCESS_EXITED))
        self._keeper.keep(task)

    async def _record_adoption(self, task: Task) -> None:
        try:
            await self._outside.ledger.append(entries.adopted(task, self._outside.clock.utcnow()))
        except Unavailable as error:
            self._outside.log.warning("adoption_not_recorded", task=task.id, code=error.code)

    def _take_back(self, recorded: Recorded) -> None:
        task = recorded.task
        now = self._outside.clock.boottime()
        self._register.admission.count(task.owner.spiffe_id, task.scope.definition)
        self._register.add(task)
        if not recorded.complete:
            # A token or a lease may have been made just before the crash, without a row.
            task.unheard_since = now
        task.cause = task.cause or EndCause.NOT_RECOVERED
        task.ended = now
        self._ender.begin_taking_back(task)
