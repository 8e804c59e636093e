"""
Statements in, whether a task may be minted out. Pure and total: no clock, no I/O, no keys.

Who made a statement was proven before (identity/statements.py). Here is decided whether it counts:
only that of others, of those whom the policy names, about exactly the plan that was shown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import combinations

from taskmint.model.approval import Approver, Outcome, Vouched
from taskmint.model.scope import Approval
from taskmint.model.spiffe import SpiffeId


class Standing(StrEnum):
    """Where a request for approval stands."""

    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"  # was approved, and is not any more


@dataclass(frozen=True, slots=True)
class Shown:
    """What approvers were shown: the task, its plan, who asks, and whose yes it waits for."""

    task: str
    scope_digest: str
    policy_digest: str
    caller: SpiffeId
    uid: int
    needed: Approval


@dataclass(frozen=True, slots=True)
class Tally:
    """What counts so far. `used` are the ids of every statement that ever counted."""

    standing: Standing = Standing.WAITING
    approvals: tuple[Vouched, ...] = ()
    used: frozenset[str] = frozenset()

    @property
    def good_until(self) -> datetime:
        """When the first of the approvals expires. Raises ValueError when there are none."""
        return min(one.statement.not_after for one in self.approvals)

    def is_good(self, now: datetime) -> bool:
        """Whether none of the approvals has expired."""
        return all(one.statement.not_after > now for one in self.approvals)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a statement does not count; safe to show to whoever brought it."""

    reason: str


def weigh(shown: Shown, tally: Tally, vouched: Vouched, now: datetime) -> Tally | Refused:
    """
    Weigh one more statement; what does not count changes nothing.

    1. It is about this task, exactly this plan, and decided by this policy.
    2. It has not expired.
    3. It was not used before.
    4. Whoever made it is somebody else than the caller, by any name.
    5. The policy names them.
    6. A request that is over takes none; an approved one can only be withdrawn.
    7. Approve: nobody's approval counts twice; with enough of different people it is approved.
       Deny: one is enough. Withdraw: takes one's own approval back, and ends what rests on it.
    """
    if (problem := next(_objections(shown, tally, vouched, now), None)) is not None:
        return Refused(problem)
    return _counted(shown, tally, vouched, now)  # 7


def _objections(shown: Shown, tally: Tally, vouched: Vouched, now: datetime) -> Iterator[str]:
    statement = vouched.statement
    if statement.task != shown.task:  # 1
        yield "the statement is about another task"
    if statement.scope_digest != shown.scope_digest:
        yield "the statement is about another plan than the one that was shown"
    if statement.policy_digest != shown.policy_digest:
        yield "the statement is about a plan that another policy decided"
    if statement.not_after <= now:  # 2
        yield "the statement has expired"
    if statement.jti in tally.used:  # 3
        yield "the statement was used before"
    if is_caller(vouched.approver, shown.caller, shown.uid):  # 4
        yield "nobody approves their own request"
    if not may_approve(vouched.approver, shown.needed):  # 5
        yield "the policy does not name this approver"
    if tally.standing in {Standing.DENIED, Standing.WITHDRAWN}:  # 6
        yield f"the request is {tally.standing} already"
    if tally.standing is Standing.APPROVED and statement.outcome is not Outcome.WITHDRAW:
        yield "the request is approved already; an approval can only be withdrawn"


def why_void(shown: Shown, approvers: Sequence[Approver | None]) -> str | None:
    """
    Why approvals that counted count no more, by who gave them as is known now; None: they do.

    `approvers` has None for whoever is not known any more.
    """
    known = [one for one in approvers if one is not None]
    if len(known) < len(approvers):
        return "an approval is of somebody who is no approver any more"
    if any(is_caller(one, shown.caller, shown.uid) for one in known):
        return "an approval is the caller's own"
    if not all(may_approve(one, shown.needed) for one in known):
        return "an approval is of somebody whom the policy does not name"
    if any(is_same_person(one, other) for one, other in combinations(known, 2)):
        return "two approvals are of one person"
    return None


def is_caller(approver: Approver, caller: SpiffeId, uid: int) -> bool:
    """Whether this is the one who asks, by SPIFFE ID or by user id."""
    named = {str(one) for one in (*approver.spiffe_ids, approver.proven_id) if one is not None}
    return str(caller) in named | {approver.principal} or uid in approver.uids


def may_approve(approver: Approver, needed: Approval) -> bool:
    """Whether the policy names this approver: by name, by group, or by a proven SPIFFE ID."""
    names = {f"user:{approver.principal}", *(f"group:{name}" for name in approver.groups)}
    if approver.proven_id is not None:
        names.add(str(approver.proven_id))
    return not names.isdisjoint(needed.approvers)


def is_same_person(one: Approver, other: Approver) -> bool:
    """Whether two approvers share a name, a user id or a SPIFFE ID: then they count once."""
    return (
        one.principal == other.principal
        or not one.uids.isdisjoint(other.uids)
        or not _ids(one).isdisjoint(_ids(other))
    )


def _ids(approver: Approver) -> frozenset[SpiffeId]:
    proven = approver.proven_id
    return approver.spiffe_ids if proven is None else approver.spiffe_ids | {proven}


def _counted(shown: Shown, tally: Tally, vouched: Vouched, now: datetime) -> Tally | Refused:
    used = tally.used | {vouched.statement.jti}
    mine = [one for one in tally.approvals if is_same_person(one.approver, vouched.approver)]
    match vouched.statement.outcome:
        case Outcome.DENY:
            return Tally(Standing.DENIED, tally.approvals, used)
        case Outcome.WITHDRAW:
            if not mine:
                return Refused("there is no approval of this approver to withdraw")
            left = tuple(one for one in tally.approvals if one not in mine)
            was_approved = tally.standing is Standing.APPROVED
            return Tally(Standing.WITHDRAWN if was_approved else Standing.WAITING, left, used)
        case Outcome.APPROVE:
            live = tuple(one for one in tally.approvals if one.statement.not_after > now)
            if any(one in live for one in mine):
                return Refused("this approver has approved already")
            approvals = (*live, vouched)
            enough = len(approvals) >= shown.needed.quorum
            return Tally(Standing.APPROVED if enough else Standing.WAITING, approvals, used)
