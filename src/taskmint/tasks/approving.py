"""
The life of a request for approval: asked, announced, weighed, collected; or over before that.

Nothing is minted here, and nothing here proves who speaks (ports.Approvers) or decides what counts
(policy/approval.py). What grants is durable before it has an effect; what takes away has its effect
first.
"""

import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Final

from taskmint.errors import Code, Denied, NotFound, Unavailable
from taskmint.model.approval import Outcome, Statement, Vouched
from taskmint.model.caller import Caller
from taskmint.model.state import EndCause, TaskState
from taskmint.policy.approval import Refused, Standing, Tally, weigh
from taskmint.policy.load import Policy
from taskmint.ports import Entry, Notice

from . import request_entries
from .deciding import NeedsApproval, fresh_id, still_granted
from .ending import Ender
from .habits import Habits, Unusual
from .outside import Outside, Settings
from .register import Register
from .requests import Evidence, Request, Requests, Until, why_void_now
from .statement_pace import StatementPace
from .task import EndedBy, IdempotencyKey, Owner, Task
from .timetable import Timetable

_NONCE_BYTES: Final = 16


class Approving:
    """Keeps the requests that wait; `policy` returns the one in force."""

    def __init__(
        self,
        outside: Outside,
        settings: Settings,
        book: Requests,
        register: Register,
        ender: Ender,
        policy: Callable[[], Policy],
    ) -> None:
        self._outside = outside
        self._boot_id = settings.boot_id
        self._book = book
        self._register = register
        self._ender = ender
        self._policy = policy
        self._stands: Callable[[str], bool] = lambda _authority: True
        self._timetable: Timetable[Request] = Timetable(outside.clock, self._due)
        self._pace = StatementPace(outside.clock)
        self.habits = Habits()

    # --- asking ----------------------------------------------------------------------------

    def admit(self, caller: Caller, needs: NeedsApproval, key: IdempotencyKey) -> Request:
        """
        Know a request, in the very moment of its decision: whoever ends requests sees it from then.

        Raises LimitExceeded.
        """
        self._book.admit(caller.spiffe_id)
        request = Request(
            id=fresh_id(),
            owner=Owner(caller.spiffe_id, caller.peer.uid),
            given=needs.granted.given,
            scope=needs.granted.scope,
            needed=needs.approval,
            nonce=secrets.token_hex(_NONCE_BYTES),
            proof=Evidence.of(caller),
            asked_at=needs.granted.given.now,
            until=Until.after(needs.approval.within, self._outside.clock),
            idempotency=key,
        )
        self._book.add(request)
        self._end_if_withdrawn(request)  # since the caller was proven
        return request

    async def record(self, request: Request) -> None:
        """
        Let a request wait, once it is durable, unless it was ended by then.

        It is in the ledger before anybody is told of it. Raises Unavailable(ledger_unavailable).
        """
        try:
            await self._outside.ledger.append(request_entries.awaiting(request, self._boot_id))
        except BaseException:
            if request.is_open:
                request.move(TaskState.DENIED)
                self._book.drop(request)
            raise
        if not request.is_open:
            return
        request.move(TaskState.AWAITING_APPROVAL)
        self.keep(request)
        self._announce(request, "approval_requested")
        self._outside.log.info(
            "approval_requested", task=request.id, definition=request.scope.definition
        )

    def keep(self, request: Request) -> None:
        """Watch over a request's time."""
        self._timetable.at(request.until.boot, request)

    # --- statements ------------------------------------------------------------------------

    async def receive(self, uid: int, text: str) -> Request:
        """
        Verify a signed statement, brought by this local user, and weigh it.

        Raises Denied(approval_invalid, approval_refused), NotFound, LimitExceeded, Unavailable;
        every refusal is in the ledger, but for those that are brought too fast.
        """
        return await self._weigh(uid, lambda: self._outside.approvers.verify(text))

    async def receive_local(self, uid: int, statement: Statement) -> Request:
        """Weigh what a local user says, where that is switched on. Raises as `receive` does."""
        return await self._weigh(uid, lambda: self._outside.approvers.vouch_local(uid, statement))

    async def _weigh(self, uid: int, verify: Callable[[], Vouched]) -> Request:
        """
        Verify and weigh. Everything that is recorded is paced, but for what takes away and counts:
        no flood of other statements may hold that up.
        """
        try:
            vouched = verify()
        except Denied as error:
            self._pace.count(uid)
            await self._record(request_entries.statement_refused(None, error.detail, self._now()))
            raise
        request = self._book.get(vouched.statement.task)
        if request is None or request.state is TaskState.REQUESTED:
            self._pace.count(uid)
            reason = "no such request waits here, and no task of it lives"
            await self._record(request_entries.statement_refused(vouched, reason, self._now()))
            raise NotFound(Code.TASK_NOT_FOUND, reason, fix="see `taskmint approvals list`")
        async with request.lock:
            result = self._result(request, vouched)
            if isinstance(result, Refused):
                self._pace.count(uid)
                await self._durable_if_over(request)  # before anybody is told that it is
                reason, now = result.reason, self._now()
                await self._record(
                    request_entries.statement_refused(vouched, reason, now, request.id)
                )
                raise Denied(
                    Code.APPROVAL_REFUSED,
                    reason,
                    fix=f"see `taskmint approvals show {request.id}`",
                )
            if vouched.statement.outcome is Outcome.APPROVE:
                self._pace.count(uid)
                await self._approve(request, vouched, result)
            else:
                await self._take_away(request, vouched, result)
        return request

    def _result(self, request: Request, vouched: Vouched) -> Tally | Refused:
        """Weigh a statement about a request that is still the one that was shown."""
        self.look_at(request)
        if request.task is not None and request.task.cause is not None:
            return Refused("the task has ended")
        if request.task is None and not request.waits:
            return Refused(f"the request is over: {request.why or request.state}")
        if request.task is None and not still_granted(self._policy(), request.given, request.scope):
            self.end(request, TaskState.DENIED, "the policy has changed")
            return Refused("the request is over: the policy has changed")
        return weigh(request.shown, request.tally, vouched, self._outside.clock.utcnow())

    async def _approve(self, request: Request, vouched: Vouched, tally: Tally) -> None:
        """Count an approval once it is durable; a request that ended meanwhile stays ended."""
        state, until = request.state, request.until
        if tally.standing is Standing.APPROVED:
            state = TaskState.APPROVED
            left = min(request.needed.within, tally.good_until - self._now())
            until = Until.after(left, self._outside.clock)
        entry = request_entries.statement(vouched, state, until, self._now(), self._boot_id)
        await self._outside.ledger.append(entry)
        if not request.waits:  # cancelled, expired or voided while the disk was asked
            return
        request.tally, request.until = tally, until
        if self._is_void(request):  # a reload took an approver away meanwhile
            return
        if state is TaskState.APPROVED:
            request.move(TaskState.APPROVED)
            self._announce(request, "approval_given")
            self._outside.log.info("approved", task=request.id, by=_principals(tally))
        request.changed.ring()
        self.keep(request)

    async def _take_away(self, request: Request, vouched: Vouched, tally: Tally) -> None:
        """
        Let a denial or a withdrawal have its effect, and then record it, whatever it takes.

        Raises Unavailable while either is not durable: a crash before that would undo it.
        """
        request.tally = tally
        who, cause = vouched.approver.principal, EndCause.APPROVAL_WITHDRAWN
        if tally.standing is Standing.DENIED:
            self._outside.log.info("approval_denied", task=request.id, by=who)
            self.end(request, TaskState.DENIED, "an approver denied it")
        elif tally.standing is Standing.WITHDRAWN:
            self._outside.log.warning("approval_withdrawn", task=request.id, by=who)
            if request.task is not None:
                self._ender.end(request.task, cause)
            self.end(request, TaskState.FAILED, "an approval was withdrawn", cause)
        request.changed.ring()
        entry = request_entries.statement(vouched, None, request.until, self._now(), self._boot_id)
        try:
            await self._outside.ledger.append(entry)
        except Unavailable:
            self._ender.record_later(entry)
            raise
        await self._durable_if_over(request)

    # --- the end of waiting ----------------------------------------------------------------

    def end(
        self, request: Request, state: TaskState, why: str, cause: EndCause | None = None
    ) -> None:
        """End a request that was not collected; a later end changes nothing."""
        if not request.is_open:
            return
        request.cause, request.why = cause, why
        request.move(state)
        self._book.closed(request, self._outside.clock.boottime())
        entry = request_entries.request_ended(request, self._now())
        request.end_row = self._ender.record_later(entry)

    async def cancel(self, request: Request, cause: EndCause, by: EndedBy | None = None) -> None:
        """
        End a request because its caller, or an operator, will not have it; return once that is
        durable.

        Raises Unavailable while it is not, also when asked again: the request is over all the same.
        """
        self._cancel(request, cause, by)
        await self._durable_if_over(request)

    async def cancel_all(
        self, select: Callable[[Request], bool], cause: EndCause, by: EndedBy | None = None
    ) -> None:
        """
        End every selected request that waits, or is about to; return once all is durable.

        Raises Unavailable as `cancel` does; what was over before and is not durable counts as well.
        """
        chosen = [one for one in self._book if select(one)]
        for request in chosen:
            self._cancel(request, cause, by)
        for request in chosen:
            await self._durable_if_over(request)

    def _cancel(self, request: Request, cause: EndCause, by: EndedBy | None) -> None:
        if request.is_open:
            request.ended_by = by
            self.end(request, TaskState.FAILED, f"cancelled: {cause}", cause)

    async def _durable_if_over(self, request: Request) -> None:
        """Raise Unavailable while the ledger does not hold the end of a request that is over."""
        if request.end_row is not None and not await request.end_row.is_durable():
            raise Unavailable(
                Code.LEDGER_UNAVAILABLE,
                f"request {request.id} is over, but that is not in the ledger yet: a crash would "
                "let it wait again",
                fix="repeat this once the ledger can be written",
            )

    async def waiting(self, task_id: str) -> Request | None:
        """Find a request that was not collected, also one that is over; None for a task."""
        await self._register.find(task_id)  # which waits until everything is recovered
        request = self._book.get(task_id)
        return request if request is not None and request.task is None else None

    def find(self, task_id: str) -> Request | None:
        """Find a request that waits, is collected, or was over lately."""
        return self._book.get(task_id)

    def waiting_now(self) -> list[Request]:
        """Every request that waits, oldest first."""
        return [request for request in self._book if request.waits]

    def unusual(self, request: Request) -> Unusual:
        """Compare a request with what its identity usually gets."""
        return self.habits.compare(request.owner.spiffe_id, request.scope)

    def collected(self, request: Request, task: Task) -> None:
        """The request has become a task, under the request's own id."""
        self._book.collected(request, task)
        request.changed.ring()

    def adopt_policy(self, policy: Policy) -> int:
        """
        End every request that waits, or is about to, under another policy, or on the approval of
        somebody who may not give it any more; return how many.
        """
        before = self._open()
        for request in before:
            if request.scope.policy_digest != policy.digest:
                self.end(request, TaskState.DENIED, "the policy has changed")
        return sum(self._is_void(request) or not request.is_open for request in before)

    def end_withdrawn(self, stands: Callable[[str], bool]) -> int:
        """
        End every request whose caller was vouched for by what does not stand any more.

        `stands` is asked again for requests that come later. Returns how many ended.
        """
        self._stands = stands
        return sum(self._end_if_withdrawn(request) for request in self._open())

    def close(self) -> None:
        """Look at nothing any more."""
        self._timetable.close()

    def look_at(self, request: Request) -> None:
        """
        End what has waited too long, also before its timer says so.

        By the boot clock; and by the wall clock, of which approvals are, when that has jumped.
        """
        is_approved = request.state is TaskState.APPROVED
        lapsed = is_approved and not request.tally.is_good(self._now())
        if self._outside.clock.boottime() < request.until.boot and not lapsed:
            return
        if is_approved:
            self.end(request, TaskState.EXPIRED_UNUSED, "it was approved and not collected")
        else:
            self.end(request, TaskState.DENIED, "no approval came in time")

    def _is_void(self, request: Request) -> bool:
        """Whether an approval counts no more, by the approvers of now; then the request is over."""
        why = why_void_now(request, self._outside.approvers)
        if why is not None:
            self.end(request, TaskState.DENIED, why)
        return why is not None

    # --- inside ----------------------------------------------------------------------------

    def _open(self) -> list[Request]:
        return [request for request in self._book if request.is_open]

    def _end_if_withdrawn(self, request: Request) -> bool:
        if self._stands(request.proof.authority):
            return False
        cause = EndCause.IDENTITY_WITHDRAWN
        self.end(request, TaskState.FAILED, "the identity was withdrawn", cause)
        return True

    def _due(self, request: Request) -> None:
        self.look_at(request)
        if request.waits:
            self.keep(request)

    def _announce(self, request: Request, kind: str) -> None:
        needed = request.needed
        self._outside.notifier.notify(
            Notice(
                kind,
                request.id,
                {
                    "definition": request.scope.definition,
                    "plan": request.plan,
                    "scope_digest": request.shown.scope_digest,
                    "policy_digest": request.scope.policy_digest,
                    "from": list(needed.approvers),
                    "quorum": needed.quorum,
                    "until": request.until.wall.isoformat(timespec="seconds"),
                },
            )
        )

    async def _record(self, entry: Entry) -> None:
        """Record a refusal; without a record it is a refusal all the same."""
        try:
            await self._outside.ledger.append(entry)
        except Unavailable as error:
            self._outside.log.warning("refusal_not_recorded", code=error.code)

    def _now(self) -> datetime:
        return self._outside.clock.utcnow()


def _principals(tally: Tally) -> list[str]:
    return [one.approver.principal for one in tally.approvals]
