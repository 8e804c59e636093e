"""
After a restart: requests wait on, and what was approved can still be collected, or withdrawn.

A request's time goes on while the daemon is away. Whether the policy and the authorities of before
still hold is asked afterwards, as of tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from taskmint.model.state import EndCause, TaskState
from taskmint.policy.approval import Standing
from taskmint.ports import Entry, Event

from .approving import Approving
from .ending import Ender
from .outside import Outside, Settings
from .request_entries import read_request
from .requests import Request, Requests, Until
from .task import Task


@dataclass(frozen=True, slots=True)
class RequestRecovery:
    """Takes up requests from the rows of unfinished tasks."""

    outside: Outside
    settings: Settings
    book: Requests
    approving: Approving
    ender: Ender

    def split(self, history: Sequence[Entry]) -> tuple[Request | None, Sequence[Entry]]:
        """
        Read the request that a task began as, if it did, and the rows of the task itself.

        Raises KeyError, TypeError or ValueError when the rows are not ones this package wrote.
        """
        if history[0].event is not Event.AWAITING_APPROVAL:
            return None, history
        request, boot_id = read_request(history, self.outside.approvers)
        if boot_id != self.settings.boot_id:
            # Boot-clock times of another boot mean nothing here; the wall clock has to do. Set back
            # meanwhile, it gives no more than there ever was.
            left = min(request.until.wall - self.outside.clock.utcnow(), request.needed.within)
            request.until = Until.after(left, self.outside.clock)
        begins = (at for at, entry in enumerate(history) if entry.event is Event.INTENT)
        return request, history[next(begins, len(history)) :]

    def take_up(self, request: Request, task: Task | None, *, in_doubt: bool) -> None:
        """
        Let a request wait on, or stand behind the task that it has become.

        From a record in doubt nothing waits on: a withdrawal may be what it lacks.
        """
        request.task = task
        self.book.add(request)
        standing = request.tally.standing
        if task is not None:
            if standing is Standing.WITHDRAWN:
                self.ender.end(task, EndCause.APPROVAL_WITHDRAWN)
        elif in_doubt:
            cause = EndCause.NOT_RECOVERED
            self.approving.end(request, TaskState.FAILED, "the ledger is in doubt", cause)
        elif standing is Standing.DENIED:
            self.approving.end(request, TaskState.DENIED, "an approver denied it")
        elif standing is Standing.WITHDRAWN:
            cause = EndCause.APPROVAL_WITHDRAWN
            self.approving.end(request, TaskState.FAILED, "an approval was withdrawn", cause)
        else:
            self.approving.keep(request)
