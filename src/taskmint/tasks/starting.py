"""How a task comes to be: decided, bound, admitted, minted."""

import secrets
import time
from datetime import timedelta

from taskmint.errors import (
    BackendFailed,
    Code,
    Conflict,
    Denied,
    LimitExceeded,
    TaskmintError,
    Unavailable,
    Unprocessable,
)
from taskmint.model.caller import Caller
from taskmint.model.scope import CallerFacts, DecisionInput, Denial, RequestFacts, Scope
from taskmint.model.state import EndCause, TaskState
from taskmint.model.task_id import TaskId, new_task_id
from taskmint.policy.decide import decide
from taskmint.policy.load import Policy
from taskmint.ports import ProcessWatch

from . import entries
from .ending import Ender
from .history import History
from .keeping import Keeper
from .limits import DefinitionLimits
from .minting import Minter
from .outside import Outside, Settings
from .register import Register
from .task import Delivery, IdempotencyKey, Owner, Task


class Starter:
    """Starts tasks; what a failed start may have created is handed to the ender."""

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
        self._history = History()
        self._minter = Minter(outside, settings)

    async def decide(
        self, policy: Policy, caller: Caller, request: RequestFacts, key: IdempotencyKey | None
    ) -> Task:
        """
        Decide, bind and admit; the task that comes back is counted, known, and not yet minted.

        Raises Denied, Unprocessable, LimitExceeded; each is in the ledger before it is raised, but
        for asking too often: that must not fill the disk.
        """
        now = self._outside.clock.boottime()
        self._register.admission.attempt(caller.spiffe_id, now)
        given = DecisionInput(
            CallerFacts(caller.spiffe_id, caller.peer.uid, caller.method),
            request,
            self._outside.clock.utcnow(),
            self._settings.host,
            self._history.facts(caller.spiffe_id, now),
        )
        decision = decide(policy, given)
        if isinstance(decision, Denial):
            await self._refuse(caller, given, decision, now)
            raise _refusal(decision)
        try:
            self._admit(policy, caller, decision, now)
            try:
                watch = self._bind(caller, request, decision)
            except BaseException:
                self._register.admission.leave(caller.spiffe_id, decision.definition)
                raise
        except (Unprocessable, LimitExceeded) as error:
            denial = Denial(error.code, error.detail, decision.policy_digest, decision.trace)
            await self._refuse(caller, given, denial, now)
            raise
        self._history.record(caller.spiffe_id, _process(caller), now, granted=True)
        task = Task(
            id=_new_id(),
            owner=Owner(caller.spiffe_id, caller.peer.uid),
            given=given,
            scope=decision,
            started=now,
            deadline=now + decision.lifetime.total_seconds(),
            expires_at=given.now + decision.lifetime,
            watch=watch,
            evidence=caller.evidence,
            proven_until=caller.proven_until,
            authority=caller.authority,
            idempotency=key,
        )
        self._register.add(task)
        if watch is not None:
            watch.on_exit(lambda: self._ender.end(task, EndCause.PROCESS_EXITED))
        return task

    async def mint(self, task: Task) -> None:
        """
        Mint, and make the task active. Raises Unavailable, BackendFailed, Conflict(task_ended).

        Runs to its end whatever becomes of the request that asked for it.
        """
        try:
            minted = await self._minter.mint(task)
        except (Unavailable, BackendFailed) as error:
            self._failed(task, error)
            raise
        if self._outside.clock.boottime() >= task.deadline:
            self._ender.end(task, EndCause.DEADLINE)
        if task.cause is not None:
            self._ender.begin_taking_back(task)
            raise Conflict(
                Code.TASK_ENDED,
                f"the task ended while it was being started ({task.cause})",
                fix="start it again",
            )
        task.move(TaskState.ACTIVE)
        now = self._outside.clock.boottime()
        task.delivery = Delivery(minted, now + self._settings.delivery_window.total_seconds())
        task.settled.put_up()
        self._keeper.keep(task)
        self._outside.observer.started(task.scope, now - task.started)
        self._outside.log.info("task_started", task=task.id, definition=task.scope.definition)

    def _admit(self, policy: Policy, caller: Caller, scope: Scope, now: float) -> None:
        limits = policy.definitions[scope.definition].limits
        own = DefinitionLimits(limits.concurrent_per_identity, limits.starts_per_minute)
        self._register.admission.admit(caller.spiffe_id, scope.definition, own, now)

    def _bind(self, caller: Caller, request: RequestFacts, scope: Scope) -> ProcessWatch | None:
        if not scope.ends.bind:
            return None
        kind = request.bind or scope.ends.bind[0]
        try:
            return self._outside.processes.bind(caller.peer, kind)
        except OSError as error:  # out of descriptors: each bound process costs one
            raise LimitExceeded(
                f"the process cannot be watched: {error.strerror}",
                retry_after=timedelta(seconds=1),
                fix="end a task first, or raise LimitNOFILE of the daemon",
            ) from error

    async def _refuse(
        self, caller: Caller, given: DecisionInput, denial: Denial, now: float
    ) -> None:
        self._history.record(caller.spiffe_id, _process(caller), now, granted=False)
        self._outside.observer.refused(denial.code)
        entry = entries.denied(given, denial, _new_id(), caller.evidence)
        try:
            await self._outside.ledger.append(entry)
        except Unavailable as error:
            # A refusal needs no record to be safe; the ledger's own alarm is raised elsewhere.
            self._outside.log.warning("denial_not_recorded", code=error.code, denied=denial.code)

    def _failed(self, task: Task, error: Unavailable | BackendFailed) -> None:
        self._outside.observer.refused(error.code)
        self._outside.log.warning("start_failed", task=task.id, code=error.code)
        self._register.release_key(task)
        if task.token is not None or task.unheard_since is not None:
            task.cause = task.cause or EndCause.START_FAILED
            task.ended = task.ended or self._outside.clock.boottime()
            self._ender.begin_taking_back(task)
            return
        task.move(TaskState.FAILED)
        self._ender.settle(task)
        self._register.drop(task)
        # Without an intent in the ledger there is nothing to close there either; closing it all
        # the same does no harm: a failed task without an intent is skipped at the next start.
        entry = entries.failed(task, self._outside.clock.utcnow(), error.code)
        self._ender.record_later(entry)


def _new_id() -> TaskId:
    return new_task_id(time.time_ns() // 1_000_000, secrets.token_bytes(10))


def _process(caller: Caller) -> tuple[int, int | None]:
    return caller.peer.pid, caller.peer.start_time


def _refusal(denial: Denial) -> TaskmintError:
    code = Code(denial.code)
    if code is Code.NOT_PERMITTED:
        return Denied(code, denial.detail, fix="ask the owner of the task's policy")
    return Unprocessable(code, denial.detail, fix="see the task's definition for what it accepts")
