"""
The tasks of this node, as callers may act on them, and as the daemon keeps them.

Decides by the policy, acts through ports, keeps no secret beyond the delivery window.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, Self, TypeVar

from taskmint.errors import Code, Conflict, NotFound, TaskmintError, Unavailable
from taskmint.model.caller import Caller
from taskmint.model.peer import Peer
from taskmint.model.scope import CallerFacts, Denial, RequestFacts
from taskmint.model.state import EndCause, TaskState
from taskmint.policy.load import Policy

from .approving import Approving
from .changing import Change, Changer
from .collecting import Collector
from .deciding import Decider, Explanation, NeedsApproval, caller_facts, refusal
from .ending import Ender
from .following import Followers, Following, RequestFollowing
from .keeping import Keeper
from .keys import KeysInUse
from .minting import Minter
from .narrowing import end_narrowed
from .operating import Operators
from .outside import Outside, Settings
from .owned import OwnedWork
from .recovery import Recovery
from .register import Register
from .renewal import Renewer
from .request_recovery import RequestRecovery
from .requests import Request, Requests
from .revocation import Revoker
from .starting import Starter
from .strangers import Strangers
from .sweeping import Sweeper
from .task import IdempotencyKey, Owner, Task
from .tickets import TicketGate, TicketWatch
from .views import TaskView, owners_view, request_view

LONGEST_START: Final = timedelta(seconds=60)
FIRST_REPLAY_PAUSE_SECONDS: Final = 0.25
LONGEST_REPLAY_PAUSE_SECONDS: Final = 8.0
LATEST_LOOK: Final = timedelta(seconds=10)

_Read = TypeVar("_Read")


class TaskService:
    """
    Starts, changes, shows and ends tasks; `operators` does what operators may, `approving` what
    approvers may; `tickets` keeps emergencies under theirs.

    `async with` it; `stop` drains what is under way, bounded. Every method runs on the loop and
    none blocks it. Errors are those of taskmint.errors.
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
        self._accepting = True
        self._recovered = asyncio.Event()
        self._hung_up = False
        self._stands: Callable[[str], bool] = lambda _authority: True
        self._work = work = OwnedWork(on_crash)
        self._register = register = Register(settings.limits)
        self._revoker = revoker = Revoker(outside, settings, register.admission.unproven)
        self._ender = ender = Ender(outside, revoker, register, work)
        self._keeper = keeper = Keeper(outside, settings, Renewer(outside), ender, work)
        self._decider = decider = Decider(outside, settings)
        minter = Minter(outside, settings)
        gate = TicketGate(outside, decider)
        given = outside, settings, register, decider, gate, minter, ender, keeper
        self._requests = requests = Requests(settings.limits)
        self._keys = KeysInUse()
        self.approving = approving = Approving(
            outside, settings, requests, register, ender, lambda: self._policy
        )
        self._starter = Starter(*given)
        self._changer = Changer(*given, requests)
        self._collector = Collector(approving, self._starter, work)
        replay = RequestRecovery(outside, settings, requests, approving, ender)
        self._recovery = Recovery(outside, settings, register, ender, keeper, replay)
        self._sweeper = Sweeper(outside, settings, register)
        self._strangers = Strangers(outside, work)
        self.tickets = TicketWatch(outside, register, ender)
        self._followers = Followers(outside.clock, ender)
        self.operators = Operators(
            outside.clock, register, ender, approving, lambda: minter.waiting
        )

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
        self._require_accepting()
        if key is not None:
            await self._register.replayed()
        async with self._keys.held(_owner(caller), key):
            found = self._known(caller, key)
            one = found or await self._begun(caller, request, key)
        if isinstance(one, Task):
            if one is not found:
                return await self._mint(one)
            await one.changed.until(one.is_settled, LONGEST_START)
            return self._again(one)
        if one is not found:
            return request_view(one, self._outside.clock)
        return await self._collect(caller, one)

    def _known(self, caller: Caller, key: IdempotencyKey | None) -> Task | Request | None:
        """Find what a key began, in whichever book it stands now."""
        if key is None:
            return None
        owner = _owner(caller)
        return self._register.by_key(owner, key) or self._requests.by_key(owner, key)

    async def _begun(
        self, caller: Caller, request: RequestFacts, key: IdempotencyKey | None
    ) -> Task | Request:
        """Decide: a task that is to be minted, or a request that waits."""
        await self._until_decisive()
        try:
            return await self._starter.decide(self._policy, caller, request, key)
        except NeedsApproval as needs:
            return await self._collector.wait(caller, needs, key)

    async def _collect(self, caller: Caller, waiting: Request) -> TaskView:
        """Answer a repeated request: it still waits, or it becomes a task."""
        await self._until_decisive()
        found = await self._collector.collect(self._policy, caller, waiting)
        if found is None:
            return request_view(waiting, self._outside.clock)
        task, is_new = found
        if is_new:
            return await self._mint(task)
        await task.changed.until(task.is_settled, LONGEST_START)
        return self._again(task)

    async def _mint(self, task: Task) -> TaskView:
        self._end_if_withdrawn(task)  # its authority may have gone since the caller was proven
        await self._work.outliving(self._starter.mint(task), expected=TaskmintError)
        self.approving.habits.note(task.owner.spiffe_id, task.scope)
        return owners_view(task, self._outside.clock)

    def explain(self, caller: Caller, request: RequestFacts) -> Explanation:
        """
        Say what a start would be granted by the policy; nothing is minted, counted or recorded.

        Limits and processes are not looked at. Raises Denied, Unprocessable, as a start does; what
        lacks nothing but an approval is an answer.
        """
        explained = self.explain_as(caller_facts(caller), request)
        decision = explained.decision
        if isinstance(decision, Denial) and decision.approval is None:
            raise refusal(decision)
        return explained

    async def change(
        self, caller: Caller, task_id: str, change: Change, key: IdempotencyKey | None
    ) -> TaskView:
        """
        Decide anew, mint another revision, hand over; the old one ends when that is acknowledged.

        Raises what `start` raises, and NotFound. After any of them the task is as it was.
        """
        self._require_accepting()
        task = await self._own(caller, task_id)
        if key is not None and task.is_change(key):
            await task.changed.until(lambda: task.changing is None, LONGEST_START)
            if task.is_change(key):  # a change that failed may be asked for again
                return self._again(task)
        await self._until_decisive()
        revision = await self._changer.decide(self._policy, caller, task, change, key)
        await self._work.outliving(
            self._changer.mint(lambda: self._policy, caller, task, revision),
            expected=TaskmintError,
        )
        self._end_if_withdrawn(task)
        return owners_view(task, self._outside.clock)

    async def show(self, caller: Caller, task_id: str, wait: timedelta) -> TaskView:
        """
        Show a task; with `wait`, first wait so long for it to end, or us. Raises NotFound.

        A request is waited for until it is approved or over.
        """
        if (request := await self._own_request(caller, task_id)) is not None:
            if wait:
                waits = TaskState.AWAITING_APPROVAL
                await request.changed.until(
                    lambda: request.state is not waits or self._hung_up, wait
                )
            return request_view(request, self._outside.clock)
        task = await self._own(caller, task_id)
        if wait:
            await task.changed.until(lambda: task.over or self._hung_up, wait)
        return owners_view(task, self._outside.clock)

    async def heartbeat(self, caller: Caller, task_id: str, revision: int = 1) -> TaskView:
        """
        Note that the task is alive and has the credentials of a revision.

        Raises NotFound, Conflict(task_ended).
        """
        task = await self._own(caller, task_id)
        if not task.lives():
            raise Conflict(Code.TASK_ENDED, f"the task is {task.state}", fix="start a new one")
        self._keeper.hear(task, caller)
        self._keeper.acknowledge(task, revision)
        return owners_view(task, self._outside.clock, delivering=False)

    async def end(self, caller: Caller, task_id: str, cause: EndCause, wait: timedelta) -> TaskView:
        """
        End the caller's task; return when that is proven, or after `wait`. Raises NotFound.

        The end of a request is proven by its row. Raises Unavailable while there is none.
        """
        if (request := await self._own_request(caller, task_id)) is not None:
            await self.approving.cancel(request, cause)
            return request_view(request, self._outside.clock)
        task = await self._own(caller, task_id)
        self._ender.end(task, cause)
        await task.changed.until(lambda: task.over, wait)
        return owners_view(task, self._outside.clock)

    async def follow(self, caller: Caller, task_id: str) -> Following | RequestFollowing:
        """Follow a task's changes; entered, it is the connection a task may be bound to."""
        if (request := await self._own_request(caller, task_id)) is not None:
            return self._followers.follow_request(request)
        return self._followers.follow(await self._own(caller, task_id))

    def unproven(self, peer: Peer, error: TaskmintError) -> None:
        """Record that somebody was refused because they could not prove who they are."""
        self._strangers.refused(peer, error)

    def undelivered(self, view: TaskView) -> None:
        """The reply with the credentials reached nobody, and nobody can ask for it again."""
        task = self._register.get(view.id)
        if task is not None and task.idempotency is None:
            self._ender.end(task, EndCause.CONNECTION_LOST)

    # --- the daemon ------------------------------------------------------------------------

    def ready(self) -> str | None:
        """None when tasks can be started, else the reason why not."""
        return self._outside.ledger.ready() or self._outside.vault.ready()

    def explain_as(self, caller: CallerFacts, request: RequestFacts) -> Explanation:
        """Say to an operator what this caller would be answered now, and why."""
        return self._decider.explain(self._policy, caller, request)

    def standstill(self, longest_attempt: timedelta) -> str | None:
        """
        None while ends are noticed and revocations move, else what stands still.

        For the watchdog: what it names, only a new process can mend. An outage is none of it:
        every attempt that fails has ended, within `longest_attempt`, and the next one is due.
        """
        late = self._keeper.late()
        if late > LATEST_LOOK.total_seconds():
            return f"the timetable is {late:.0f} s late"
        oldest = self._revoker.attempts.oldest()
        if oldest is not None and oldest.seconds > longest_attempt.total_seconds():
            return f"a revocation at {oldest.mount} has not moved for {oldest.seconds:.0f} s"
        return None

    def adopt_policy(self, policy: Policy) -> int:
        """Decide everything again by a new policy; end what it now refuses, return how many."""
        self._policy = policy
        voided = self.approving.adopt_policy(policy)
        return voided + end_narrowed(policy, self._register, self._ender, self._keeper)

    def end_withdrawn(self, stands: Callable[[str], bool]) -> int:
        """
        End every task whose caller was vouched for by an authority that does not stand any more.

        `stands` is asked again for tasks that start or are recovered later. Returns how many ended.
        """
        self._stands = stands
        voided = self.approving.end_withdrawn(stands)
        return voided + sum(self._end_if_withdrawn(task) for task in self._register)

    async def keep_swept(self) -> None:
        """Once everything is recovered, sweep now and then, for ever (tasks/sweeping.py)."""
        await self._recovered.wait()
        await self._sweeper.keep()

    async def recover(self) -> None:
        """
        Take up what the ledger holds of before (tasks/recovery.py).

        A ledger that cannot be read is asked again until it can: what it lists lapses by the
        dead-man interval meanwhile, and nobody is told that a task of before does not exist.
        """
        recalling = self._until_read(self._decider.recall)
        recalled = asyncio.create_task(recalling, name="last hour")  # no task waits for that
        try:
            adopted = await self._until_read(self._recovery.take_up)
            self._register.complete()
            self._recovered.set()
            # What was taken up was decided by the policy and the authorities of before the restart.
            self.adopt_policy(self._policy)
            self.end_withdrawn(self._stands)
            await self._recovery.record(adopted)
            await recalled
        finally:
            recalled.cancel()

    async def _until_read(self, read: Callable[[], Awaitable[_Read]]) -> _Read:
        pause = FIRST_REPLAY_PAUSE_SECONDS
        while True:
            try:
                return await read()
            except Unavailable as error:
                self._outside.log.warning("recovery_failed", code=error.code, reason=error.detail)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_REPLAY_PAUSE_SECONDS)

    def hang_up(self) -> None:
        """
        Let go of everybody who only waits, because the daemon stops; they come again.

        Event streams are closed, and who asked to wait for an end is shown the task as it is.
        """
        self._hung_up = True
        self._followers.close()
        for one in (*self._register, *self._requests):
            one.changed.ring()

    async def stop(self, *, revoke: bool, grace: timedelta) -> int:
        """
        Take no new task; end all, or those whose definition says so; drain for `grace`.

        What is not proven by then stays in the ledger as unfinished and is taken up at the
        next start; the dead-man bounds it if there is none. Left at once, and not counted, is what
        only waits for the server's clocks and, unless all is to be ended, what this stop has not
        ended and one more attempt has not proven. Returns how much was cut short.
        """
        self._accepting = False
        self.hang_up()
        self._ender.hurry(insist=revoke)
        for task in self._register:
            if revoke or task.scope.ends.daemon_stop == "revoke":
                self._ender.end(task, EndCause.DAEMON_STOPPED)
        late = await self._work.drain(grace.total_seconds())
        if late:
            self._outside.log.warning("stopped_with_work_left", tasks=late)
        if left := sum(task.cause is not None and not task.over for task in self._register):
            self._outside.log.info("left_to_the_next_start", tasks=left)
        self._keeper.close()
        self.approving.close()
        for task in self._register:
            task.stop_watching()
        return late

    # --- inside ----------------------------------------------------------------------------

    def _end_if_withdrawn(self, task: Task) -> bool:
        if task.cause is not None or task.over or self._stands(task.authority):
            return False
        self._ender.end(task, EndCause.IDENTITY_WITHDRAWN)
        return True

    def _require_accepting(self) -> None:
        if not self._accepting:
            raise Unavailable(
                Code.SHUTTING_DOWN, "the daemon is stopping", fix="repeat the request"
            )

    async def _until_decisive(self) -> None:
        """Return, with no `await` behind it, when the policy in force can be asked."""
        self._require_ready()
        await self._decider.recalled()
        self._require_accepting()  # again: it may have been waited for
        self._require_ready()

    def _require_ready(self) -> None:
        fix = "see `taskmint status` on the node"
        if reason := self._outside.ledger.ready():
            raise Unavailable(Code.LEDGER_UNAVAILABLE, reason, fix=fix)
        if reason := self._outside.vault.ready():
            raise Unavailable(Code.VAULT_UNAVAILABLE, reason, fix=fix)

    def _again(self, task: Task) -> TaskView:
        if not task.lives():
            raise Conflict(
                Code.TASK_ENDED,
                "the task that this Idempotency-Key belongs to has ended",
                fix="use a new key to start another",
            )
        view = owners_view(task, self._outside.clock)
        if view.credentials is None:
            raise Conflict(
                Code.CREDENTIALS_NOT_RETAINED,
                f"task {task.id} is running, but its credentials were delivered and forgotten",
                fix=f"PATCH /v1/tasks/{task.id} issues new ones",
            )
        return view

    async def _own_request(self, caller: Caller, task_id: str) -> Request | None:
        request = await self.approving.waiting(task_id)
        return request if request is not None and request.owner == _owner(caller) else None

    async def _own(self, caller: Caller, task_id: str) -> Task:
        task = await self._register.find(task_id)
        if task is None and await self._own_request(caller, task_id) is not None:
            raise Conflict(
                Code.TASK_CHANGING,
                "the task has not begun: it waits for an approval, or did in vain",
                fix="see its state; repeat the POST once it is approved",
            )
        if task is None or task.owner != _owner(caller):
            raise NotFound(Code.TASK_NOT_FOUND, "you have no such task", fix="check the id")
        self._keeper.look_now(task)
        return task


def _owner(caller: Caller) -> Owner:
    return Owner(caller.spiffe_id, caller.peer.uid)
