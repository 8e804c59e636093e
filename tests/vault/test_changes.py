"""From what Vault holds to what must be written, and to what an admin must see to: pure."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from taskmint.model.scope import Json, ProofLevel
from taskmint.policy.database import POSTGRESQL_CREATION, POSTGRESQL_REVOCATION, USERNAME_TEMPLATE
from taskmint.policy.mysql import MARIADB_CREATION, MARIADB_REVOCATION
from taskmint.policy.plan_objects import Plan
from taskmint.vault.changes import changes
from taskmint.vault.findings import findings, notes
from taskmint.vault.live import Live
from taskmint.vault.objects import planned_objects, probe_object
from vault.ground import DAEMON, POLICY, plan_from

PLAN = plan_from(POLICY.replace("MOUNT", "warehouse"))
ROLE: dict[str, Json] = {
    "db_name": "orders",
    "default_ttl": 60,
    "max_ttl": 3600,
    "creation_statements": [POSTGRESQL_CREATION],
    "revocation_statements": [POSTGRESQL_REVOCATION],
}
CONNECTION: dict[str, Json] = {
    "plugin_name": "postgresql-database-plugin",
    "allowed_roles": ["*"],
    "connection_details": {"username_template": USERNAME_TEMPLATE},
}


def in_place() -> Live:
    """A server that holds the plan, with nothing to complain about."""
    objects: dict[str, Any] = {item.path: dict(item.fields) for item in planned_objects(PLAN)}
    alias: dict[str, Json] = {"name": DAEMON, "mount_accessor": "auth_jwt_1"}
    objects["identity/entity/name/taskmint-daemon"] = {"aliases": [alias]}
    for role in PLAN.database_roles:
        probe = probe_object(role, "orders")
        objects[probe.path] = dict(probe.fields)
    return Live(
        objects=objects,
        mounts={
            "warehouse": {"type": "database", "config": {"max_lease_ttl": 0}},
            "transit-warehouse": {"type": "transit"},
        },
        auth_mounts={"jwt": {"accessor": "auth_jwt_1"}, "token": {"accessor": "auth_token_1"}},
        database_roles={(role.mount, role.name): ROLE for role in PLAN.database_roles},
        connections={("warehouse", "orders"): CONNECTION},
        policy_names=frozenset(PLAN.policies) | {"reader", "default"},
        token_role_names=frozenset(PLAN.token_roles),
        others={},
    )


def with_role(**changed: Json) -> Live:
    """One database role changed."""
    held = in_place()
    key = ("warehouse", "orders-ro-eu")
    return replace(held, database_roles={**held.database_roles, key: {**ROLE, **changed}})


def with_connection(**changed: Json) -> Live:
    """The connection changed."""
    key = ("warehouse", "orders")
    return replace(in_place(), connections={key: {**CONNECTION, **changed}})


def found(live: Live, plan: Plan = PLAN) -> list[str]:
    """The findings."""
    return list(findings(plan, live))


def test_nothing_to_do() -> None:
    """Where the plan is in place, no change and no finding."""
    assert changes(PLAN, in_place(), prune=True) == ()
    assert found(in_place()) == []


def test_an_empty_server_gets_everything_in_order() -> None:
    """Policies before the roles that name them, the entity before its alias."""
    empty = Live(
        objects={},
        mounts={},
        auth_mounts={"jwt": {"accessor": "auth_jwt_1"}},
        database_roles={},
        connections={},
        policy_names=frozenset(),
        token_role_names=frozenset(),
        others={},
    )
    made = changes(PLAN, empty, prune=False)
    kinds = [change.kind for change in made]
    assert kinds == sorted(
        kinds, key=["policy", "token role", "auth role", "entity", "entity alias"].index
    )
    assert {change.verb for change in made} == {"create"}
    assert made[-1].alias_of == "taskmint-daemon"
    assert found(empty) == [
        "policy reader, which taskmint-hand-visitor.vault hands out, does not exist",
        "secrets engine transit-warehouse is not mounted",
        "secrets engine warehouse is not mounted",
    ]


def test_without_its_auth_method_there_is_no_alias() -> None:
    """It has no accessor yet; the finding says what to enable."""
    held = replace(in_place(), auth_mounts={})
    assert not [change for change in changes(PLAN, held, prune=False) if change.alias_of]
    assert found(held) == ["auth method jwt is not enabled"]


def test_an_alias_of_somebody_else_is_no_alias() -> None:
    """Another subject, or another mount's, does not count."""
    held = in_place()
    others: list[dict[str, Json]] = [
        {"name": "x", "mount_accessor": "auth_jwt_1"},
        {"name": DAEMON},
    ]
    for alias in others:
        path = "identity/entity/name/taskmint-daemon"
        other = replace(held, objects={**held.objects, path: {"aliases": [alias]}})
        (change,) = changes(PLAN, other, prune=False)
        assert change.body == {"name": DAEMON, "mount_accessor": "auth_jwt_1"}


