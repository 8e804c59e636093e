"""
Requests that wait for an approval: the plan that approvers are shown, and the book of them all.

A request becomes a task when it is collected; until then nothing exists in Vault. It is kept
beside its task, because an approval can be withdrawn as long as the task lives.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from taskmint.canonical import digest
from taskmint.errors import Code, Conflict, Limit, LimitExceeded
from taskmint.model.caller import Caller
from taskmint.model.scope import Approval, DecisionInput, Json, Scope
from taskmint.model.spiffe import SpiffeId
from taskmint.model.state import TERMINAL, EndCause, TaskState, advance
from taskmint.model.task_id import TaskId
from taskmint.policy.approval import Shown, Tally, why_void
from taskmint.ports import Approvers, Clock

from .bell import Bell
from .facts import scope_facts
from .limits import TaskLimits
from .recording import Recording
from .register import MOST_REMEMBERED, REMEMBERED
from .task import EndedBy, IdempotencyKey, Owner, Task, idempotency_mismatch

_RETRY: Final = timedelta(seconds=60)
_SWEEP_LEAST: Final = 64  # how many are kept before those whose task is over are looked for


@dataclass(frozen=True, slots=True)
class Evidence:
    """What proved the caller when it asked, as a task keeps it."""

    evidence: str
    proven_until: datetime
    authority: str

    @classmethod
    def of(cls, caller: Caller) -> "Evidence":
        """Take it from a proven caller."""
        return cls(caller.evidence, caller.proven_until, caller.authority)


@dataclass(frozen=True, slots=True)
class Until:
    """One moment: in boot-clock seconds, by which it is kept, and in wall-clock time."""

    boot: float
    wall: datetime

    @classmethod
    def after(cls, span: timedelta, clock: Clock) -> "Until":
        """So long from now."""
        return cls(clock.boottime() + span.total_seconds(), clock.utcnow() + span)


@dataclass(slots=True, eq=False)
class Request:
    """
    One request; `scope` is what it gets when approved, `nonce` keeps its digest from being guessed.

    `until` is when it must have been approved and, once it is, collected. `lock` is held by
    whoever weighs a statement or collects. `end_row` says of one that is over whether that is
    durable: until then a crash would let it wait again.
    """

    id: TaskId
    owner: Owner
    given: DecisionInput
    scope: Scope
    needed: Approval
    nonce: str
    proof: Evidence
    asked_at: datetime
    until: Until
    idempotency: IdempotencyKey | None = None
    state: TaskState = TaskState.REQUESTED
    tally: Tally = field(default_factory=Tally)
    task: Task | None = None
    cause: EndCause | None = None
    ended_by: EndedBy | None = None
    why: str = ""
    end_row: Recording | None = None
    changed: Bell = field(default_factory=Bell)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def plan(self) -> dict[str, Json]:
        """What approvers are shown."""
        return plan_of(self.id, self.given, self.scope, self.nonce)

    @property
    def shown(self) -> Shown:
        """What statements must be about."""
        return Shown(
            task=self.id,
            scope_digest=digest(self.plan),
            policy_digest=self.scope.policy_digest,
            caller=self.owner.spiffe_id,
            uid=self.owner.uid,
            needed=self.needed,
        )

    @property
    def waits(self) -> bool:
        """Whether it is durable, and neither over nor collected."""
        return self.is_open and self.state is not TaskState.REQUESTED

    @property
    def is_open(self) -> bool:
        """Whether it waits, or will once it is durable: what can be ended."""
        return self.task is None and self.state not in TERMINAL

    def is_over(self) -> Conflict:
        """Build the refusal of one that can be collected no more."""
        return Conflict(
            Code.TASK_ENDED,
            f"the request is {self.state}: {self.why}",
            fix="ask again, with a new Idempotency-Key",
        )

    def move(self, following: TaskState) -> None:
        """Go to another state, as the table in model/state.py allows."""
        self.state = advance(self.state, following)
        self.changed.ring()


def why_void_now(request: Request, approvers: Approvers) -> str | None:
    """Why its approvals count no more, by who the approvers are now; None when they do."""
    given_by = [approvers.current(one) for one in request.tally.approvals]
    return why_void(request.shown, given_by)


def plan_of(task: TaskId, given: DecisionInput, scope: Scope, nonce: str) -> dict[str, Json]:
    """Write who asks for what, why and for how long: the JSON whose digest is approved."""
    facts = scope_facts(scope)
    return {
        "task": task,
        "definition": scope.definition,
        "caller": {
            "spiffe_id": str(given.caller.spiffe_id),
            "uid": given.caller.uid,
            "method": given.caller.method.value,
        },
        "parameters": dict(given.request.parameters),
        "purpose": given.request.purpose,
        "ticket": given.request.ticket,
        "context": dict(given.request.context),
        "scope": {key: facts[key] for key in facts if key not in {"policy_digest", "trace"}},
        "nonce": nonce,
    }


class Requests:
    """Finds requests by id and by (owner, idempotency key); bounds how many wait (P10)."""

    def __init__(self, limits: TaskLimits) -> None:
        self._limits = limits
        self._requests: dict[TaskId, Request] = {}
        self._by_key: dict[tuple[Owner, str], Request] = {}
        self._closed: deque[tuple[float, TaskId]] = deque()
        self._waiting = 0
        self._sweep_at = _SWEEP_LEAST
        self._waiting_of: Counter[SpiffeId] = Counter()

    def __iter__(self) -> Iterator[Request]:
        return iter(tuple(self._requests.values()))

    def admit(self, identity: SpiffeId) -> None:
        """Raise LimitExceeded when no more may wait, of this identity or in all."""
        limits = self._limits
        for limit, count, most, what in (
            (Limit.PENDING, self._waiting, limits.pending, "requests that wait for an approval"),
            (
                Limit.PENDING_PER_IDENTITY,
                self._waiting_of[identity],
                limits.pending_per_identity,
                "requests of this identity that wait for an approval",
            ),
        ):
            if count >= most:
                raise LimitExceeded(
                    limit,
                    f"the limit of {most} {what} is reached",
                    retry_after=_RETRY,
                    fix="wait for those that are there, or cancel them",
                )

    def add(self, request: Request) -> None:
        """Know a request that waits, or whose task lives."""
        self._requests[request.id] = request
        if request.idempotency is not None:
            self._by_key[request.owner, request.idempotency.key] = request
        if request.task is None:
            self._waiting += 1
            self._waiting_of[request.owner.spiffe_id] += 1

    def get(self, task_id: str) -> Request | None:
        """Find a request, waiting, collected or lately closed."""
        return self._requests.get(TaskId(task_id))

    def by_key(self, owner: Owner, key: IdempotencyKey) -> Request | None:
        """Find what was asked for under this key. Raises Conflict(idempotency_mismatch)."""
        request = self._by_key.get((owner, key.key))
        if request is None or request.idempotency is None:
            return None
        if request.idempotency.body != key.body:
            raise idempotency_mismatch()
        return request

    def collected(self, request: Request, task: Task) -> None:
        """It is a task now: its place is free, its key is the task's."""
        request.task = task
        self._leave(request)
        self._forget_key(request)
        self.tidy(task.started)

    def closed(self, request: Request, now: float) -> None:
        """It is over: its place is free; it can still be looked at for ten minutes."""
        if request.task is None:
            self._leave(request)
        self._closed.append((now + REMEMBERED.total_seconds(), request.id))
        self.tidy(now)

    def drop(self, request: Request) -> None:
        """It was never recorded: nobody was told of it."""
        self._leave(request)
        self._forget(request)

    def tidy(self, now: float) -> None:
        """Forget what was closed long ago, and whose task is over."""
        while self._closed and (self._closed[0][0] <= now or len(self._closed) > MOST_REMEMBERED):
            old = self._requests.get(self._closed.popleft()[1])
            if old is not None:
                self._forget(old)
        if len(self._requests) < self._sweep_at:
            return
        for request in self:
            if request.task is not None and request.task.over:
                self._forget(request)
        self._sweep_at = 2 * len(self._requests) + _SWEEP_LEAST

    def _leave(self, request: Request) -> None:
        self._waiting -= 1
        self._waiting_of[request.owner.spiffe_id] -= 1
        if not self._waiting_of[request.owner.spiffe_id]:
            del self._waiting_of[request.owner.spiffe_id]

    def _forget(self, request: Request) -> None:
        self._requests.pop(request.id, None)
        self._forget_key(request)

    def _forget_key(self, request: Request) -> None:
        if request.idempotency is None:
            return
        pair = request.owner, request.idempotency.key
        if self._by_key.get(pair) is request:
            del self._by_key[pair]
