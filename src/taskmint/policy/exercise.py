"""
A policy and the decisions of its tests in, the clauses that no test exercised out.

A clause is exercised when a decision reached it with that outcome: a condition must have been seen
to hold and to fail, windows open and none open, each by itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from taskmint.model.caller import IdentityMethod, TokenBinding
from taskmint.model.scope import Decision

from .definition import ApprovalRule, Definition, IdentityRule, Policy


@dataclass(frozen=True, slots=True)
class Clause:
    """Something a test should exercise: a definition's clause with one outcome of it."""

    task: str
    clause: str
    file: str
    line: int


def clauses(policy: Policy) -> tuple[Clause, ...]:
    """List every clause of a policy, shadows by their key."""
    return tuple(
        Clause(key, clause, definition.file, definition.line)
        for key, definition in _keyed(policy)
        for clause in _clauses(definition)
    )


def exercised(policy: Policy, decisions: Iterable[tuple[str, Decision]]) -> frozenset[Clause]:
    """Tell which clauses these decisions exercised; each comes with its definition's key."""
    seen = {(key, clause) for key, decision in decisions for clause in decision.clauses}
    return frozenset(clause for clause in clauses(policy) if (clause.task, clause.clause) in seen)


def _keyed(policy: Policy) -> Iterator[tuple[str, Definition]]:
    for name in sorted(policy.definitions):
        yield name, policy.definitions[name]
    for name in sorted(policy.shadows):
        yield f"{name}.shadow", policy.shadows[name]


def _clauses(definition: Definition) -> Iterator[str]:
    """Name clauses as decide tells them."""
    yield "granted"
    for pattern in definition.patterns:
        yield f"who: {pattern.text}"
    yield from _identity(definition.identity)
    for window in definition.windows:
        yield f"windows: {window} is open"
    if definition.windows:
        yield "windows: none is open"
    if definition.break_glass:
        yield "break_glass: under"
        yield "break_glass: refused"
    for condition in definition.conditions:
        yield f"when: true, {condition.text}"
        yield f"when: false, {condition.text}"
    for entitlement in definition.entitlements:
        if entitlement.key_field is not None:
            yield f"public_keys: {entitlement.name} will do"
    yield from _approval(definition.approval)


def _identity(rule: IdentityRule) -> Iterator[str]:
    methods = rule.methods
    if methods is not None:
        yield "identity: accepted"
        yield "identity: refused"
    tokens = methods is None or IdentityMethod.JWT_SVID in methods
    if tokens and rule.binding is TokenBinding.PROCESS:
        yield "identity: token accepted"
        yield "identity: token refused"


def _approval(rule: ApprovalRule | None) -> Iterator[str]:
    if rule is None:
        return
    yield "approval: given"
    yield "approval: needed"
    if rule.automatic is not None:
        yield "approval: automatic"
