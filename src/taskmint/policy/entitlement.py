"""
An entitlement as it was written in, the one Vault request that mints it, with placeholders, out.

A `database` entitlement is the request for credentials of a role that is made for the task; its
body says what that role must be, and `with_clocks` adds how long its accounts may live.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final, TypeAlias

from taskmint.model.scope import EntitlementKind, KeyField, ProofLevel
from taskmint.yaml_document import Scalar, quoted, yaml_guess
from taskmint.yaml_model import duration_text, parse_integer

from .acl import Rule, merge, render
from .definition import AFTER_DEADLINE, EntitlementTemplate
from .names import hand_role, task_database_role
from .scope_schema import (
    DatabaseSchema,
    EntitlementSchema,
    PkiSchema,
    SecretSchema,
    SshSchema,
    TokenSchema,
)
from .template import (
    BodyTemplate,
    Template,
    is_own_of_vault,
    names_in,
    parse_path,
    parse_statement,
    parse_text,
    plain,
)

Steps: TypeAlias = tuple[str | int, ...]
Find: TypeAlias = Callable[[Steps, str, str], None]

_NOTHING: Final = plain("")
_RESERVED: Final = "taskmint-"  # the daemon's own policies, and those of tasks
_STAR: Final = "write the text without a * at its beginning and end"
_BRACES: Final = "braces enclose the name of a parameter or a captured segment"


def compile_entitlement(
    definition: str, name: str, given: EntitlementSchema, find: Find
) -> EntitlementTemplate:
    """Compile one entitlement; what is wrong with it is told to `find`."""
    if given.secret is not None:
        return _secret(name, given.secret, find)
    if given.database is not None:
        return _database(definition, name, given.database, find)
    if given.token is not None:
        return _token(definition, name, given.token, find)
    if given.pki is not None:
        return _pki(name, given.pki, find)
    if given.ssh is not None:
        return _ssh(name, given.ssh, find)
    raise ValueError("an entitlement that was validated has a kind")


def with_clocks(
    made: EntitlementTemplate, dead_man: timedelta, longest: timedelta
) -> EntitlementTemplate:
    """Put the definition's clocks into a role that is made for the task."""
    if made.kind is not EntitlementKind.DATABASE:
        return made
    # As texts, because the server compares no numbers, and these are pinned as well.
    clocks: dict[str, BodyTemplate] = {
        "default_ttl": plain(f"{int(dead_man.total_seconds())}s"),
        "max_ttl": plain(f"{int((longest + AFTER_DEADLINE).total_seconds())}s"),
    }
    return replace(made, body={**made.body, **clocks})


def _of_an_engine(path: str, where: Steps, find: Find) -> None:
    """Refuse what is Vault's own; what values would make so, `render` refuses."""
    if is_own_of_vault(path):
        find(where, f"{quoted(path)} is Vault's own", "name a secrets engine's path")
    elif "{" in path.partition("/")[0]:
        find(where, f"{quoted(path)} names no mount", "begin with the mount itself")


def _secret(name: str, given: SecretSchema, find: Find) -> EntitlementTemplate:
    where = ("scope", name, "secret")
    if given.body and given.method == "GET":
        find((*where, "body"), "a GET has no body", "write method: POST, or remove body")
    _of_an_engine(f"{given.mount}/{given.path}", (*where, "mount"), find)
    body = {key: _typed(value, (*where, "body", key), find) for key, value in given.body.items()}
    return EntitlementTemplate(
        name=name,
        kind=EntitlementKind.SECRET,
        mount=given.mount,
        path=_path(given.path, (*where, "path"), find),
        method=given.method,
        body=body,
        proof=ProofLevel(given.proof),
        revocable=given.revocable,
        ceiling=given.ceiling,
    )


def _database(definition: str, name: str, given: DatabaseSchema, find: Find) -> EntitlementTemplate:
    where = ("scope", name, "database")
    _of_an_engine(given.mount, (*where, "mount"), find)
    creation = _statements(given.creation, (*where, "creation"), find)
    revocation = _statements(given.revocation, (*where, "revocation"), find)
    used = sorted(names_in((*creation, *revocation)))
    role = task_database_role(definition, name, (f"{{{parameter}}}" for parameter in used))
    return EntitlementTemplate(
        name=name,
        kind=EntitlementKind.DATABASE,
        mount=given.mount,
        path=parse_path(f"creds/{role}"),
        method="GET",
        body={
            "db_name": plain(given.connection),
            "creation_statements": creation,
            "revocation_statements": revocation,
        },
        proof=ProofLevel(given.proof),
    )


def _token(definition: str, name: str, given: TokenSchema, find: Find) -> EntitlementTemplate:
    acl = _acl(given, ("scope", name, "token"), find) if given.paths else None
    if given.policy and (given.policy == "root" or given.policy.startswith(_RESERVED)):
        said = f"{quoted(given.policy)} is not for a caller"
        find(("scope", name, "token", "policy"), said, "name a policy that the Vault admin keeps")
    policy = given.policy or hand_role(definition, name)
    body: dict[str, BodyTemplate] = {"policies": plain(policy)}
    if given.ttl is not None:
        body["ttl"] = plain(duration_text(given.ttl))
    if given.num_uses is not None:
        body["num_uses"] = given.num_uses
    return EntitlementTemplate(
        name=name,
        kind=EntitlementKind.TOKEN,
        mount="auth/token",
        path=plain(f"create/{hand_role(definition, name)}"),
        method="POST",
        body=body,
        proof=ProofLevel.LEASE,
        ceiling=given.ttl,
        acl=acl,
    )


