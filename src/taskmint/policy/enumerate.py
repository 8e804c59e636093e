"""
A policy in, everything that it can ever mint out: what the Vault plan and its predicate are from.

Enum parameters are written out, one combination each. The place of any other parameter, and of a
captured segment, is `+` in a path (Vault's wildcard for one segment) and ends a body's text with
`*`; there the server enforces less than the daemon does, and `policy check` says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from taskmint.model.scope import Entitlement, ParameterValue


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
