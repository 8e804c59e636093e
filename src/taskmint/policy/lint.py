"""
A policy that loads in, what a reviewer should look at again out. A lint never refuses a policy.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from taskmint.errors import Finding
from taskmint.model.clocks import ClassClocks
from taskmint.yaml_document import key_path, quoted
from taskmint.yaml_model import duration_text

from .acl import is_compared
from .definition import Definition, Policy
from .enumerate import enumerate_definition
from .template import ANY_SEGMENT, ANY_TEXT
from .window import Release


def lint(policy: Policy, classes: Mapping[str, ClassClocks], now: datetime) -> tuple[Finding, ...]:
    """Look over every definition and shadow; `now` tells which releases are past."""
    found: list[Finding] = []
    for name, definition in (*policy.definitions.items(), *policy.shadows.items()):
        for steps, problem, fix in _findings(policy, definition, classes, now):
            key = key_path(("tasks", name, *steps))
            found.append(Finding(definition.file, definition.line, 1, key, problem, fix))
    return tuple(sorted(found))


_Lints = Iterator[tuple[tuple[str | int, ...], str, str]]


def _findings(
    policy: Policy,
    definition: Definition,
    classes: Mapping[str, ClassClocks],
    now: datetime,
) -> _Lints:
    if policy.owners and definition.owner not in policy.owners:
        problem = f"{quoted(definition.owner)} is not among the owners of this policy"
        yield ("owner",), problem, "name a team of the list, or add this one to owners"
    yield from _claims(definition)
    yield from _clocks(definition, classes)
    yield from _unused(definition)
    yield from _wildcards(definition)
    for index, window in enumerate(definition.windows):
        if isinstance(window, Release) and window.ends <= now:
            yield ("windows", index), "is past and never opens again", "remove it"


def _claims(definition: Definition) -> _Lints:
    conditions = definition.conditions
    if conditions and all(condition.rests_on_claims for condition in conditions):
        fix = "ask for something that is proven or configured as well: caller, now, host, history"
        yield ("when",), "rests on what the caller claims, and on nothing else", fix


def _clocks(definition: Definition, classes: Mapping[str, ClassClocks]) -> _Lints:
    usual = classes.get(definition.class_name)
    if usual is None:
        return
    clocks: tuple[tuple[tuple[str, ...], timedelta, timedelta], ...] = (
        (("deadline", "max"), definition.deadline_max, usual.max),
        (("dead_man",), definition.dead_man, usual.dead_man),
    )
    for steps, own, limit in clocks:
        if own > limit:
            problem = (
                f"{duration_text(own)} is longer than class {definition.class_name} has, "
                f"{duration_text(limit)}"
            )
            yield steps, problem, "shorten it, or choose the class that fits"


def _unused(definition: Definition) -> _Lints:
    used = frozenset[str]().union(*(each.names for each in definition.entitlements))
    conditions = list(definition.conditions)
    if definition.approval is not None and definition.approval.automatic is not None:
        conditions.append(definition.approval.automatic)
    read = frozenset[str]().union(*(condition.names for condition in conditions))
    for parameter in definition.parameters:
        if parameter.name not in used and f"request.parameters.{parameter.name}" not in read:
            fix = "remove it, or use it in scope or when"
            yield ("parameters", parameter.name), "changes nothing", fix


def _wildcards(definition: Definition) -> _Lints:
    for entitlement in enumerate_definition(definition).combinations[0].entitlements:
        if ANY_SEGMENT in entitlement.path.split("/"):
            path = f"{entitlement.mount}/{entitlement.path}"
            problem = f"the server can hold a task to {path} only, the daemon to the exact path"
            yield ("scope", entitlement.name), problem, "enums make the server's bound exact"
        # Never held to one value, or held by the token's role.
        own = {"ttl", "num_uses", entitlement.key_field}
        for name in sorted(entitlement.body.keys() - own):
            value = entitlement.body[name]
            problem = f"the server allows any {name}, the daemon the exact one"
            if isinstance(value, str) and value.endswith(ANY_TEXT):
                yield ("scope", entitlement.name), problem, "enums make the server's bound exact"
            elif not is_compared(value):
                fix = "it compares text, true and false; quote a number if the engine takes text"
                yield ("scope", entitlement.name), problem, fix