@pytest.mark.parametrize(
    ("changed", "written"),
    [
        (
            {"connection_details": {"username_template": "{{.RoleName}}"}},
            {"username_template": USERNAME_TEMPLATE},
        ),
        ({"connection_details": {}}, {"username_template": USERNAME_TEMPLATE}),
        (
            {"allowed_roles": ["orders-*"]},
            {
                "username_template": USERNAME_TEMPLATE,
                "allowed_roles": [
                    "orders-*",
                    "taskmint-probe-orders-ro-eu",
                    "taskmint-probe-orders-ro-us",
                ],
            },
        ),
        ({"allowed_roles": ["taskmint-probe-*"]}, None),
        ({"plugin_name": "mysql-database-plugin", "connection_details": {}}, None),
    ],
)
def test_a_connection_gets_a_template_and_its_probes(
    changed: dict[str, Json], written: dict[str, Json] | None
) -> None:
    """Only these two fields of an admin's connection are ever written, PostgreSQL's only."""
    made = changes(PLAN, with_connection(**changed), prune=False)
    assert [change.body for change in made] == ([] if written is None else [written])


def test_a_probe_follows_its_role() -> None:
    """When a role moves to another connection, its probe does."""
    held = with_role(db_name="replica")
    held = replace(held, connections={**held.connections, ("warehouse", "replica"): CONNECTION})
    (change,) = changes(PLAN, held, prune=False)
    assert change.path == "warehouse/roles/taskmint-probe-orders-ro-eu"
    assert '+db_name = "replica"' in change.lines
    assert len([line for line in change.lines if line[0] in "+-"]) == 2


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"default_ttl": 0}, "its default_ttl is 0 s, and the dead-man interval is 60 s (P6)"),
        ({"default_ttl": 30}, "its default_ttl is 30 s, and the dead-man interval is 60 s (P6)"),
        ({"max_ttl": 900}, "its max_ttl is 900 s, and the longest deadline is 1800 s"),
        ({"max_ttl": 9e6}, "its max_ttl is 9000000 s, and the mount's maximum is 2764800 s"),
        ({"db_name": "none"}, "its connection none does not exist"),
        (
            {"creation_statements": ["CREATE ROLE x VALID UNTIL '{{expiration}}' CREATEDB"]},
            "its creation gives CREATEDB",
        ),
    ],
)
def test_findings_of_a_database_role(changed: dict[str, Json], problem: str) -> None:
    """The inequality of the clocks, and what a task could do with its account."""
    assert found(with_role(**changed)) == [f"database role warehouse/orders-ro-eu: {problem}"]


def test_a_role_that_does_not_exist() -> None:
    """Named; it is the admin's to make."""
    held = in_place()
    roles = {**held.database_roles, ("warehouse", "orders-ro-us"): None}
    assert found(replace(held, database_roles=roles)) == [
        "database role warehouse/orders-ro-us: does not exist"
    ]


