"""How a task comes to be: decided, bound, admitted, minted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

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
        async with self._place(policy, caller, granted):
            await self.gate.require_open(caller, granted, refused)
            return await self._admitted(caller, granted, key)

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
        async with self._place(policy, caller, granted):
            await self.gate.require_open(caller, granted, refused)
            if not waiting.waits:  # cancelled, expired or voided while the hook was asked
                raise Conflict(
                    Code.TASK_ENDED, f"the request is over: {waiting.why}", fix="ask again, anew"
                )
            return await self._admitted(caller, granted, waiting.idempotency, task_id=waiting.id)

    def _attempt(self, caller: Caller) -> None:
        self.register.admission.attempt(caller.spiffe_id, self.outside.clock.boottime())

    @asynccontextmanager
    async def _place(self, policy: Policy, caller: Caller, granted: Granted) -> AsyncIterator[None]:
        """Count the task before a hook is asked for it; give its place back if it fails."""
        identity, scope = caller.spiffe_id, granted.scope
        try:
            self._admit(policy, caller, scope)
        except LimitExceeded as error:
            await self.decider.refuse(caller, granted, error, as_new_task(caller.evidence))
            raise
        try:
            yield
        except BaseException:
            self.register.admission.leave(identity, scope.definition)
            raise

    async def _admitted(
        self,
        caller: Caller,
        granted: Granted,
        key: IdempotencyKey | None,
        *,
        task_id: TaskId | None = None,
    ) -> Task:
        now = self.outside.clock.boottime()
        given, scope = granted.given, granted.scope
        try:
            watch = self._bind(caller, given.request, scope)
        except (Unprocessable, LimitExceeded) as error:
            await self.decider.refuse(caller, granted, error, as_new_task(caller.evidence))
            raise
        self.decider.granted(caller)
        deadline = now + scope.lifetime.total_seconds()
        task_id = task_id or fresh_id()
        name = revision_name(self.settings.node, task_id, FIRST)
        task = Task(
            id=task_id,
            owner=Owner(caller.spiffe_id, caller.peer.uid),
            current=Revision(
                FIRST,
                given,
                scope,
                deadline,
                given.now + scope.lifetime,
                name,
                shadow=granted.shadow,
            ),
            started=now,
            watch=watch,
            evidence=caller.evidence,
            proven_until=caller.proven_until,
            authority=caller.authority,
            idempotency=key,
        )
        self.register.add(task)
        if watch is not None:
            watch.on_exit(lambda: self.ender.bound_ended(task))
        return task

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
        task.current.move(RevisionState.FAILED)
        task.move(TaskState.FAILED)
        self.ender.settle(task)
        self.register.drop(task)
        # Without an intent in the ledger there is nothing to close there either; closing it all
        # the same does no harm: a failed task without an intent is skipped at the next start.
        entry = entries.failed(task, self.outside.clock.utcnow(), error.code)
        self.ender.record_later(entry)
