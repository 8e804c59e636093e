"""
Changing a running task: another revision beside the old one, handed over, the old one retired.

The new one is decided and minted as a start is, and a change never moves the deadline away.
Whatever fails on the way leaves the task as it was; what may have been created is taken back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from taskmint.errors import (
    BackendFailed,
    Code,
    Conflict,
    Limit,
    LimitExceeded,
    TaskmintError,
    Unavailable,
)
from taskmint.model.caller import Caller
from taskmint.model.scope import BindKind, DecisionInput, Denial, RequestFacts, Scope
from taskmint.model.state import EndCause, RevisionState, TaskState
from taskmint.model.task_id import revision_name
from taskmint.policy.load import Policy
from taskmint.policy.shadow import Shadowed
from taskmint.ports import BoundUnit, Entry, Minted

from . import entries
from .alarm import alarm
from .deciding import Decider, Granted, NeedsApproval, is_as_approved
from .ending import Ender
from .keeping import Keeper
from .limits import DefinitionLimits
from .minting import Minter
from .narrowing import is_narrowed
from .outside import Outside, Settings
from .queueing import mounts_of
from .register import Register
from .requests import Request, Requests, why_void_now
from .revision import Revision
from .task import Delivery, IdempotencyKey, Task
from .tickets import TicketGate

MOST_REVISIONS: Final = 4  # standing at the same time

Change = Callable[[RequestFacts], RequestFacts]


@dataclass(frozen=True, slots=True)
class Changer:
    """Changes tasks, one change of each at a time."""

    outside: Outside
    settings: Settings
    register: Register
    decider: Decider
    gate: TicketGate
    minter: Minter
    ender: Ender
    keeper: Keeper
    requests: Requests

    async def decide(
        self,
        policy: Policy,
        caller: Caller,
        task: Task,
        change: Change,
        key: IdempotencyKey | None,
    ) -> Revision:
        """
        Decide anew; the revision that comes back is the task's one change under way.

        Raises Conflict, Denied, Unprocessable, LimitExceeded; a refusal is in the ledger before.
        """
        now = self.outside.clock.boottime()
        self.register.admission.attempt(caller.spiffe_id, now)
        self._require_changeable(task)

        def refused(given: DecisionInput, denial: Denial, shadow: Shadowed | None) -> Entry:
            return entries.revision_denied(given, denial, shadow, task, caller.evidence)

        request = replace(change(task.given.request), bind=_bound_kind(task))
        waited = self._approved_by(policy, caller, task, request)
        try:
            granted = await self.decider.ask(
                policy, caller, request, refused, approved=waited is not None
            )
            if waited is not None:
                _require_as_approved(granted, waited)
        except NeedsApproval as needs:
            await self.decider.refuse(caller, needs.granted, needs, refused)
            raise
        given, scope = granted.given, granted.scope
        try:
            self._pace(policy, caller, task, scope)
        except LimitExceeded as error:
            await self.decider.refuse(caller, granted, error, refused)
            raise
        await self.gate.require_open(caller, granted, refused)
        self._require_changeable(task)  # again: the ticket's hook took its time
        asked_by = self.decider.granted(caller)
        lapses = self.outside.clock.boottime() + scope.lifetime.total_seconds()
        number = task.newest + 1
        revision = Revision(
            number,
            given,
            scope,
            min(task.deadline, lapses),
            min(task.expires_at, given.now + scope.lifetime),
            revision_name(self.settings.node, task.id, number),
            shadow=granted.shadow,
            asked_by=asked_by,
        )
        task.newest = number
        task.revisions.append(revision)
        task.changing = revision
        task.change_key = key
        return revision

    async def mint(
        self, policy: Callable[[], Policy], caller: Caller, task: Task, revision: Revision
    ) -> None:
        """
        Mint and hand over. Raises Unavailable, BackendFailed, LimitExceeded, Conflict.

        Runs to its end whatever becomes of the request that asked for it.
        """
        try:
            minted = await self.minter.mint(task, revision)
        except (Unavailable, BackendFailed, LimitExceeded, Conflict) as error:
            self._failed(task, revision, error)
            raise
        finally:
            task.changing = None
        if self.outside.clock.boottime() >= task.deadline:
            self.ender.end(task, EndCause.DEADLINE)
        if task.cause is not None:
            self._retire(task, revision, "task_ended")
            raise Conflict(
                Code.TASK_ENDED,
                f"the task ended while it was being changed ({task.cause})",
                fix="start a new one",
            )
        if is_narrowed(policy(), revision):
            self._retire(task, revision, "policy_narrowed")
            raise Conflict(
                Code.TASK_CHANGING,
                "the policy was reloaded while the task was being changed",
                fix="ask for the change again",
            )
        self._hand_over(caller, task, revision, minted)

    def _hand_over(
        self, caller: Caller, task: Task, revision: Revision, minted: Mapping[str, Minted]
    ) -> None:
        until = self.outside.clock.boottime() + self.settings.delivery_window.total_seconds()
        task.delivery = Delivery(minted, until)
        self.keeper.overlap(task.current)
        revision.move(RevisionState.CURRENT)
        task.current = revision
        self.keeper.keep_changed(task, caller)
        task.changed.ring()
        self.outside.log.info("task_changed", task=task.id, revision=revision.number)
        alarm(self.outside, task, "changed")

    def _failed(self, task: Task, revision: Revision, error: TaskmintError) -> None:
        self.outside.log.warning("change_failed", task=task.id, code=error.code)
        task.change_key = None
        if revision.may_stand():
            self._retire(task, revision, "change_failed")
            return
        revision.move(RevisionState.FAILED)
        if task.lives():
            task.revisions.remove(revision)
        task.changed.ring()
        entry = entries.revision_failed(task, revision, self.outside.clock.utcnow(), error.code)
        self.ender.record_later(entry)

    def _retire(self, task: Task, revision: Revision, why: str) -> None:
        task.change_key = None
        self.keeper.retire(task, revision, why)

    def _require_changeable(self, task: Task) -> None:
        if task.state is TaskState.MINTING or task.changing is not None:
            raise Conflict(
                Code.TASK_CHANGING,
                "the task is being started or changed by another request",
                fix="wait for that request's answer",
            )
        if not task.lives():
            raise Conflict(Code.TASK_ENDED, f"the task is {task.state}", fix="start a new one")
        if len(task.revisions) >= MOST_REVISIONS:
            raise LimitExceeded(
                Limit.REVISIONS,
                f"the limit of {MOST_REVISIONS} revisions at the same time is reached",
                retry_after=self.settings.delivery_window,
                fix="acknowledge the newest revision by a heartbeat that names it",
            )

    def _approved_by(
        self, policy: Policy, caller: Caller, task: Task, request: RequestFacts
    ) -> Request | None:
        """
        Find the approved request that a change may rest on; None when it has to be approved anew.

        1. What runs was given by an approval, and the same is asked for again.
        2. It is asked for by the proof of identity that the approvers were shown.
        3. Everybody who approved it may do so still.
        4. The policy in force still asks for the yes of the same people, and of as many.
        """
        if not task.given.approved or not _is_reissue(request, task.given.request):  # 1
            return None
        waited = self.requests.get(task.id)
        if waited is None or caller.method is not waited.given.caller.method:  # 2
            return None
        if why_void_now(waited, self.outside.approvers) is not None:  # 3
            return None
        definition = policy.definitions.get(request.task)
        rule = definition.approval if definition is not None else None
        return waited if rule is not None and rule.needed == waited.needed else None  # 4

    def _pace(self, policy: Policy, caller: Caller, task: Task, scope: Scope) -> None:
        limits = policy.definitions[scope.definition].limits
        own = DefinitionLimits(limits.concurrent_per_identity, limits.starts_per_minute)
        self.register.admission.require_provable(mounts_of(scope))
        now = self.outside.clock.boottime()
        self.register.admission.pace(caller.spiffe_id, task.scope.definition, own, now)


def _require_as_approved(granted: Granted, waited: Request) -> None:
    """Raise NeedsApproval unless this is what was approved, whichever policy gives it."""
    scope = replace(granted.scope, policy_digest=waited.scope.policy_digest)
    if not is_as_approved(scope, waited.scope):
        raise NeedsApproval(granted, waited.needed)


def _is_reissue(new: RequestFacts, old: RequestFacts) -> bool:
    """Whether the same is asked for again: what was approved then, and no longer than then."""
    return replace(new, bind=old.bind) == old


def _bound_kind(task: Task) -> BindKind | None:
    """What a task is bound to stays what it was bound to at its start."""
    if task.watch is None:
        return task.given.request.bind
    bound = task.watch.process
    return BindKind.UNIT if isinstance(bound, BoundUnit) else bound.kind
