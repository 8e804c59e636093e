"""
A definition in, every request that it may make of Vault, as the policy has it, out.

Values of enums are written out; every other name stays `{name}`, with what stands around it.
Unlike the enumeration, which is what Vault can be told, this hides nothing behind a wildcard.
"""

from collections.abc import Iterator
from itertools import product
from typing import TypeAlias

from taskmint.canonical import canonical
from taskmint.model.scope import EntitlementKind

from .definition import Definition, EntitlementTemplate
from .parameter import EnumParameter
from .template import ANY_TEXT, Values, body_written

Reach: TypeAlias = tuple[EntitlementTemplate, Values]


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
