"""
A policy in, everything that it can ever mint out: what the Vault plan and its predicate are from.

Enum parameters are written out, one combination each. The place of any other parameter, and of a
captured segment, is `+` in a path (Vault's wildcard for one segment) and ends a body's text with
`*`; there the server enforces less than the daemon does, and `policy check` says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from math import prod
from types import MappingProxyType

from taskmint.model.scope import Entitlement, ParameterValue

from .definition import Definition, Policy
from .names import token_policy
from .parameter import EnumParameter


@dataclass(frozen=True, slots=True)
class Combination:
    """One choice of enum values, and the requests that a task with these values may make."""

    token_policy: str
    parameters: Mapping[str, ParameterValue]
    entitlements: tuple[Entitlement, ...]


@dataclass(frozen=True, slots=True)
class EnumeratedDefinition:
    """One task definition with all of its combinations; at least one."""

    name: str
    token_role: str
    dead_man: timedelta
    deadline_max: timedelta
    combinations: tuple[Combination, ...]


def enumerate_definitions(policy: Policy) -> tuple[EnumeratedDefinition, ...]:
    """Write out every definition of a policy, in order of name."""
    return tuple(
        enumerate_definition(policy.definitions[name]) for name in sorted(policy.definitions)
    )


def enumerate_definition(definition: Definition) -> EnumeratedDefinition:
    """Write out one definition; the loader has bounded its combinations."""
    return EnumeratedDefinition(
        name=definition.name,
        token_role=definition.token_role,
        dead_man=definition.dead_man,
        deadline_max=definition.deadline_max,
        combinations=tuple(
            _combination(definition, dict(zip(definition.policy_parameters, values, strict=True)))
            for values in product(*_choices(definition))
        ),
    )


def combinations(definition: Definition) -> int:
    """Count the combinations of a definition without writing them out."""
    return prod(map(len, _choices(definition)))


def _choices(definition: Definition) -> list[tuple[str, ...]]:
    """List the values of each enum that the scope uses, in the order of policy_parameters."""
    named = {parameter.name: parameter for parameter in definition.parameters}
    return [
        parameter.values
        for name in definition.policy_parameters
        if isinstance(parameter := named[name], EnumParameter)
    ]


def _combination(definition: Definition, values: dict[str, str]) -> Combination:
    return Combination(
        token_policy=token_policy(definition.name, values.values()),
        parameters=MappingProxyType[str, ParameterValue](dict(values)),
        entitlements=tuple(entitlement.span(values) for entitlement in definition.entitlements),
    )
