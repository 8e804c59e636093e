"""
A policy and the decisions of its tests in, the clauses that no test exercised out.

A clause is exercised when a decision's trace says so; a condition must have been seen to hold and
to fail, windows open and none open.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from taskmint.model.scope import Decision, Scope

from .definition import Definition, Policy

_GRANTED = "granted"


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
    lines: dict[str, set[str]] = {}
    for key, decision in decisions:
        seen = lines.setdefault(key, set())
        seen.update(decision.trace)
        if isinstance(decision, Scope):
            seen.add(_GRANTED)
    return frozenset(
        clause
        for clause in clauses(policy)
        if any(line.startswith(clause.clause) for line in lines.get(clause.task, ()))
    )


def _keyed(policy: Policy) -> Iterator[tuple[str, Definition]]:
    for name in sorted(policy.definitions):
        yield name, policy.definitions[name]
    for name in sorted(policy.shadows):
        yield f"{name}.shadow", policy.shadows[name]


def _clauses(definition: Definition) -> Iterator[str]:
    """Name clauses as decide writes them into a trace."""
    yield _GRANTED
    for pattern in definition.patterns:
        yield f"who: {pattern.text} matches "
    if definition.identity.methods is not None:
        yield "identity: accepted"
        yield "identity: refused"
    for window in definition.windows:
        yield f"windows: {window} is open"
    if definition.windows:
        yield "windows: none is open"
    for condition in definition.conditions:
        yield f"when: true, {condition.text}"
        yield f"when: false, {condition.text}"
    for entitlement in definition.entitlements:
        if entitlement.key_field is not None:
            yield f"public_keys: {entitlement.name} "
    if definition.approval is not None:
        yield "approval: given"
        yield "approval: needed"
        if definition.approval.automatic is not None:
            yield "approval: automatic"
