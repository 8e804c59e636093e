"""
A decision as the ledger holds it and another policy in, what that policy would have answered out.

Decided from the recorded input alone: its time, history, host and claims. Limits are not applied.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from taskmint.errors import Code
from taskmint.model.scope import Approval, Decision, Denial, Entitlement, Scope
from taskmint.policy.decide import AWAITED, decide
from taskmint.policy.load import Policy
from taskmint.policy.shadow import Verdict, compare, outcome
from taskmint.ports import Entry, Event
from taskmint.yaml_model import duration_text

from .deciding import ADMISSION
from .facts import instant, read_approval, read_input, read_scope

_GRANTS: Final = frozenset({Event.INTENT, Event.REVISION_INTENT})
_REFUSALS: Final = frozenset({Event.DENIED, Event.REVISION_DENIED})
DECISIONS: Final = _GRANTS | _REFUSALS | {Event.AWAITING_APPROVAL}


@dataclass(frozen=True, slots=True)
class Replayed:
    """
    One past request; `verdict` is None where it cannot be decided again.

    `reason` is the step that refuses, or why it cannot be decided; empty for what is granted.
    """

    task: str
    at: str  # RFC 3339
    definition: str
    spiffe_id: str
    verdict: Verdict | None
    reason: str
    differences: tuple[str, ...] = ()


def replayed(policy: Policy, entry: Entry) -> Replayed | None:
    """Decide a row's request by this policy; None when the row is not a decision."""
    if entry.event not in DECISIONS:
        return None
    if not entry.free_text:
        return _undecidable(entry, "what was claimed (purpose, ticket, context) is purged")
    try:
        given = read_input(entry.facts, entry.free_text)
        recorded = _recorded(given.request.task, entry.event, entry.facts)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return _undecidable(entry, "the row does not hold what it was decided from")
    decision = decide(policy, given)
    # Of what waits the approval is compared, and what it would give.
    answers = [(recorded[0], decision)]
    answers += ((each, decide(policy, replace(given, approved=True))) for each in recorded[1:])
    verdicts = (_verdict(was, now) for was, now in answers)
    return Replayed(
        task=entry.task or "?",
        at=instant(entry.at),
        definition=given.request.task,
        spiffe_id=str(given.caller.spiffe_id),
        verdict=next((each for each in verdicts if each is not Verdict.SAME), Verdict.SAME),
        reason=decision.trace[-1] if isinstance(decision, Denial) else "",
        differences=tuple(said for was, now in answers for said in _differences(was, now)),
    )


def _undecidable(entry: Entry, reason: str) -> Replayed:
    definition, spiffe_id = (str(entry.facts.get(key, "?")) for key in ("definition", "spiffe_id"))
    return Replayed(entry.task or "?", instant(entry.at), definition, spiffe_id, None, reason)


def _recorded(
    definition: str, event: Event, facts: Mapping[str, Any]
) -> tuple[Decision | Verdict, ...]:
    """
    Read what the policy of then answered; of a refusal, what it would be to another answer.

    Where it waited for an approval, then also what that approval would have given.
    """
    if event in _GRANTS:
        return (read_scope(definition, facts["scope"]),)
    if event is Event.AWAITING_APPROVAL:
        approval = read_approval(facts["approval"])
        waiting = Denial(Code.NOT_PERMITTED.value, "", "", approval=approval)
        return waiting, read_scope(definition, facts["scope"])
    *_, last = facts["trace"]
    if last.startswith(ADMISSION):
        return (Verdict.WOULD_GRANT,)
    return (Verdict.WOULD_WAIT if last.startswith(AWAITED) else Verdict.WOULD_REFUSE,)


def _verdict(was: Decision | Verdict, now: Decision) -> Verdict:
    if not isinstance(was, Verdict):
        return compare(was, now)
    return Verdict.SAME if outcome(now) is was else outcome(now)


def _differences(was: Decision | Verdict, now: Decision) -> Iterator[str]:
    """Say in words what two answers of one kind do not have in common."""
    if isinstance(was, Scope) and isinstance(now, Scope):
        yield from _scopes(was, now)
    if isinstance(was, Denial) and isinstance(now, Denial) and was.approval and now.approval:
        yield from _approvals(was.approval, now.approval)


def _approvals(old: Approval, new: Approval) -> Iterator[str]:
    needed, was = (f"{each.quorum} of {', '.join(each.approvers)}" for each in (new, old))
    if needed != was:
        yield f"waits for {needed}, was {was}"
    if new.within != old.within:
        yield f"waits for {duration_text(new.within)}, was {duration_text(old.within)}"


def _scopes(old: Scope, new: Scope) -> Iterator[str]:
    """Say what one grant gives and another does not, in words."""
    before = {item.name: item for item in old.entitlements}
    after = {item.name: item for item in new.entitlements}
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield f"no {name}"
        elif name not in before:
            yield f"{name} as well"
        elif before[name] != after[name]:
            yield f"another {name}: {_request(after[name])}, was {_request(before[name])}"
    for what, was, now in (
        ("runs for", old.lifetime, new.lifetime),
        ("on a lease of", old.dead_man, new.dead_man),
    ):
        if was != now:
            yield f"{what} {duration_text(now)}, was {duration_text(was)}"
    if old.break_glass != new.break_glass:
        yield "for emergencies only" if new.break_glass else "no longer for emergencies only"
    if old.ends != new.ends:
        yield "ends otherwise"
    if old.token_policy != new.token_policy:
        yield f"by the Vault policy {new.token_policy}, was {old.token_policy}"


def _request(item: Entitlement) -> str:
    return f"{item.method} {item.mount}/{item.path}"
