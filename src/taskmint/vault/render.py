"""
A plan in, text for people and their tools out: HCL, Terraform's JSON form, or plain JSON.

HCL shows policies as Vault keeps them and everything else as comments; Terraform and JSON are
complete, but for the database parts that hang on the live server.
"""

import json
from collections.abc import Mapping
from typing import Final

from taskmint.model.scope import Json
from taskmint.policy.database import POSTGRESQL_PROBE, USERNAME_TEMPLATE
from taskmint.policy.plan_objects import Plan

from .objects import ENTITY, PlannedObject, has_alias, planned_objects

_TERRAFORM: Final[Mapping[str, str]] = {
    "policy": "vault_policy",
    "token role": "vault_token_auth_backend_role",
    "auth role": "vault_jwt_auth_backend_role",
    "entity": "vault_identity_entity",
}
_AUTH_ROLES: Final[Mapping[str, str]] = {
    "approle": "vault_approle_auth_backend_role",
    "cert": "vault_cert_auth_backend_role",
}
_READ_ONLY: Final = frozenset(
    {"allowed_policies_glob", "disallowed_policies", "disallowed_policies_glob"}
)


def hcl(plan: Plan) -> str:
    """Write the policies as HCL, one after the other, and the rest as comments."""
    parts = [f"# The plan {plan.digest}.\n"]
    for item in planned_objects(plan):
        if item.kind == "policy":
            parts.append(f"# {item.path}\n{item.fields['policy']}")
        else:
            fields = [f"#   {name} = {json.dumps(value)}" for name, value in item.fields.items()]
            parts.append("\n".join([f"# {item.kind} {item.path}", *fields, ""]))
    for role in plan.database_roles:
        probe = f"; beside it {role.mount}/roles/{role.probe}" if role.probe else ""
        parts.append(
            f"# expected, if {role.mount} is a database engine: {role.mount}/roles/{role.name}\n"
            f"#   default_ttl = {int(role.dead_man.total_seconds())}\n"
            f"#   max_ttl at least {int(role.deadline_max.total_seconds())}{probe}\n"
        )
    for own in plan.task_roles:
        fields = [f"#   {name} = {json.dumps(value)}" for name, value in own.fields.items()]
        head = f"# written for each task, and deleted: {own.mount}/roles/{own.beginning}.*"
        parts.append("\n".join([head, *fields, ""]))
    return "\n".join(parts)


def plain_json(plan: Plan) -> str:
    """Write everything as one JSON document."""
    database: list[Json] = [
        {
            "path": f"{role.mount}/roles/{role.name}",
            "default_ttl": int(role.dead_man.total_seconds()),
            "max_ttl_at_least": int(role.deadline_max.total_seconds()),
            "proof": role.proof,
            "probe": role.probe,
        }
        for role in plan.database_roles
    ]
    document = {
        "digest": plan.digest,
        "objects": [
            {"kind": item.kind, "name": item.name, "path": item.path, "fields": dict(item.fields)}
            for item in planned_objects(plan)
        ],
        "expected_database_roles": database,
        "task_database_roles": [
            {"path": f"{own.mount}/roles/{own.beginning}.*", "fields": dict(own.fields)}
            for own in plan.task_roles
        ],
        "username_template": USERNAME_TEMPLATE,
        "probe_creation_statement": POSTGRESQL_PROBE,
    }
    return json.dumps(document, indent=2) + "\n"


def terraform(plan: Plan) -> str:
    """Write a .tf.json file for the `vault` provider, which OpenBao answers as well."""
    resources: dict[str, dict[str, Json]] = {}
    role = plan.auth_role
    for item in planned_objects(plan):
        kind = _TERRAFORM[item.kind]
        if role is not None and item.kind == "auth role":
            kind = _AUTH_ROLES.get(role.method, kind)
        resources.setdefault(kind, {})[_identifier(item.name)] = _arguments(item)
    if role is not None and has_alias(plan):
        mount = _identifier(role.mount)
        alias: dict[str, Json] = {
            "name": role.subject,
            "mount_accessor": f"${{data.vault_auth_backend.{mount}.accessor}}",
            "canonical_id": f"${{vault_identity_entity.{_identifier(ENTITY)}.id}}",
        }
        resources["vault_identity_entity_alias"] = {_identifier(ENTITY): alias}
        data = {"vault_auth_backend": {mount: {"path": role.mount}}}
        return json.dumps({"data": data, "resource": resources}, indent=2) + "\n"
    return json.dumps({"resource": resources}, indent=2) + "\n"


def _arguments(item: PlannedObject) -> dict[str, Json]:
    fields = {name: value for name, value in item.fields.items() if name not in _READ_ONLY}
    if item.kind == "policy":
        return {"name": item.name, "policy": _literal(str(fields["policy"]))}
    if item.kind == "token role":
        return {"role_name": item.name, **{key: value for key, value in fields.items() if value}}
    if item.kind == "auth role":
        mount = item.path.split("/")[1]
        return {"role_name": item.name, "backend": mount, **fields}
    return {"name": item.name, **fields}


def _literal(text: str) -> str:
    return text.replace("${", "$${").replace("%{", "%%{")


def _identifier(name: str) -> str:
    return name.replace(".", "_").replace("/", "_")
