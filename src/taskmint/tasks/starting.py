"""How a task comes to be: decided, bound, admitted, minted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from taskmint.errors import (
    BackendFailed,
    Code,
    Conflict,
    Denied,
    Limit,
    LimitExceeded,
    TaskmintError,
    Unavailable,
    Unprocessable,
)
from taskmint.model.caller import Caller
from taskmint.model.scope import RequestFacts, Scope
from taskmint.model.state import EndCause, RevisionState, TaskState
from taskmint.model.task_id import TaskId, revision_name
from taskmint.policy.load import Policy
from taskmint.ports import ProcessWatch

from . import entries
from .alarm import alarm
from .deciding import Decider, Granted, as_new_task, fresh_id, is_as_approved
from .ending import Ender
from .entries import FIRST
from .keeping import Keeper
from .limits import DefinitionLimits
from .minting import Minter
from .outside import Outside, Settings
from .queueing import mounts_of
from .register import Register
from .requests import Request
from .revision import Revision
from .task import Delivery, IdempotencyKey, Owner, Task
from .tickets import TicketGate


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts tasks; what a failed start may have created is handed to the ender."""

    outside: Outside
    settings: Settings
    register: Register
    decider: Decider
    gate: TicketGate
    minter: Minter
    ender: Ender
    keeper: Keeper

    async def decide(
        self, policy: Policy, caller: Caller, request: RequestFacts, key: IdempotencyKey | None
    ) -> Task:
        """
        Decide, bind and admit; the task that comes back is counted, known, and not yet minted.

        Raises Denied, Unprocessable, LimitExceeded; each is in the ledger before it is raised, but
        for asking too often: that must not fill the disk. And NeedsApproval, before anything.
        """
        self._attempt(caller)
        refused = as_new_task(caller.evidence)
        granted = await self.decider.ask(policy, caller, request, refused)
        task = await self._known(policy, caller, granted, key, fresh_id())
        with self._unless_refused(task):
            await self.gate.require_open(caller, granted, refused)
        task.current.asked_by = self.decider.granted(caller)
        return task

    async def collect(self, policy: Policy, caller: Caller, waiting: Request) -> Task:
        """
        Make an approved request a task; decided again, now, it must give what was approved.

        Raises as `decide` does.
        """
        self._attempt(caller)
        refused = as_new_task(caller.evidence)
        request = waiting.given.request
        granted = await self.decider.ask(policy, caller, request, refused, approved=True)
        if not is_as_approved(granted.scope, waiting.scope):
            changed = Denied(
                Code.NOT_PERMITTED,
                "what was approved is not what the policy would give now",
                fix="ask again, with a new Idempotency-Key",
            )
            await self.decider.refuse(caller, granted, changed, refused)
            raise changed
        task = await self._known(policy, caller, granted, waiting.idempotency, waiting.id)
        with self._unless_refused(task):
            await self.gate.require_open(caller, granted, refused)
            if not waiting.waits:  # cancelled, expired or voided while the hook was asked
                raise waiting.is_over()
        task.current.asked_by = self.decider.granted(caller)
        return task

    def _attempt(self, caller: Caller) -> None:
        self.register.admission.attempt(caller.spiffe_id, self.outside.clock.boottime())

    async def _known(
        self,
        policy: Policy,
        caller: Caller,
        granted: Granted,
        key: IdempotencyKey | None,
        task_id: TaskId,
    ) -> Task:
        """
        Bind what was granted, count it, and let it be known before anything is awaited.

        So whoever ends tasks sees this one too, from the decision on: it sets its `cause`, and a
        task that has one is not minted.
        """
        scope = granted.scope
        try:
            self._admit(policy, caller, scope)
            try:
                watch = self._bind(caller, granted.given.request, scope)
            except (Unprocessable, LimitExceeded):
                self.register.admission.leave(caller.spiffe_id, scope.definition)
                raise
        except (Unprocessable, LimitExceeded) as error:
            await self.decider.refuse(caller, granted, error, as_new_task(caller.evidence))
            raise
        task = self._task(caller, granted, key, task_id)
        self.register.add(task)
        if watch is not None:
            task.watch = watch
            watch.on_exit(partial(self.ender.bound_ended, task))
        return task

    def _task(
        self, caller: Caller, granted: Granted, key: IdempotencyKey | None, task_id: TaskId
    ) -> Task:
        now = self.outside.clock.boottime()
        given, scope = granted.given, granted.scope
        first = Revision(
            FIRST,
            given,
            scope,
            now + scope.lifetime.total_seconds(),
            given.now + scope.lifetime,
            revision_name(self.settings.node, task_id, FIRST),
            shadow=granted.shadow,
        )
        return Task(
            id=task_id,
            owner=Owner(caller.spiffe_id, caller.peer.uid),
            current=first,
            started=now,
            evidence=caller.evidence,
            proven_until=caller.proven_until,
            authority=caller.authority,
            idempotency=key,
        )

    @contextmanager
    def _unless_refused(self, task: Task) -> Iterator[None]:
        """Forget the task when what is asked before it may be minted says no."""
        try:
            yield
        except BaseException:
            self._forget(task)
            raise

    def _forget(self, task: Task) -> None:
        """Nothing was created for it; whoever waits for its end is told."""
        task.cause = task.cause or EndCause.START_FAILED
        task.current.move(RevisionState.FAILED)
        task.move(TaskState.FAILED)
        self.ender.settle(task)
        self.register.drop(task)

    async def mint(self, task: Task) -> None:
        """
        Mint, and make the task active.

        Raises Unavailable, BackendFailed, LimitExceeded, Conflict(task_ended).

        Runs to its end whatever becomes of the request that asked for it.
        """
        try:
            minted = await self.minter.mint(task, task.current)
        except (Unavailable, BackendFailed, LimitExceeded, Conflict) as error:
            self._failed(task, error)
            raise
        if self.outside.clock.boottime() >= task.deadline:
            self.ender.end(task, EndCause.DEADLINE)
        if task.cause is not None:
            self.ender.begin_taking_back(task)
            raise Conflict(
                Code.TASK_ENDED,
                f"the task ended while it was being started ({task.cause})",
                fix="start it again",
            )
        now = self.outside.clock.boottime()
        task.delivery = Delivery(minted, now + self.settings.delivery_window.total_seconds())
        task.current.move(RevisionState.CURRENT)
        task.move(TaskState.ACTIVE)
        self.keeper.keep(task)
        self.outside.observer.started(task.scope, now - task.started)
        self.outside.log.info("task_started", task=task.id, definition=task.scope.definition)
        alarm(self.outside, task, "started")

    def _admit(self, policy: Policy, caller: Caller, scope: Scope) -> None:
        limits = policy.definitions[scope.definition].limits
        own = DefinitionLimits(limits.concurrent_per_identity, limits.starts_per_minute)
        self.register.admission.require_provable(mounts_of(scope))
        now = self.outside.clock.boottime()
        self.register.admission.admit(caller.spiffe_id, scope.definition, own, now)

    def _bind(self, caller: Caller, request: RequestFacts, scope: Scope) -> ProcessWatch | None:
        if not scope.ends.bind:
            return None
        try:
            return self.outside.processes.bind(caller.peer, request.bind or scope.ends.bind[0])
        except OSError as error:  # out of descriptors: each bound process costs one
            raise LimitExceeded(
                Limit.DESCRIPTORS,
                f"the process cannot be watched: {error.strerror}",
                retry_after=timedelta(seconds=1),
                fix="end a task first, or raise LimitNOFILE of the daemon",
            ) from error

    def _failed(self, task: Task, error: TaskmintError) -> None:
        self.outside.log.warning("start_failed", task=task.id, code=error.code)
        self.register.release_key(task)
        if task.current.may_stand():
            task.cause = task.cause or EndCause.START_FAILED
            task.ended = task.ended or self.outside.clock.boottime()
            self.ender.begin_taking_back(task)
            return
        self._forget(task)
        # Without an intent in the ledger there is nothing to close there either; closing it all
        # the same does no harm: a failed task without an intent is skipped at the next start.
        entry = entries.failed(task, self.outside.clock.utcnow(), error.code)
        self.ender.record_later(entry)
