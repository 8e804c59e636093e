"""From a caller and what it claims to a scope, by the policy; every refusal is recorded."""

import secrets
import time
from collections.abc import Callable

from taskmint.errors import Code, Denied, TaskmintError, Unavailable, Unprocessable
from taskmint.model.caller import Caller
from taskmint.model.scope import CallerFacts, DecisionInput, Denial, RequestFacts, Scope
from taskmint.model.task_id import TaskId, new_task_id
from taskmint.policy.decide import decide
from taskmint.policy.load import Policy
from taskmint.ports import Entry

from . import entries
from .history import History
from .outside import Outside, Settings

Refused = Callable[[DecisionInput, Denial], Entry]


class Decider:
    """Asks the policy, remembers what it said for the hour's history, and records refusals."""

    def __init__(self, outside: Outside, settings: Settings) -> None:
        self._outside = outside
        self._host = settings.host
        self._history = History()

    async def ask(
        self, policy: Policy, caller: Caller, request: RequestFacts, refused: Refused
    ) -> tuple[DecisionInput, Scope]:
        """Decide. Raises Denied or Unprocessable, once `refused(...)` has been recorded."""
        now = self._outside.clock.boottime()
        given = DecisionInput(
            CallerFacts(caller.spiffe_id, caller.peer.uid, caller.method),
            request,
            self._outside.clock.utcnow(),
            self._host,
            self._history.facts(caller.spiffe_id, now),
        )
        decision = decide(policy, given)
        if isinstance(decision, Denial):
            await self._refuse(caller, refused(given, decision), decision.code)
            raise _refusal(decision)
        return given, decision

    async def refuse(
        self,
        caller: Caller,
        given: DecisionInput,
        scope: Scope,
        error: TaskmintError,
        refused: Refused,
    ) -> None:
        """Record that what the policy grants was refused all the same: a limit, a process."""
        denial = Denial(error.code, error.detail, scope.policy_digest, scope.trace)
        await self._refuse(caller, refused(given, denial), error.code)

    def granted(self, caller: Caller) -> None:
        """Count a grant in the caller's history."""
        self._remember(caller, granted=True)

    async def _refuse(self, caller: Caller, entry: Entry, code: str) -> None:
        self._remember(caller, granted=False)
        try:
            await self._outside.ledger.append(entry)
        except Unavailable as error:
            # A refusal needs no record to be safe; the ledger's own alarm is raised elsewhere.
            self._outside.log.warning("denial_not_recorded", code=error.code, denied=code)

    def _remember(self, caller: Caller, *, granted: bool) -> None:
        process = caller.peer.pid, caller.peer.start_time
        now = self._outside.clock.boottime()
        self._history.record(caller.spiffe_id, process, now, granted=granted)


def as_new_task(evidence: str) -> Refused:
    """Record a refused start, under an id of its own."""
    return lambda given, denial: entries.denied(given, denial, fresh_id(), evidence)


def fresh_id() -> TaskId:
    """Make an id."""
    return new_task_id(time.time_ns() // 1_000_000, secrets.token_bytes(10))


def _refusal(denial: Denial) -> TaskmintError:
    code = Code(denial.code)
    if code is Code.NOT_PERMITTED:
        return Denied(code, denial.detail, fix="ask the owner of the task's policy")
    return Unprocessable(code, denial.detail, fix="see the task's definition for what it accepts")
