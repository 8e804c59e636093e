"""
The tasks of this node, as callers and operators may act on them.

Decides by the policy, acts through ports, keeps no secret beyond the delivery window.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Self

from taskmint.errors import Code, Conflict, NotFound, TaskmintError, Unavailable
from taskmint.model.caller import Caller
from taskmint.model.scope import Denial, Ends, RequestFacts, Scope
from taskmint.model.state import EndCause, TaskState
from taskmint.model.task_id import parse_task_id
from taskmint.policy.decide import decide
from taskmint.policy.load import Policy

from .ending import Ender
from .flag import Flag
from .keeping import Keeper
from .outside import Outside, Settings
from .owned import OwnedWork
from .recovery import Recovery
from .register import Register
from .renewal import Renewer
from .revocation import Revoker
from .starting import Starter
from .task import IdempotencyKey, Owner, Task
from .views import OperatorView, TaskView, operators_view, owners_view

LONGEST_REPLAY: Final = timedelta(seconds=10)
LONGEST_START: Final = timedelta(seconds=60)


class TaskService:
    """
    Starts, shows and ends tasks. `async with` it; `stop` drains what is under way, bounded.

    Every method runs on the loop and none blocks it. Errors are those of taskmint.errors.
    """

    def __init__(
        self,
        policy: Policy,
        outside: Outside,
        settings: Settings,
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._policy = policy
        self._outside = outside
        self._work = OwnedWork(on_crash)
        self._register = Register(settings.limits)
        self._recovered = Flag()
        self._accepting = True
        self._stands: Callable[[str], bool] = lambda _authority: True
        revoker = Revoker(outside, settings)
        self._ender = Ender(outside, revoker, self._register, self._work)
        self._keeper = Keeper(outside, Renewer(outside), self._ender, self._work)
        self._starter = Starter(outside, settings, self._register, self._ender, self._keeper)
        self._recovery = Recovery(outside, settings, self._register, self._ender, self._keeper)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(revoke=False, grace=timedelta())

    # --- callers ---------------------------------------------------------------------------

    async def start(
        self, caller: Caller, request: RequestFacts, key: IdempotencyKey | None
    ) -> TaskView:
        """
        Decide, mint, hand over; with a key, the same task for the same request.

        Raises Denied, Unprocessable, LimitExceeded, Conflict, Unavailable, BackendFailed.
        """
        if not self._accepting:
            raise Unavailable(
                Code.SHUTTING_DOWN, "the daemon is stopping", fix="repeat the request"
            )
        if key is not None:
            await self._replayed()
            known = self._register.by_key(Owner(caller.spiffe_id, caller.peer.uid), key)
            if known is not None:
                return await self._again(known)
        self._require_ready()
        task = await self._starter.decide(self._policy, caller, request, key)
        self._end_if_withdrawn(task)  # its authority may have gone since the caller was proven
        await self._work.outliving(self._starter.mint(task), expected=TaskmintError)
        return owners_view(task, self._outside.clock)

    async def show(self, caller: Caller, task_id: str, wait: timedelta) -> TaskView:
        """Show a task; with `wait`, first wait that long for it to end. Raises NotFound."""
        task = await self._own(caller, task_id)
        if wait:
            await task.finished.wait(wait)
        return owners_view(task, self._outside.clock)

    async def heartbeat(self, caller: Caller, task_id: str) -> TaskView:
        """Note that the task is alive. Raises NotFound, Conflict(task_ended)."""
        task = await self._own(caller, task_id)
        if task.state is not TaskState.ACTIVE:
            raise Conflict(Code.TASK_ENDED, f"the task is {task.state}", fix="start a new one")
        self._keeper.hear(task, caller)
        return owners_view(task, self._outside.clock)

    async def end(self, caller: Caller, task_id: str, cause: EndCause, wait: timedelta) -> TaskView:
        """End the caller's task; return when that is proven, or after `wait`. Raises NotFound."""
        return await self._ended(await self._own(caller, task_id), cause, wait)

    def undelivered(self, view: TaskView) -> None:
        """The reply with the credentials reached nobody, and nobody can ask for it again."""
        task = self._register.get(view.id)
        if task is not None and task.idempotency is None:
            self._ender.end(task, EndCause.CONNECTION_LOST)

    # --- operators -------------------------------------------------------------------------

    async def end_as_operator(self, task_id: str, wait: timedelta) -> TaskView:
        """End anybody's task. Raises NotFound."""
        task = await self._find(task_id)
        if task is None:
            raise NotFound(Code.TASK_NOT_FOUND, "no such task", fix="see `taskmint tasks`")
        return await self._ended(task, EndCause.OPERATOR, wait)

    def overview(self) -> Sequence[OperatorView]:
        """Every task that is not over, oldest first."""
        clock = self._outside.clock
        return [operators_view(task, clock) for task in self._register if not task.is_over()]

    def adopt_policy(self, policy: Policy) -> int:
        """
        Decide every live task again by its recorded input; end those the policy now refuses.

        Limits are not applied again and nothing is widened (P11). Returns how many were ended.
        """
        self._policy = policy
        ended = 0
        for task in self._register:
            if task.cause is not None or task.is_over():
                continue
            decision = decide(policy, task.given)
            if isinstance(decision, Denial) or _narrows(decision, task.scope):
                self._ender.end(task, EndCause.POLICY_NARROWED)
                ended += 1
        return ended

    def end_withdrawn(self, stands: Callable[[str], bool]) -> int:
        """
        End every task whose caller was vouched for by an authority that does not stand any more.

        `stands` is asked again for tasks that start or are recovered later. Returns how many ended.
        """
        self._stands = stands
        return sum(self._end_if_withdrawn(task) for task in self._register)

    # --- the daemon ------------------------------------------------------------------------

    def ready(self) -> str | None:
        """None when tasks can be started, else the reason why not."""
        return self._outside.ledger.ready() or self._outside.vault.ready()

    async def recover(self) -> None:
        """Take up what the ledger holds of before (tasks/recovery.py). Raises Unavailable."""
        try:
            await self._recovery.run()
        finally:
            self._recovered.put_up()
        # What was taken up was decided by the policy and the authorities of before the restart.
        self.adopt_policy(self._policy)
        self.end_withdrawn(self._stands)

    async def stop(self, *, revoke: bool, grace: timedelta) -> None:
        """
        Take no new task; end all, or those whose definition says so; drain for `grace`.

        What is not proven by then stays in the ledger as unfinished and is taken up at the
        next start; the dead-man bounds it if there is none.
        """
        self._accepting = False
        for task in self._register:
            if revoke or task.scope.ends.daemon_stop == "revoke":
                self._ender.end(task, EndCause.DAEMON_STOPPED)
        late = await self._work.drain(grace.total_seconds())
        if late:
            self._outside.log.warning("stopped_with_work_left", tasks=late)
        self._keeper.close()
        for task in self._register:
            task.stop_watching()

    # --- inside ----------------------------------------------------------------------------

    def _end_if_withdrawn(self, task: Task) -> bool:
        if task.cause is not None or task.is_over() or self._stands(task.authority):
            return False
        self._ender.end(task, EndCause.IDENTITY_WITHDRAWN)
        return True

    def _require_ready(self) -> None:
        fix = "see `taskmint status` on the node"
        if reason := self._outside.ledger.ready():
            raise Unavailable(Code.LEDGER_UNAVAILABLE, reason, fix=fix)
        if reason := self._outside.vault.ready():
            raise Unavailable(Code.VAULT_UNAVAILABLE, reason, fix=fix)

    async def _again(self, task: Task) -> TaskView:
        await task.settled.wait(LONGEST_START)
        view = owners_view(task, self._outside.clock)
        if view.state is not TaskState.ACTIVE:
            raise Conflict(
                Code.TASK_ENDED,
                "the task that this Idempotency-Key started has ended",
                fix="use a new key to start another",
            )
        if view.credentials is None:
            raise Conflict(
                Code.CREDENTIALS_NOT_RETAINED,
                f"task {task.id} is running, but its credentials were delivered and forgotten",
                fix="end it and start again",
            )
        return view

    async def _own(self, caller: Caller, task_id: str) -> Task:
        task = await self._find(task_id)
        if task is None or task.owner != Owner(caller.spiffe_id, caller.peer.uid):
            raise NotFound(Code.TASK_NOT_FOUND, "you have no such task", fix="check the id")
        return task

    async def _find(self, text: str) -> Task | None:
        task_id = parse_task_id(text)
        if task_id is None:
            return None
        task = self._register.get(task_id)
        if task is None and not self._recovered.is_up():
            await self._replayed()
            task = self._register.get(task_id)
        return task

    async def _replayed(self) -> None:
        if not await self._recovered.wait(LONGEST_REPLAY):
            raise Unavailable(
                Code.LEDGER_UNAVAILABLE,
                "the daemon is still reading its ledger after a restart",
                fix="repeat the request",
            )

    async def _ended(self, task: Task, cause: EndCause, wait: timedelta) -> TaskView:
        self._ender.end(task, cause)
        await task.finished.wait(wait)
        return owners_view(task, self._outside.clock)


def _narrows(new: Scope, old: Scope) -> bool:
    """Whether `new` lacks something that `old` gave, or ends sooner."""
    return (
        any(item not in new.entitlements for item in old.entitlements)
        or new.token_policy != old.token_policy
        or new.lifetime < old.lifetime
        or new.dead_man < old.dead_man
        or _ends_sooner(new.ends, old.ends)
    )


def _ends_sooner(new: Ends, old: Ends) -> bool:
    return (
        _shorter(new.heartbeat, old.heartbeat)
        or _shorter(new.reprove, old.reprove)
        or (new.connection and not old.connection)
        or (bool(new.bind) and not (old.bind and set(old.bind) <= set(new.bind)))
        or (new.daemon_stop == "revoke" and old.daemon_stop == "keep")
    )


def _shorter(new: timedelta | None, old: timedelta | None) -> bool:
    return new is not None and (old is None or new < old)
