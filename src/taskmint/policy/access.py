"""A policy and a Vault path in, who can reach it and through which task out."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from taskmint.model.caller import TokenBinding
from taskmint.model.spiffe import SpiffeId

from .definition import Definition, Policy
from .reach import Way, given_way, globbed, reaches, ways


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
    Find every task that reaches `path`, in order of name.

    `path` stands below /v1/, which may be written as well; in it `*` stands for any one segment.
    What a token that is handed over may do is found where the task writes its policy; for the
    policies of the Vault admin see `given_policies`.
    """
    wanted = path.strip("/").removeprefix("v1/").split("/")
    return tuple(
        _access(policy.definitions[name], entitlement, way)
        for name in sorted(policy.definitions)
        for entitlement, way in _ways(policy.definitions[name])
        if _meets(globbed(way.path).split("/"), wanted)
    )


def given_policies(policy: Policy) -> tuple[Access, ...]:
    """Find every task that hands over a token with a policy of the Vault admin, by name."""
    return tuple(
        _access(policy.definitions[name], template.name, way)
        for name in sorted(policy.definitions)
        for template in policy.definitions[name].entitlements
        if (way := given_way(template)) is not None
    )


def _ways(definition: Definition) -> dict[tuple[str, Way], None]:
    return {
        (template.name, way): None
        for template, values in reaches(definition)
        for way in ways(template, values)
    }


def _access(definition: Definition, entitlement: str, way: Way) -> Access:
    who = tuple(pattern.text for pattern in definition.patterns)
    terms = (*way.means, *terms_of(definition))
    request = f"{way.verb} {way.path}"
    return Access(definition.name, entitlement, request, who, definition.owner, terms)


def terms_of(definition: Definition) -> Iterator[str]:
    """Say what must hold besides identity and parameters."""
    if definition.identity.methods is not None:
        yield f"proven by {', '.join(sorted(definition.identity.methods))}"
    if definition.identity.binding is TokenBinding.PROCESS:
        yield "with a token that is bound to its process"
    if definition.windows:
        yield f"within {' or '.join(map(str, definition.windows))}"
    if definition.break_glass:
        yield "in an emergency, with a purpose and a ticket"
    yield from (f"when {condition.text}" for condition in definition.conditions)
    if definition.approval is not None:
        approvers = ", ".join(definition.approval.approvers)
        yield f"approved by {definition.approval.quorum} of {approvers}"


def _meets(globs: list[str], wanted: list[str]) -> bool:
    return len(globs) == len(wanted) and all(
        want == "*" or fnmatchcase(want, glob) for glob, want in zip(globs, wanted, strict=True)
    )


def tasks_of(policy: Policy, caller: SpiffeId) -> tuple[Definition, ...]:
    """Find every definition whose `who` matches this identity, in order of name."""
    return tuple(
        policy.definitions[name]
        for name in sorted(policy.definitions)
        if policy.definitions[name].who.match(caller) is not None
    )
