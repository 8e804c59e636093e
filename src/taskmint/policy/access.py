"""A policy and a Vault path in, who can reach it and through which task out."""

from collections.abc import Iterator
from dataclasses import dataclass

from taskmint.model.spiffe import SpiffeId

from .definition import Definition, Policy
from .enumerate import enumerate_definition
from .template import ANY_SEGMENT


@dataclass(frozen=True, slots=True)
class Access:
    """Who may make one request of Vault, through which task, and what else must hold."""

    task: str
    entitlement: str
    request: str  # "GET database/creds/ro-eu"
    who: tuple[str, ...]
    owner: str
    terms: tuple[str, ...]


def who_can(policy: Policy, path: str) -> tuple[Access, ...]:
    """
    Find every task that reaches `path` (below /v1/), in order of name.

    In the question `*` stands for any one segment.
    """
    wanted = path.strip("/").split("/")
    return tuple(
        access
        for name in sorted(policy.definitions)
        for access in _accesses(policy.definitions[name])
        if _meets(access.request.partition(" ")[2].split("/"), wanted)
    )


def _accesses(definition: Definition) -> Iterator[Access]:
    who = tuple(pattern.text for pattern in definition.patterns)
    terms = tuple(terms_of(definition))
    requests = dict.fromkeys(
        (entitlement.name, f"{entitlement.method} {entitlement.mount}/{entitlement.path}")
        for combination in enumerate_definition(definition).combinations
        for entitlement in combination.entitlements
    )
    for name, request in requests:
        yield Access(definition.name, name, request, who, definition.owner, terms)


def terms_of(definition: Definition) -> Iterator[str]:
    """Say what must hold besides identity and parameters."""
    if definition.identity.methods is not None:
        yield f"proven by {', '.join(sorted(definition.identity.methods))}"
    if definition.windows:
        yield f"within {' or '.join(map(str, definition.windows))}"
    yield from (f"when {condition.text}" for condition in definition.conditions)
    if definition.approval is not None:
        approvers = ", ".join(definition.approval.approvers)
        yield f"approved by {definition.approval.quorum} of {approvers}"


def _meets(spanned: list[str], wanted: list[str]) -> bool:
    return len(spanned) == len(wanted) and all(
        want in {"*", have} or have == ANY_SEGMENT
        for have, want in zip(spanned, wanted, strict=True)
    )


def tasks_of(policy: Policy, caller: SpiffeId) -> tuple[Definition, ...]:
    """Find every definition whose `who` matches this identity, in order of name."""
    return tuple(
        policy.definitions[name]
        for name in sorted(policy.definitions)
        if policy.definitions[name].who.match(caller) is not None
    )
