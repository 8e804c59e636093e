"""The plan and what Vault holds in, the requests that bring them together out: pure."""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from taskmint.model.scope import Json
from taskmint.model.task_id import parse_revision_name
from taskmint.policy.names import DATABASE_PREFIX
from taskmint.policy.plan_objects import Plan

from .live import OURS, Fields, Live
from .objects import (
    ENTITY,
    PlannedObject,
    connection_object,
    has_alias,
    planned_objects,
    probe_object,
)

_POSTGRESQL: Final = "postgresql-"
_MYSQL: Final = "mysql-"
TASK_ROLES: Final = f"{DATABASE_PREFIX}*"


@dataclass(frozen=True, slots=True)
class Change:
    """
    One request that brings the server nearer to the plan, and its difference line by line.

    `alias_of` is set for an entity alias: its `canonical_id` is known only when it is written.
    """

    verb: str  # create, update, remove
    kind: str
    name: str
    method: str
    path: str
    body: Mapping[str, Json] | None
    lines: tuple[str, ...]
    alias_of: str | None = None


def changes(plan: Plan, live: Live, *, prune: bool) -> tuple[Change, ...]:
    """List what to write, in order; with `prune` also what the plan no longer names."""
    found = [
        change
        for item in planned_objects(plan)
        if not lacks_certificate(plan, live, item)
        and (change := _change(item, live.objects.get(item.path))) is not None
    ]
    found += _alias(plan, live)
    found += _connections(plan, live)
    found += _probes(plan, live)
    if prune:
        found += (
            Change("remove", kind, name, "DELETE", path, None, (f"- {path}",))
            for kind, name, path in stale(plan, live)
        )
    return tuple(found)


def stale(plan: Plan, live: Live) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, name, path) of what bears our name and is not in the plan."""
    planned = {name.lower() for name in plan.policies}
    ours = {name for name in live.policy_names if name.startswith(OURS)}
    if plan.writes_policies:  # those of single tasks come and go; `standing` looks at them
        ours = {name for name in ours if parse_revision_name(name.rpartition(".")[2]) is None}
    for name in sorted(ours - planned):
        yield "policy", name, f"sys/policies/acl/{name}"
    for name in sorted(live.token_role_names - plan.token_roles.keys()):
        yield "token role", name, f"auth/token/roles/{name}"


def lacks_certificate(plan: Plan, live: Live, item: PlannedObject) -> bool:
    """Say whether this is a certificate role still to be made: only an admin has the CA for it."""
    role = plan.auth_role
    is_cert = role is not None and role.method == "cert" and item.kind == "auth role"
    return is_cert and live.objects.get(item.path) is None


def _change(item: PlannedObject, live: Fields | None) -> Change | None:
    held = {} if live is None else {name: live.get(name) for name in item.fields}
    if live is not None and all(_same(item.fields[name], held[name]) for name in item.fields):
        return None
    return Change(
        "create" if live is None else "update",
        item.kind,
        item.name,
        "POST",
        item.path,
        item.fields,
        _lines(held, item.fields),
    )


def _same(wanted: Json, given: Json) -> bool:
    if isinstance(wanted, list):
        return sorted(map(str, wanted)) == sorted(
            map(str, given if isinstance(given, list) else ())
        )
    return wanted == given or not (wanted or given)


def _lines(held: Fields, wanted: Fields) -> tuple[str, ...]:
    compared = difflib.unified_diff(_text(held), _text(wanted), lineterm="", n=1)
    return tuple(line for line in compared if not line.startswith(("---", "+++", "@@")))


def _text(fields: Fields) -> list[str]:
    lines: list[str] = []
    for name in sorted(fields):
        value = fields[name]
        items = value if isinstance(value, list) and len(value) == 1 else [value]
        if isinstance(items[0], str) and "\n" in items[0]:
            lines += (f"{name}:", *(f"  {line}" for line in items[0].splitlines()))
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    return lines


def _alias(plan: Plan, live: Live) -> Iterator[Change]:
    role = plan.auth_role
    if (
        role is None
        or role.subject is None
        or not has_alias(plan)
        or role.mount not in live.auth_mounts
    ):
        return
    accessor = live.auth_mounts[role.mount].get("accessor")
    entity = live.objects.get(f"identity/entity/name/{ENTITY}") or {}
    aliases = entity.get("aliases")
    for alias in aliases if isinstance(aliases, list) else ():
        if isinstance(alias, dict) and (alias.get("name"), alias.get("mount_accessor")) == (
            role.subject,
            accessor,
        ):
            return
    body: dict[str, Json] = {"name": role.subject, "mount_accessor": accessor}
    yield Change(
        "create",
        "entity alias",
        role.subject,
        "POST",
        "identity/entity-alias",
        body,
        _lines({}, body),
        alias_of=ENTITY,
    )


def _connections(plan: Plan, live: Live) -> Iterator[Change]:
    for (mount, name), data in sorted(live.connections.items()):
        if data is None or not is_postgresql(data):
            continue
        item = connection_object(mount, name)
        details = data.get("connection_details")
        held = (
            {"username_template": details.get("username_template")}
            if isinstance(details, dict)
            else {}
        )
        fields = dict(item.fields)
        allowed = data.get("allowed_roles")
        names = dict.fromkeys(_roles_on(plan, live, mount, name))
        lacking = [name for name in names if not _allowed(allowed, name)]
        if lacking and isinstance(allowed, list):
            fields["allowed_roles"] = [*allowed, *lacking]
            held["allowed_roles"] = allowed
        if held != fields:
            yield Change("update", item.kind, name, "POST", item.path, fields, _lines(held, fields))


def _probes(plan: Plan, live: Live) -> Iterator[Change]:
    for role in plan.database_roles:
        data = live.database_roles.get((role.mount, role.name))
        if role.probe is None or data is None:
            continue
        item = probe_object(role, str(data.get("db_name")))
        if (change := _change(item, live.objects.get(item.path))) is not None:
            yield change
    items: dict[str, PlannedObject] = {}
    for own in plan.task_roles:
        if own.probe is not None and live.connections.get((own.mount, own.connection)) is not None:
            item = probe_object(own, own.connection)
            items[item.path] = item
    for path, item in items.items():
        if (change := _change(item, live.objects.get(path))) is not None:
            yield change


def _roles_on(plan: Plan, live: Live, mount: str, connection: str) -> Iterator[str]:
    """Yield the names that a connection must allow: probes, and what is written for tasks."""
    for role in plan.database_roles:
        data = live.database_roles.get((role.mount, role.name))
        if role.probe and role.mount == mount and (data or {}).get("db_name") == connection:
            yield role.probe
    for own in plan.task_roles:
        if (own.mount, own.connection) == (mount, connection):
            yield TASK_ROLES
            if own.probe:
                yield own.probe


def _allowed(patterns: Json, name: str) -> bool:
    texts = map(str, patterns) if isinstance(patterns, list) else ()
    return any(fnmatchcase(name, pattern) for pattern in texts)


def is_postgresql(connection: Fields) -> bool:
    return str(connection.get("plugin_name")).startswith(_POSTGRESQL)


def is_mysql(connection: Fields) -> bool:
    """Say whether a connection is by a plugin for MySQL or MariaDB."""
    return str(connection.get("plugin_name")).startswith(_MYSQL)
