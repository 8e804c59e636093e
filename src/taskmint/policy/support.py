"""
A policy in, what of it this version's daemon cannot do yet out.

The language is ahead of the daemon. What is written and not done would be a promise broken in
silence (a task that runs without the approval it needs), so the daemon refuses such a policy
and `policy check` says so.
"""

from collections.abc import Iterator
from typing import Final

from taskmint.errors import Finding
from taskmint.yaml_document import key_path

from .definition import Definition, Policy

APPROVALS: Final = False


def unsupported(policy: Policy) -> tuple[Finding, ...]:
    """List what no task of this policy would get; shadows grant nothing and are left out."""
    return tuple(
        Finding(
            definition.file,
            definition.line,
            1,
            key_path(("tasks", name, *steps)),
            f"{what} is not built yet",
            "leave it out, or wait for the version that has it",
        )
        for name, definition in sorted(policy.definitions.items())
        for steps, what in _lacking(definition)
    )


def _lacking(definition: Definition) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if definition.approval is not None and not APPROVALS:
        yield ("approval",), "an approval"
