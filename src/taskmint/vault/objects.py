"""
A plan in, the objects of Vault's API out, each as a path and the fields that it must have: pure.

Only what the plan knows by itself; what hangs on the live server (which connection a database role
uses, which accessor an auth mount has) is added in changes.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from taskmint.model.scope import Json
from taskmint.policy.database import POSTGRESQL_PROBE, USERNAME_TEMPLATE
from taskmint.policy.plan_objects import AuthRole, DatabaseRole, Plan, TaskDatabaseRole

from .rights import role_fields

ENTITY: Final = "taskmint-daemon"
# Tasks never keep what a probe makes, since it always fails; a lease of it would be a mistake.
_PROBE_TTL: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """
    `path` below /v1/ is read with GET and written with POST; `fields` are what is compared.

    `kind` is a word for people: policy, token role, auth role, entity, database role, connection.
    """

    kind: str
    name: str
    path: str
    fields: Mapping[str, Json]


def planned_objects(plan: Plan) -> Iterator[PlannedObject]:
    """Yield them in the order in which they can be written."""
    for name in sorted(plan.policies):
        text = plan.policies[name].text
        yield PlannedObject("policy", name, f"sys/policies/acl/{name}", {"policy": text})
    for name in sorted(plan.token_roles):
        fields = role_fields(plan.token_roles[name])
        yield PlannedObject("token role", name, f"auth/token/roles/{name}", fields)
    if plan.auth_role is not None:
        yield _auth_role(plan.auth_role)
    if has_alias(plan):
        path = f"identity/entity/name/{ENTITY}"
        yield PlannedObject("entity", ENTITY, path, {"policies": [], "disabled": False})


def has_alias(plan: Plan) -> bool:
    """
    Say whether the daemon's entity and alias are planned: with JWT auth, by its SPIFFE ID.

    Cert auth names an alias by the certificate's common name, AppRole by the role id.
    """
    return plan.auth_role is not None and plan.auth_role.method == "jwt"


def probe_object(role: DatabaseRole | TaskDatabaseRole, connection: str) -> PlannedObject:
    """Build the probe role beside a database role, on the same connection."""
    seconds = int(_PROBE_TTL.total_seconds())
    fields: dict[str, Json] = {
        "db_name": connection,
        "creation_statements": [POSTGRESQL_PROBE.strip()],
        "revocation_statements": [],
        "default_ttl": seconds,
        "max_ttl": seconds,
    }
    name = role.probe or ""
    return PlannedObject("database role", name, f"{role.mount}/roles/{name}", fields)


def connection_object(mount: str, name: str) -> PlannedObject:
    """Build what a connection must have, so that user names carry the task's id."""
    fields: dict[str, Json] = {"username_template": USERNAME_TEMPLATE}
    return PlannedObject("connection", name, f"{mount}/config/{name}", fields)


def _auth_role(role: AuthRole) -> PlannedObject:
    audiences: list[Json] = [role.audience]
    policies: list[Json] = [*role.policies]
    fields: dict[str, Json] = {
        "token_policies": policies,
        "token_no_default_policy": True,
        "token_period": int(role.period.total_seconds()),
        "token_explicit_max_ttl": int(role.explicit_max_ttl.total_seconds()),
        "token_type": "service",
    }
    kind = "certs" if role.method == "cert" else "role"
    if role.method == "cert":
        subjects: list[Json] = [role.subject]
        fields["allowed_uri_sans"] = subjects
    elif role.method == "jwt":
        fields |= {
            "role_type": "jwt",
            "bound_audiences": audiences,
            "bound_subject": role.subject,
            "user_claim": "sub",
        }
    else:
        fields["bind_secret_id"] = True
    return PlannedObject("auth role", role.name, f"auth/{role.mount}/{kind}/{role.name}", fields)
