"""What happens to a task while it lives: deadlines, heartbeats, re-proof, renewal, forgetting."""

from typing import Final

from taskmint.model.caller import Caller
from taskmint.model.state import EndCause, TaskState

from .ending import Ender
from .outside import Outside
from .owned import OwnedWork
from .renewal import Outcome, Renewer
from .task import Task
from .timetable import Timetable

NEVER: Final = float("inf")


class Keeper:
    """Looks at each task when something about it is due, and does that."""

    def __init__(self, outside: Outside, renewer: Renewer, ender: Ender, work: OwnedWork) -> None:
        self._outside = outside
        self._renewer = renewer
        self._ender = ender
        self._work = work
        self._timetable: Timetable[Task] = Timetable(outside.clock, self._due)

    def keep(self, task: Task) -> None:
        """Watch over an active task from now on."""
        ends = task.scope.ends
        now = self._outside.clock.boottime()
        task.heartbeat_due = now + ends.heartbeat.total_seconds() if ends.heartbeat else NEVER
        task.reprove_due = now + ends.reprove.total_seconds() if ends.reprove else NEVER
        self._timetable.at(task.next_due(), task)

    def hear(self, task: Task, caller: Caller) -> None:
        """
        A heartbeat. An SVID that is valid for longer than the last one re-proves the identity: it
        was issued later. An old one shown again, or two in turns, prove nothing new.

        It also acknowledges delivery: the credentials are forgotten.
        """
        ends = task.scope.ends
        now = self._outside.clock.boottime()
        if ends.heartbeat is not None:
            task.heartbeat_due = now + ends.heartbeat.total_seconds()
        if caller.proven_until > task.proven_until:
            task.proven_until = caller.proven_until
            task.evidence = caller.evidence
            if ends.reprove is not None:
                task.reprove_due = now + ends.reprove.total_seconds()
        task.authority = caller.authority
        task.delivery = None

    def close(self) -> None:
        """Look at nothing any more."""
        self._timetable.close()

    def _due(self, task: Task) -> None:
        if task.state is not TaskState.ACTIVE:
            return
        now = self._outside.clock.boottime()
        causes = (
            (task.deadline, EndCause.DEADLINE),
            (task.heartbeat_due, EndCause.HEARTBEAT_MISSED),
            (task.reprove_due, EndCause.REPROVE_MISSED),
            (task.guaranteed_until, EndCause.RENEWAL_LOST),
        )
        for due, cause in causes:
            if now >= due:
                self._ender.end(task, cause)
                return
        if task.delivery is not None and now >= task.delivery.until:
            task.delivery = None
        if now >= task.renew_at:
            task.renew_at = NEVER
            self._work.start(self._renew(task))
        self._timetable.at(task.next_due(), task)

    async def _renew(self, task: Task) -> None:
        if await self._renewer.renew(task) is Outcome.LOST:
            self._ender.end(task, EndCause.RENEWAL_LOST)
        self._timetable.at(task.next_due(), task)
