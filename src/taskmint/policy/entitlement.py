"""
An entitlement as it was written in, the one Vault request that mints it, with placeholders, out.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from taskmint.model.scope import EntitlementKind, ProofLevel
from taskmint.yaml_document import Scalar, quoted, yaml_guess
from taskmint.yaml_model import duration_text

from .definition import EntitlementTemplate
from .names import hand_role
from .schema import EntitlementSchema, SecretSchema, TokenSchema
from .template import BodyTemplate, Template, parse_path, parse_text

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})", re.ASCII)

Find: TypeAlias = Callable[[tuple[str | int, ...], str, str], None]


def compile_entitlement(
    definition: str, name: str, given: EntitlementSchema, find: Find
) -> EntitlementTemplate | None:
    """Compile one entitlement; None after telling `find` what is wrong with it."""
    if given.secret is not None:
        return _compile_secret(name, given.secret, find)
    if given.token is not None:
        return _compile_token(definition, name, given.token)
    return None


def _compile_secret(name: str, given: SecretSchema, find: Find) -> EntitlementTemplate | None:
    where = ("scope", name, "secret")
    if given.body and given.method == "GET":
        find((*where, "body"), "a GET has no body", "write method: POST, or remove body")
    try:
        path = parse_path(given.path)
    except ValueError as error:
        find((*where, "path"), str(error), "write for example creds/orders-{region}")
        return None
    body = {
        key: _compile_body(value, (*where, "body", key), find) for key, value in given.body.items()
    }
    return EntitlementTemplate(
        name=name,
        kind=EntitlementKind.SECRET,
        mount=given.mount,
        path=path,
        method=given.method,
        body=body,
        proof=given.proof,
    )


def _compile_token(definition: str, name: str, given: TokenSchema) -> EntitlementTemplate:
    body: dict[str, BodyTemplate] = {"policies": Template((given.policy,), ())}
    if given.ttl is not None:
        body["ttl"] = Template((duration_text(given.ttl),), ())
    if given.num_uses is not None:
        body["num_uses"] = given.num_uses
    return EntitlementTemplate(
        name=name,
        kind=EntitlementKind.TOKEN,
        mount="auth/token",
        path=Template((f"create/{hand_role(definition, name)}",), ()),
        method="POST",
        body=body,
        proof=ProofLevel.LEASE,
    )


def _compile_body(value: object, where: tuple[str | int, ...], find: Find) -> BodyTemplate:
    """Type a body's scalars: plain true, false and digits as such, everything else as text."""
    if isinstance(value, Mapping):
        return {key: _compile_body(inner, (*where, key), find) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_compile_body(inner, (*where, i), find) for i, inner in enumerate(value))
    if not isinstance(value, Scalar):
        raise TypeError("a body is read as mappings, lists and scalars")
    if value.plain and value.text in {"true", "false"}:
        return value.text == "true"
    if value.plain and _INTEGER.fullmatch(value.text):
        return int(value.text)
    if value.plain and (guess := yaml_guess(value.text)):
        find(where, f"YAML reads this as {guess}", f"write {quoted(value.text)}")
    try:
        return parse_text(value.text)
    except ValueError as error:
        find(where, str(error), "braces enclose the name of a parameter or a captured segment")
        return Template(("",), ())
