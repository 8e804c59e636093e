"""From a caller and what it claims to a scope, by the policy; every refusal is recorded."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from taskmint.errors import Code, Denied, TaskmintError, Unavailable, Unprocessable
from taskmint.model.caller import Caller
from taskmint.model.scope import (
    Approval,
    CallerFacts,
    Decision,
    DecisionInput,
    Denial,
    Json,
    RequestFacts,
    Scope,
)
from taskmint.model.task_id import TaskId, new_task_id
from taskmint.policy.decide import decide
from taskmint.policy.load import Policy
from taskmint.policy.shadow import Shadowed, shadowed
from taskmint.ports import Entry

from . import entries
from .bell import Bell
from .facts import asked_facts
from .history import History
from .outside import Outside, Settings
from .recall import ASKED, LastHour

ADMISSION: Final = "admission: refused, "  # in the trace of what the policy grants

LONGEST_RECALL: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would be decided, from what, and what the definition's shadow says to it."""

    given: DecisionInput
    decision: Decision
    shadow: Shadowed | None


@dataclass(frozen=True, slots=True)
class Granted:
    """What was granted, from what, and what the definition's shadow says to it."""

    given: DecisionInput
    scope: Scope
    shadow: Shadowed | None


Refused = Callable[[DecisionInput, Denial, Shadowed | None], Entry]


class NeedsApproval(Denied):
    """Raised when nothing but an approval is missing: `granted` is what it would give."""

    def __init__(self, granted: Granted, approval: Approval) -> None:
        super().__init__(
            Code.NOT_PERMITTED,
            "this task needs an approval",
            fix="start it as a task of its own; a change cannot wait for an approval",
        )
        self.granted = granted
        self.approval = approval


class Decider:
    """Asks the policy, remembers what it said for the hour's history, and records refusals."""

    def __init__(self, outside: Outside, settings: Settings) -> None:
        self._outside = outside
        self._host = settings.host
        self._boot_id = settings.boot_id
        self._history = History()
        self._is_recalled = False
        self._recalled = Bell()

    async def recall(self) -> None:
        """
        Fill the hour's history from the ledger, before anything is decided by it.

        Raises Unavailable(ledger_unavailable); to be tried again, for nothing is counted by halves.
        """
        hour = LastHour(self._outside.clock, self._boot_id)
        await self._outside.ledger.newest_first(ASKED, hour.look)
        if hour.unreadable:
            self._outside.log.error("last_hour_unreadable", rows=hour.unreadable)
        hour.into(self._history)
        self._outside.log.info("last_hour_read", requests=len(hour))
        self._is_recalled = True
        self._recalled.ring()

    async def recalled(self) -> None:
        """
        Wait until the history is known, before a policy is asked that may count by it.

        Raises Unavailable(ledger_unavailable) after ten seconds.
        """
        if not await self._recalled.until(lambda: self._is_recalled, LONGEST_RECALL):
            raise Unavailable(
                Code.LEDGER_UNAVAILABLE,
                "the daemon is still reading its ledger's last hour after a restart",
                fix="repeat the request",
            )

    def explain(
        self, policy: Policy, caller: CallerFacts, request: RequestFacts, *, approved: bool = False
    ) -> Explanation:
        """Decide as if it were asked for now; nothing is counted, remembered or recorded."""
        given = DecisionInput(
            caller,
            request,
            self._outside.clock.utcnow(),
            self._host,
            self._history.facts(caller.spiffe_id, self._outside.clock.boottime()),
            approved=approved,
        )
        decision = decide(policy, given)
        return Explanation(given, decision, shadowed(policy, given, decision))

    async def ask(
        self,
        policy: Policy,
        caller: Caller,
        request: RequestFacts,
        refused: Refused,
        *,
        approved: bool = False,
    ) -> Granted:
        """
        Decide. Raises Denied or Unprocessable, once `refused(...)` has been recorded.

        And NeedsApproval, of which nothing is recorded: whoever asks lets it wait, or refuses it.
        """
        asked = self.explain(policy, caller_facts(caller), request, approved=approved)
        if asked.shadow is not None:
            self._outside.observer.shadowed(request.task, asked.shadow.verdict)
        if isinstance(asked.decision, Denial):
            _raise_if_waiting_helps(policy, asked, asked.decision)
            entry = refused(asked.given, asked.decision, asked.shadow)
            await self._refuse(caller, entry, asked.decision.code)
            raise refusal(asked.decision)
        return Granted(asked.given, asked.decision, asked.shadow)

    async def refuse(
        self, caller: Caller, granted: Granted, error: TaskmintError, refused: Refused
    ) -> None:
        """Record that what the policy grants was refused all the same: a limit, a process."""
        scope = granted.scope
        trace = (*scope.trace, f"{ADMISSION}{error.code}, {error.detail}")
        denial = Denial(error.code, error.detail, scope.policy_digest, trace)
        entry = refused(granted.given, denial, granted.shadow)
        await self._refuse(caller, entry, error.code)

    def granted(self, caller: Caller) -> dict[str, Json]:
        """Count a grant in the caller's history; return what its row has to say of that."""
        return self._remember(caller, granted=True)

    async def _refuse(self, caller: Caller, entry: Entry, code: str) -> None:
        asked_by = self._remember(caller, granted=False)
        try:
            await self._outside.ledger.append(
                replace(entry, facts={**entry.facts, "asked_by": asked_by})
            )
        except Unavailable as error:
            # A refusal needs no record to be safe; the ledger's own alarm is raised elsewhere.
            self._outside.log.warning("denial_not_recorded", code=error.code, denied=code)

    def _remember(self, caller: Caller, *, granted: bool) -> dict[str, Json]:
        process = caller.peer.pid, caller.peer.start_time
        now = self._outside.clock.boottime()
        self._history.record(caller.spiffe_id, process, now, granted=granted)
        return asked_facts(caller.peer, now, self._boot_id)


