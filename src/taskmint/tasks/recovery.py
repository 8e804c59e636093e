"""
After a restart: adopt what may live on, take back the rest.

A task is adopted when every end that binds it still permits: its process or unit is provably the
same and alive; its deadline has not passed; heartbeat and re-proof get one interval from now, an
event stream the reconnect grace. A change that was under way is taken back; both revisions of one
that was done go on until the overlap is over, because nobody knows which the caller has.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from taskmint.errors import Unavailable
from taskmint.model.state import EndCause, RevisionState
from taskmint.ports import Entry

from . import entries
from .ending import Ender
from .keeping import Keeper
from .outside import Outside, Settings
from .recorded import Recorded, read_back
from .register import Register
from .request_recovery import RequestRecovery
from .requests import Request
from .revision import Revision
from .task import Task


@dataclass(frozen=True, slots=True)
class Recovery:
    """Replays the ledger's unfinished tasks, once, in the background after readiness."""

    outside: Outside
    settings: Settings
    register: Register
    ender: Ender
    keeper: Keeper
    requests: RequestRecovery

    async def take_up(self) -> Sequence[Task]:
        """
        Take up every unfinished task; return the adopted. Raises Unavailable(ledger_unavailable).

        From a record in doubt nothing is adopted: the row that ended a task may be what it lacks.
        """
        adopted: list[Task] = []
        taken_back = 0
        unfinished = await self.outside.ledger.unfinished()
        for history in unfinished.tasks:
            recorded = self._read(history)
            if recorded is None:
                continue
            in_doubt = unfinished.doubt is not None
            if isinstance(recorded, Request):
                self.requests.take_up(recorded, None, in_doubt=in_doubt)
                continue
            self._note_unheard(recorded.task, all_of_it=in_doubt)
            if not in_doubt and self._may_live(recorded):
                self._adopt(recorded.task)
                adopted.append(recorded.task)
            else:
                self._take_back(recorded.task)
                taken_back += 1
            if recorded.request is not None:
                self.requests.take_up(recorded.request, recorded.task, in_doubt=in_doubt)
        if unfinished.doubt is not None:
            self.outside.log.error(
                "ledger_in_doubt", reason=unfinished.doubt, taken_back=taken_back
            )
        self.outside.log.info("recovered", adopted=len(adopted), taken_back=taken_back)
        return adopted

    async def record(self, adopted: Sequence[Task]) -> None:
        """Write down which tasks outlived the restart; nobody has to wait for that."""
        await asyncio.gather(*(self._record_adoption(task) for task in adopted))

    def _read(self, history: Sequence[Entry]) -> Recorded | Request | None:
        """One task that cannot be read must not keep the others from being taken up."""
        try:
            request, rows = self.requests.split(history)
            if request is not None and not rows:
                return request
            return replace(read_back(rows), request=request)
        except (KeyError, TypeError, ValueError) as error:
            self.outside.log.error(  # noqa: TRY400 - the row may hold what a traceback would show
                "task_unreadable", task=history[0].task, error=type(error).__name__
            )
            return None

    def _may_live(self, recorded: Recorded) -> bool:
        task = recorded.task
        now = self.outside.clock.boottime()
        if not recorded.may_live:
            return False
        if recorded.boot_id != self.settings.boot_id:
            # Boot-clock times of another boot mean nothing here; the wall clock has to do.
            task.started = now
            for revision in task.revisions:
                left = min(
                    revision.expires_at - self.outside.clock.utcnow(), revision.scope.lifetime
                )
                revision.deadline = now + left.total_seconds()
        if task.deadline <= now:
            return False
        if recorded.bound is not None:
            task.watch = self.outside.processes.reopen(recorded.bound)
            return task.watch is not None
        return True

    def _adopt(self, task: Task) -> None:
        now = self.outside.clock.boottime()
        self._know(task)
        for revision in tuple(task.revisions):
            self._adopt_revision(task, revision, now)
        if task.watch is not None:
            task.watch.on_exit(lambda: self.ender.bound_ended(task))
        self.keeper.keep(task)

    def _adopt_revision(self, task: Task, revision: Revision, now: float) -> None:
        if not revision.works() or revision.overlap_until <= now:
            self.keeper.retire(task, revision, "not_recovered")
            return
        revision.adopted(now)
        if revision.state is RevisionState.OVERLAPPING:
            revision.overlap_until = now + self.settings.delivery_window.total_seconds()

    async def _record_adoption(self, task: Task) -> None:
        try:
            await self.outside.ledger.append(entries.adopted(task, self.outside.clock.utcnow()))
        except Unavailable as error:
            self.outside.log.warning("adoption_not_recorded", task=task.id, code=error.code)

    def _note_unheard(self, task: Task, *, all_of_it: bool) -> None:
        """
        Of an incomplete revision, a token or a lease may have been made without a row; of any
        revision, with a row that cannot be read any more. No lease before the accessor's row.
        """
        for revision in task.revisions:
            if not all_of_it and revision.works():
                continue
            revision.unheard_since = self.outside.clock.boottime()
            revision.in_doubt = all_of_it
            if all_of_it or revision.token is not None:
                revision.unheard = frozenset(item.name for item in revision.scope.entitlements)

    def _take_back(self, task: Task) -> None:
        self._know(task)
        task.cause = task.cause or EndCause.NOT_RECOVERED
        task.ended = self.outside.clock.boottime()
        self.ender.begin_taking_back(task)

    def _know(self, task: Task) -> None:
        self.register.admission.count(task.owner.spiffe_id, task.scope.definition)
        self.register.add(task)