def _acl(given: TokenSchema, where: Steps, find: Find) -> Template:
    """Write the policy of one task's token, of validated segments and placeholders alone."""
    rules: list[Rule] = []
    paths: dict[str, Template] = {}
    for index, grant in enumerate(given.paths):
        here = (*where, "paths", index, "path")
        path = _path(grant.path, here, find)
        _of_an_engine(grant.path, here, find)
        if str(path) in paths:
            find(here, f"{quoted(grant.path)} stands here twice", "write its capabilities once")
        paths[str(path)] = path
        rules.append(Rule(str(path), tuple(sorted(set(grant.capabilities))), {"*": ()}))
    return _with_placeholders(render(merge(rules)), paths.values())


def _with_placeholders(text: str, paths: Iterable[Template]) -> Template:
    """Make the names in the paths placeholders again; every other brace is HCL's own."""
    literals, names = [""], []
    quoted_paths = {f'path "{path}" {{\n': path for path in paths}
    for line in text.splitlines(keepends=True):
        path = quoted_paths.get(line)
        if path is None:
            literals[-1] += line
            continue
        literals[-1] += f'path "{path.literals[0]}'
        for name, literal in zip(path.names, path.literals[1:], strict=True):
            names.append(name)
            literals.append(literal)
        literals[-1] += '" {\n'
    return Template(tuple(literals), tuple(names))


def _pki(name: str, given: PkiSchema, find: Find) -> EntitlementTemplate:
    where = ("scope", name, "pki")
    _of_an_engine(given.mount, (*where, "mount"), find)
    signs, listed = given.operation == "sign", given.proof == "crl"
    body: dict[str, BodyTemplate] = {
        "common_name": _text(given.common_name, (*where, "common_name"), find),
        "ttl": plain(duration_text(given.ttl)),
    }
    if given.alt_names:
        body["alt_names"] = _joined(given.alt_names, (*where, "alt_names"), find)
    return EntitlementTemplate(
        name=name,
        kind=EntitlementKind.PKI,
        mount=given.mount,
        path=_role_path(given.operation, given.role, (*where, "role"), find),
        method="POST",
        body=body,
        proof=ProofLevel.CRL if listed else ProofLevel.LEASE,
        revocable=listed,
        ceiling=given.ttl,
        key_field=KeyField.CSR if signs else None,
    )


def _ssh(name: str, given: SshSchema, find: Find) -> EntitlementTemplate:
    where = ("scope", name, "ssh")
    _of_an_engine(given.mount, (*where, "mount"), find)
    signs = given.operation == "sign"
    body: dict[str, BodyTemplate] = {}
    if given.principals:
        body["valid_principals"] = _joined(given.principals, (*where, "principals"), find)
    if given.ttl is not None:
        body["ttl"] = plain(duration_text(given.ttl))
    if given.ip is not None:
        body["ip"] = _text(given.ip, (*where, "ip"), find)
    if given.username is not None:
        body["username"] = _text(given.username, (*where, "username"), find)
    operation = "sign" if signs else "creds"
    return EntitlementTemplate(
        name=name,
        kind=EntitlementKind.SSH,
        mount=given.mount,
        path=_role_path(operation, given.role, (*where, "role"), find),
        method="POST",
        body=body,
        proof=ProofLevel.LEASE,
        revocable=not signs,
        ceiling=given.ttl,
        key_field=KeyField.PUBLIC_KEY if signs else None,
    )


def _path(text: str, where: Steps, find: Find) -> Template:
    try:
        return parse_path(text)
    except ValueError as error:
        find(where, str(error), "write for example creds/orders-{region}")
        return _NOTHING


def _role_path(operation: str, role: str, where: Steps, find: Find) -> Template:
    if "/" in role:
        find(where, f"{quoted(role)} is more than one segment", "write the role's name alone")
    return _path(f"{operation}/{role}", where, find)


def _text(text: str, where: Steps, find: Find) -> Template:
    try:
        return parse_text(text)
    except ValueError as error:
        find(where, str(error), _STAR if "*" in {text[:1], text[-1:]} else _BRACES)
        return _NOTHING


def _joined(texts: tuple[str, ...], where: Steps, find: Find) -> Template:
    for index, text in enumerate(texts):
        _text(text, (*where, index), find)
    return _text(",".join(texts), where, lambda *_finding: None)  # found above, each at its place


def _statements(texts: tuple[str, ...], where: Steps, find: Find) -> tuple[Template, ...]:
    statements = []
    for index, text in enumerate(texts):
        try:
            statements.append(parse_statement(text))
        except ValueError as error:
            find((*where, index), str(error), "double braces are Vault's, single ones an enum's")
    return tuple(statements)


def _typed(value: object, where: Steps, find: Find) -> BodyTemplate:
    """Type a body's scalars: plain true, false and digits as such, everything else as text."""
    if isinstance(value, Mapping):
        return {key: _typed(inner, (*where, key), find) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_typed(inner, (*where, i), find) for i, inner in enumerate(value))
    if not isinstance(value, Scalar):
        raise TypeError("a body is read as mappings, lists and scalars")
    if value.plain and value.text in {"true", "false"}:
        return value.text == "true"
    if value.plain and (number := parse_integer(value.text)) is not None:
        return number
    if value.plain and (guess := yaml_guess(value.text)):
        find(where, f"YAML reads this as {guess}", f"write {quoted(value.text)}")
    return _text(value.text, where, find)
