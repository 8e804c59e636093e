"""
A definition's name and its enum values in, the names of its objects in Vault out.

Vault folds policy names to lower case, so whoever builds a policy must have refused values that
differ by case alone; nothing here checks its input.
"""

from collections.abc import Iterable
from typing import Final

PREFIX: Final = "taskmint-task-"
HAND_PREFIX: Final = "taskmint-hand-"
DATABASE_PREFIX: Final = "taskmint-db-"


def token_role(definition: str) -> str:
    """Return the token role that makes this definition's task tokens."""
    return PREFIX + definition


def token_policy(definition: str, values: Iterable[str]) -> str:
    """
    Return the one policy of a task token.

    `values` are those of the enum parameters that the scope uses, in declared order. Neither a
    definition's name nor a value holds a dot, so two combinations never share a policy.
    """
    return ".".join((PREFIX + definition, *values))


def hand_role(definition: str, entitlement: str) -> str:
    """Return the token role that makes the tokens handed to callers for a `token` entitlement."""
    return f"{HAND_PREFIX}{definition}.{entitlement}"


def task_database_role(definition: str, entitlement: str, values: Iterable[str]) -> str:
    """
    Return how the database roles begin that exist for one task; a dot and its name follow.

    `values` are those of the enum parameters in its statements, so that equal beginnings have
    equal statements.
    """
    return ".".join((f"{DATABASE_PREFIX}{definition}.{entitlement}", *values))
