"""A request that was approved to the task it becomes: by repeating what was asked, once."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from taskmint.errors import BadRequest, Code, Denied, TaskmintError, Unprocessable
from taskmint.model.caller import Caller
from taskmint.model.state import TaskState
from taskmint.policy.load import Policy

from .approving import Approving
from .deciding import NeedsApproval
from .owned import OwnedWork
from .requests import Request
from .starting import Starter
from .task import IdempotencyKey, Task

LONGEST_RECORDING: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Collector:
    """Lets requests wait, and makes tasks of those that are approved."""

    approving: Approving
    starter: Starter
    work: OwnedWork

    async def wait(
        self, caller: Caller, needs: NeedsApproval, key: IdempotencyKey | None
    ) -> Request:
        """
        Let a request wait for its approval.

        Raises BadRequest without a key, by which it could be collected; LimitExceeded, Unavailable,
        Conflict.
        """
        if key is None:
            raise BadRequest(
                Code.MALFORMED_REQUEST,
                "this task needs an approval, and the request has no Idempotency-Key",
                fix="send one: the same request, repeated, collects what was approved",
            )
        request = self.approving.admit(caller, needs, key)  # known before anything is awaited
        recording = self.approving.record(request)
        await self.work.outliving(recording, expected=TaskmintError)
        if not request.waits:  # ended while it was recorded
            raise request.is_over()
        return request

    async def collect(
        self, policy: Policy, caller: Caller, waiting: Request
    ) -> tuple[Task, bool] | None:
        """
        Make the task, or find the one that was made; True says that it is to be minted now.

        None while the request waits. Raises Conflict when it is over, and what a start raises:
        what the policy would not give now voids the approval, a limit does not.
        """
        recorded = waiting.changed.until(
            lambda: waiting.state is not TaskState.REQUESTED, LONGEST_RECORDING
        )
        await recorded
        async with waiting.lock:
            self.approving.look_at(waiting)
            if waiting.task is not None:
                return waiting.task, False
            if waiting.state is TaskState.AWAITING_APPROVAL:
                return None
            self._require_approved(caller, waiting)
            task = await self._started(policy, caller, waiting)
            self.approving.collected(waiting, task)
        return task, True

    def _require_approved(self, caller: Caller, waiting: Request) -> None:
        if waiting.state is not TaskState.APPROVED:
            raise waiting.is_over()
        shown = waiting.given.caller.method
        if caller.method is not shown:
            raise Denied(
                Code.NOT_PERMITTED,
                f"this was asked for, and approved, by {shown}",
                fix="collect it by the same proof of identity",
            )

    async def _started(self, policy: Policy, caller: Caller, waiting: Request) -> Task:
        try:
            return await self.starter.collect(policy, caller, waiting)
        except (Denied, Unprocessable) as error:
            if error.code is not Code.BIND_REFUSED:  # another process may collect it
                self.approving.end(waiting, TaskState.DENIED, error.detail)
            raise