def test_a_proof_that_only_postgresql_gives() -> None:
    """Sessions are promised on a database for which no probe is known."""
    mysql = with_connection(plugin_name="mysql-database-plugin", connection_details={})
    maria: dict[str, Json] = {
        "creation_statements": [MARIADB_CREATION],
        "revocation_statements": [MARIADB_REVOCATION],
    }
    held = replace(
        mysql,
        database_roles={
            key: {**(role or {}), **maria} for key, role in mysql.database_roles.items()
        },
    )
    assert {line.rpartition(": ")[2] for line in found(held)} == {
        "sessions is promised, and proven for PostgreSQL only"
    }
    assert any("never locks the account" in line for line in found(mysql))
    other = with_connection(plugin_name="redis-database-plugin", connection_details={})
    assert {line.rpartition(": ")[2] for line in found(other)} == {
        "sessions is promised, and proven for PostgreSQL, MySQL and MariaDB only"
    }


def test_vaults_own_revocation_is_no_finding_where_only_the_lease_is_promised() -> None:
    """`lease` is what it says; `login` and `sessions` need statements that disable the login."""
    plan = plan_from(POLICY.replace("MOUNT", "warehouse").replace(", proof: sessions", ""))
    bare = with_role(revocation_statements=[])
    assert [line for line in found(bare, plan) if "revocation" in line] == []
    assert {role.proof for role in plan.database_roles} == {ProofLevel.LEASE}
    assert {role.deadline_max for role in plan.database_roles} == {timedelta(minutes=30)}


@pytest.mark.parametrize(
    ("pattern", "reaches"),
    [
        ("*", True),
        ("warehouse/*", True),
        ("warehouse/creds/orders-ro-eu", True),
        ("warehouse/creds/orders-*", True),
        ("warehouse/+/orders-ro-eu", True),
        ("+/creds/+", True),
        ("+/+/orders*", True),
        ("warehouse/creds/+/x", False),
        ("warehouse/creds", False),
        ("warehouse/roles/*", False),
        ("ware", False),
        ("warehouse.creds/orders-ro-eu", False),
    ],
)
def test_other_policies_that_reach_what_the_plan_mints(pattern: str, *, reaches: bool) -> None:
    """Noted by name and path; whoever has such a policy needs no task."""
    text = f'# ops\npath "{pattern}" {{\n  capabilities = ["read"]\n}}\n'
    held = replace(in_place(), others={"ops": text})
    found_notes = list(notes(PLAN, held))
    assert found(held) == []
    assert len(found_notes) == (1 if reaches else 0)
    assert all(note.startswith("policy ops reaches ") for note in found_notes)


KINDS = (
    POLICY.replace("MOUNT", "warehouse")
    + """\
  door:
    owner: team-orders@example.org
    class: batch
    who: ["spiffe://example.org/ns/orders/sa/door"]
    deadline: {default: 5m, max: 30m}
    ends: {bind: [peer]}
    scope:
      pass: {ssh: {mount: ssh, role: otp, operation: otp, ip: 10.1.2.3, username: ubuntu}}
      key: {ssh: {mount: ssh, role: ops, operation: sign, principals: [deploy], ttl: 10m}}
      books:
        database: {mount: warehouse, connection: tasks, creation: [CREATION], revocation: [b]}
"""
)


def test_what_nothing_but_vault_ends_is_noted_and_no_finding() -> None:
    """A task whose mint of it was not answered can never be proven ended (tasks/unheard.py)."""
    said = " has no clock of its own: a task whose mint is not answered stays revoking"
    held = with_role(creation_statements=[MARIADB_CREATION])
    assert list(notes(PLAN, held)) == [f"warehouse/roles/orders-ro-eu{said}"]
    lasting = with_role(default_ttl=0)
    assert list(notes(PLAN, lasting)) == [f"warehouse/roles/orders-ro-eu{said}"]
    assert list(notes(PLAN, in_place())) == []

    plan = plan_from(KINDS.replace("CREATION", "CREATE USER x"))
    of_the_task = f"warehouse/roles/taskmint-db-door.books{said}"
    assert list(notes(plan, in_place())) == [f"ssh/roles/otp{said}", of_the_task]
    ends = json.dumps("CREATE ROLE x VALID UNTIL '{{expiration}}'")
    plan = plan_from(KINDS.replace("CREATION", ends))
    assert list(notes(plan, in_place())) == [f"ssh/roles/otp{said}"]
