"""What happens to a task while it lives: deadlines, heartbeats, re-proof, renewal, forgetting."""

from taskmint.model.caller import Caller
from taskmint.model.state import EndCause, RevisionState

from .alarm import alarm
from .ending import Ender
from .outside import Outside, Settings
from .owned import OwnedWork
from .renewal import Outcome, Renewer
from .revision import NEVER, Revision
from .task import Task
from .timetable import Timetable


class Keeper:
    """Looks at each task when something about it is due, and does that."""

    def __init__(
        self,
        outside: Outside,
        settings: Settings,
        renewer: Renewer,
        ender: Ender,
        work: OwnedWork,
    ) -> None:
        self._outside = outside
        self._grace = settings.reconnect_grace.total_seconds()
        self._overlap = settings.delivery_window.total_seconds()
        self._renewer = renewer
        self._ender = ender
        self._work = work
        self._timetable: Timetable[Task] = Timetable(outside.clock, self._due)

    def keep(self, task: Task) -> None:
        """Watch over an active task from now on, by the clocks of its current revision."""
        ends = task.scope.ends
        now = self._outside.clock.boottime()
        task.heartbeat_due = now + ends.heartbeat.total_seconds() if ends.heartbeat else NEVER
        task.reprove_due = now + ends.reprove.total_seconds() if ends.reprove else NEVER
        needs_stream = ends.connection and not task.followers
        task.connection_due = now + self._grace if needs_stream else NEVER
        self.look_again(task)

    def keep_changed(self, task: Task, caller: Caller) -> None:
        """Go over to the clocks of a new revision, which `caller` asked for."""
        due = task.reprove_due
        self.keep(task)
        task.reprove_due = min(task.reprove_due, due)  # a change by itself proves nothing new
        self.hear(task, caller)

    def look_again(self, task: Task) -> None:
        """Take note that something about a task is due sooner than before."""
        self._timetable.at(task.next_due(), task)

    def look_now(self, task: Task) -> None:
        """
        Do what is due already, before somebody acts on the task.

        After a suspend or a SIGSTOP a heartbeat may arrive before the timetable comes round; it
        must not revive what has ended in the meantime.
        """
        if self._outside.clock.boottime() >= task.next_due():
            self._due(task)

    def overlap(self, revision: Revision) -> None:
        """Let a replaced revision go on beside the new one, as long as that one is delivered."""
        revision.move(RevisionState.OVERLAPPING)
        revision.overlap_until = self._outside.clock.boottime() + self._overlap

    def hear(self, task: Task, caller: Caller) -> None:
        """
        Note a sign of life. An SVID that is valid for longer than the last one re-proves the
        identity: it was issued later. An old one shown again, or two in turns, prove nothing new.
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

    def acknowledge(self, task: Task, number: int) -> None:
        """
        The caller has the credentials of this revision: they are forgotten, older ones retired.

        An acknowledgement of an older revision changes nothing.
        """
        if number < task.current.number:
            return
        task.delivery = None
        self.end_overlaps(task)

    def end_overlaps(self, task: Task) -> None:
        """Retire the revisions that a newer one has replaced."""
        for revision in task.revisions:
            if revision.state is RevisionState.OVERLAPPING and not revision.retiring:
                revision.overlap_until = self._outside.clock.boottime()
        self.look_again(task)

    def retire(self, task: Task, revision: Revision, why: str) -> None:
        """
        Take one revision back as work of our own, while the task goes on.

        Once: between this call and that work's first step another reason may come, such as a
        second acknowledgement.
        """
        if revision.retiring:
            return
        revision.retiring = True
        revision.stop_clock()
        self._work.start(self._ender.retire(task, revision, why))

    def late(self) -> float:
        """Seconds since the first task that is still waiting should have been looked at."""
        return self._timetable.late()

    def close(self) -> None:
        """Look at nothing any more."""
        self._timetable.close()

    def _due(self, task: Task) -> None:
        if not task.lives():
            return
        now = self._outside.clock.boottime()
        causes = (
            (task.deadline, EndCause.DEADLINE),
            (task.heartbeat_due, EndCause.HEARTBEAT_MISSED),
            (task.reprove_due, EndCause.REPROVE_MISSED),
            (task.connection_due, EndCause.CONNECTION_LOST),
            (task.current.lapses_at, EndCause.RENEWAL_LOST),
        )
        for due, cause in causes:
            if now >= due:
                self._ender.end(task, cause)
                return
        if task.delivery is not None and now >= task.delivery.until:
            task.delivery = None
        for revision in tuple(task.revisions):
            self._look_at(task, revision, now)
        self.look_again(task)

    def _look_at(self, task: Task, revision: Revision, now: float) -> None:
        if now >= min(revision.overlap_until, revision.lapses_at):
            self.retire(task, revision, "replaced")
            return
        if now >= revision.warn_at:
            revision.warn_at = NEVER
            revision.warned = True
            task.changed.ring()
        if now >= revision.renew_at:
            revision.renew_at = NEVER
            self._work.start(self._renew(task, revision), droppable=True)

    async def _renew(self, task: Task, revision: Revision) -> None:
        before = task.guarantee
        if await self._renewer.renew(task, revision) is Outcome.LOST:
            if revision is task.current:
                self._ender.end(task, EndCause.RENEWAL_LOST)
            else:
                self.retire(task, revision, "lost")
        alarm(self._outside, task, "renewed")
        if task.guarantee is not before:
            task.changed.ring()
        self.look_again(task)