def as_new_task(evidence: str) -> Refused:
    """Record a refused start, under an id of its own."""
    return lambda given, denial, shadow: entries.denied(given, denial, shadow, fresh_id(), evidence)


def caller_facts(caller: Caller) -> CallerFacts:
    """State what was proven of a caller, for the decision."""
    return CallerFacts(caller.spiffe_id, caller.peer.uid, caller.method, caller.binding)


def still_granted(policy: Policy, given: DecisionInput, scope: Scope) -> bool:
    """Whether the policy, asked again with the approval, gives this very scope."""
    decision = decide(policy, replace(given, approved=True))
    return isinstance(decision, Scope) and replace(decision, trace=()) == replace(scope, trace=())


def is_as_approved(new: Scope, approved: Scope) -> bool:
    """Whether a scope decided anew is the approved one, perhaps for a shorter time."""
    same = replace(new, trace=(), lifetime=approved.lifetime) == replace(approved, trace=())
    return same and new.lifetime <= approved.lifetime


def _raise_if_waiting_helps(policy: Policy, asked: Explanation, denial: Denial) -> None:
    if denial.approval is None:
        return
    decision = decide(policy, replace(asked.given, approved=True))
    if isinstance(decision, Scope):
        raise NeedsApproval(Granted(asked.given, decision, asked.shadow), denial.approval)


def fresh_id() -> TaskId:
    """Make an id."""
    return new_task_id(time.time_ns() // 1_000_000, secrets.token_bytes(10))


def refusal(denial: Denial) -> TaskmintError:
    """Say no to the caller: the code and a sentence, never the trace."""
    code = Code(denial.code)
    if code is Code.NOT_PERMITTED:
        return Denied(code, denial.detail, fix="ask the owner of the task's policy")
    return Unprocessable(code, denial.detail, fix="see the task's definition for what it accepts")
