"""
An enforced decision and a shadow's on the same input in, how they differ out.

For the record and for counting only: a shadow grants nothing and refuses nothing.
"""

from dataclasses import dataclass
from enum import StrEnum

from taskmint.model.scope import Decision, DecisionInput, Denial, Scope

from .decide import decide_shadow
from .definition import Policy


class Verdict(StrEnum):
    """What would be otherwise if the shadow were enforced."""

    SAME = "same"
    WOULD_GRANT = "would_grant"
    WOULD_REFUSE = "would_refuse"
    WOULD_WAIT = "would_wait"  # for an approval
    OTHER_TERMS = "other_terms"  # granted or awaited by both, but not the same


@dataclass(frozen=True, slots=True)
class Shadowed:
    """A shadow's decision, and how it compares with the enforced one."""

    decision: Decision
    verdict: Verdict


def shadowed(policy: Policy, given: DecisionInput, enforced: Decision) -> Shadowed | None:
    """Decide by the shadow of the named definition as well; None when it has none."""
    decision = decide_shadow(policy, given)
    return None if decision is None else Shadowed(decision, compare(enforced, decision))


def compare(enforced: Decision, other: Decision) -> Verdict:
    """
    Say what `other` would change. Traces, and the words of a refusal, do not count.

    The two may be of one policy, or of two (`taskmint policy replay`).
    """
    would = outcome(other)
    if outcome(enforced) is not would:
        return would
    return Verdict.SAME if _terms(enforced) == _terms(other) else Verdict.OTHER_TERMS


def outcome(decision: Decision) -> Verdict:
    """Say what a decision would do to a request that was not answered so."""
    if isinstance(decision, Scope):
        return Verdict.WOULD_GRANT
    return Verdict.WOULD_REFUSE if decision.approval is None else Verdict.WOULD_WAIT


def _terms(decision: Decision) -> object:
    if isinstance(decision, Denial):
        return decision.approval
    return (
        decision.token_policy,
        {each.name: each for each in decision.entitlements},  # their order means nothing
        decision.dead_man,
        decision.lifetime,
        decision.ends,
        decision.break_glass,
    )
