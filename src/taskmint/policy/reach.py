"""
A definition in, every request that it may make of Vault, as the policy has it, out.

Values of enums are written out; every other name stays `{name}`, with what stands around it.
Unlike the enumeration, which is what Vault can be told, this hides nothing behind a wildcard.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias

from taskmint.canonical import canonical
from taskmint.model.scope import EntitlementKind

from .acl import parse
from .definition import Definition, EntitlementTemplate
from .parameter import EnumParameter
from .template import ANY_TEXT, Values, body_written

Reach: TypeAlias = tuple[EntitlementTemplate, Values]
_NAME: Final = re.compile(r"\{[a-z0-9_]+\}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Way:
    """One thing that is done at a path of Vault, and by whom if not by the task token."""

    verb: str
    path: str
    means: tuple[str, ...] = ()


def reaches(definition: Definition) -> Iterator[Reach]:
    """Give each entitlement with each choice of values for the enums that it names."""
    enums = [each for each in definition.parameters if isinstance(each, EnumParameter)]
    for template in definition.entitlements:
        named = [each for each in enums if each.name in template.names]
        for values in product(*([(each.name, value) for value in each.values] for each in named)):
            yield template, dict(values)


def written(template: EntitlementTemplate, values: Values) -> str:
    """Write a request with what is known; how long its answer lives is the ceiling's to say."""
    body = {key: body_written(value, values) for key, value in template.body.items()}
    if template.key_field is not None:
        body[template.key_field.value] = ANY_TEXT
    if template.ceiling is not None and template.kind is not EntitlementKind.SECRET:
        del body["ttl"]
    if template.acl is not None:
        body["acl"] = template.acl.written(values)
    request = f"{template.method} {template.mount}/{template.path.written(values)}"
    return f"{request} with {canonical(body).decode()}" if body else request


def ways(template: EntitlementTemplate, values: Values) -> Iterator[Way]:
    """
    Say everything that an entitlement makes possible, with what is known of its placeholders.

    What mints it, what is written before, and what a token may that is handed over and whose
    policy is written for it. At the end of a name that is told by the task alone stands `*`.
    """
    spanned = template.span(values).for_task("*")
    path = template.path.written(values)
    if template.kind is EntitlementKind.DATABASE:
        path = spanned.path
    yield Way(template.method, f"{template.mount}/{path}")
    if spanned.ephemeral is not None:
        yield Way("write", spanned.ephemeral.path, ("by the daemon, for one task",))
    if template.acl is not None:
        for live in parse(template.acl.written(values)):
            if live.rule is not None:
                verb = ",".join(live.rule.capabilities)
                yield Way(verb, live.rule.path, (f"with the token {template.name}",))


def given_way(template: EntitlementTemplate) -> Way | None:
    """Name the policy of the Vault admin that a token comes with; None for everything else."""
    if template.kind is not EntitlementKind.TOKEN or template.acl is not None:
        return None
    means = (f"with the token {template.name}",)
    return Way("whatever the policy", f"{template.body['policies']} allows", means)


def globbed(path: str) -> str:
    """Write a path as fnmatch reads it: a value is at least one character."""
    return _NAME.sub("?*", path)
