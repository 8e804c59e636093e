"""What the plan says of the objects that somebody else keeps, and of itself: each fact stated."""

from datetime import timedelta
from typing import Any

import pytest

from policy.asking import REPORT, load
from policy.test_entitlement import DATABASE, SECRET
from taskmint.model.scope import EntitlementKind, ProofLevel
from taskmint.policy.acl import Rule, merge, parse
from taskmint.policy.enumerate import enumerate_definitions
from taskmint.policy.plan import DAEMON_TOKEN_MAX, DAEMON_TOKEN_PERIOD, plan_of
from taskmint.policy.plan_objects import (
    AuthMethod,
    AuthRole,
    DatabaseRole,
    IssuingRole,
    Plan,
    PlanSettings,
    TaskDatabaseRole,
)
from taskmint.policy.plan_rules import daemon_rules, entitlements_of, standing_role

DAEMON = "spiffe://example.org/taskmint"
TAKEN_BACK = {"lease_id": "gone/creds/x/1", "sync": True}


def task(name: str, **entitlements: str) -> str:
    """A task of this name with these entitlements."""
    lines = "".join(f"      {each}:\n        {text}\n" for each, text in entitlements.items())
    body = REPORT.split("tasks:\n")[1].replace("report:", f"{name}:")
    return body.split("      warehouse:")[0] + lines


def planned(*tasks: str, **settings: Any) -> Plan:
    """The plan of these tasks."""
    policy = load("version: 1\ntasks:\n" + "".join(tasks))
    return plan_of(enumerate_definitions(policy), PlanSettings(**settings))


@pytest.fixture(name="plan")
def a_plan() -> Plan:
    """Of one of each; made anew for each test, so that a mutation run knows who sees it made."""
    return planned(
        task(
            "a",
            token="token: {policy: reader}",
            cert="pki: {mount: pki, role: web, common_name: x, ttl: 20m, proof: crl}",
            kv="secret: {mount: kv, path: 'data/{region}', revocable: false}",
            db=SECRET,
            key="ssh: {mount: ssh, role: ops, operation: sign, principals: [x], ttl: 5m}",
        ),
        task(
            "b",
            any="pki: {mount: any, role: '{job}', common_name: y, ttl: 10m}",
            otp="ssh: {mount: ssh, role: otp, operation: otp, ip: 10.0.0.1}",
            cert="pki: {mount: pki, role: web, common_name: y, ttl: 10m}",
            other="pki: {mount: int, role: web, common_name: y, ttl: 10m}",
            db='secret: {mount: database, path: "creds/ro-{region}", proof: sessions}',
            deep="secret: {mount: deep, path: creds/static/x}",
            free='secret: {mount: free, path: "creds/{job}"}',
            list="secret: {mount: kv, path: other/eu, revocable: false}",
        ).replace("max: 30m", "max: 20m"),
        task("c", made=DATABASE),
        spiffe_id=DAEMON,
    )


def test_each_issuing_role_is_expected_once_with_the_shortest_life(plan: Plan) -> None:
    """Of all that name it; listed when any of them is; unknown names expect no role."""
    pki, ssh = EntitlementKind.PKI, EntitlementKind.SSH
    five, ten = timedelta(minutes=5), timedelta(minutes=10)
    assert plan.issuing_roles == (
        IssuingRole(pki, "int", "web", "issue", ten, listed=False),
        IssuingRole(pki, "pki", "web", "issue", ten, listed=True),
        IssuingRole(ssh, "ssh", "ops", "sign", five, listed=False),
        IssuingRole(ssh, "ssh", "otp", "creds", None, listed=False),
    )


def test_each_database_role_is_expected_with_the_strictest_of_its_users(plan: Plan) -> None:
    """The longest deadline, the strongest proof; by the path's form alone: creds/NAME."""
    strictest = timedelta(minutes=1), timedelta(minutes=30), ProofLevel.SESSIONS
    assert plan.database_roles == (
        DatabaseRole("database", "ro-eu", *strictest),
        DatabaseRole("database", "ro-us", *strictest),
        DatabaseRole("ssh", "otp", timedelta(minutes=1), timedelta(minutes=20), ProofLevel.LEASE),
    )


@pytest.mark.parametrize(
    ("path", "body", "permitted"),
    [
        ("pki/issue/web", {"common_name": "x", "ttl": "3m"}, True),
        ("pki/issue/web", {"common_name": "y", "ttl": "3m"}, False),
        ("pki/issue/web", {"common_name": "x"}, False),
        ("ssh/sign/ops", {"valid_principals": "x", "ttl": "9s", "public_key": "ssh-rsa A"}, True),
        ("ssh/sign/ops", {"valid_principals": "y", "ttl": "9s", "public_key": "ssh-rsa A"}, False),
        ("ssh/sign/ops", {"valid_principals": "x", "ttl": "9s"}, False),
    ],
)
def test_a_key_and_what_is_left_of_the_task_may_be_any(
    plan: Plan, path: str, body: dict[str, Any], *, permitted: bool
) -> None:
    """Both are known only when it is minted; the rest of a request is what the policy says."""
    assert plan.permits_task("taskmint-task-a.eu", "POST", path, body) is permitted


def test_a_role_that_is_written_for_a_task_is_known_whole(plan: Plan) -> None:
    """Where, over which connection, how its name begins, and everything that is written."""
    eu, us = plan.task_roles
    assert eu == TaskDatabaseRole(
        mount="database",
        connection="orders-tasks",
        beginning="taskmint-db-c.made.eu",
        fields=eu.fields,
        deadline_max=timedelta(minutes=30),
        proof=ProofLevel.LOGIN,
    )
    assert us.beginning == "taskmint-db-c.made.us"
    assert eu.fields["db_name"] == "orders-tasks"
    assert "GRANT SELECT ON orders_eu" in str(eu.fields["creation_statements"])
    assert plan.permits_daemon("POST", f"database/roles/{eu.beginning}.n-1", eu.fields)
    assert plan.task_object_places == {("database/roles", "taskmint-db-")}
    assert plan.writes_policies is False


def test_each_definition_needs_its_own_part(plan: Plan) -> None:
    """What has to be there before it is served; and the mounts of all of them."""
    policy = load("version: 1\ntasks:\n" + task("c", made=DATABASE))
    need = plan.needs["c"]
    assert need.policies == {"taskmint-task-c.eu", "taskmint-task-c.us"}
    assert need.token_roles == {"taskmint-task-c"}
    assert need.mounts == {"database"}
    assert need.rules == merge(daemon_rules(enumerate_definitions(policy)))
    assert plan.needs.keys() == {"a", "b", "c"}
    assert plan.needs["a"].token_roles == {"taskmint-task-a", "taskmint-hand-a.token"}
    assert plan.definition_of == {f"taskmint-task-{name}": name for name in "abc"}
    assert plan.mounts == {"pki", "kv", "database", "ssh", "int", "any", "deep", "free"}


def test_every_policy_bears_its_own_name(plan: Plan) -> None:
    """The daemon's and the tasks', and its text says what its rules say."""
    for name, policy in plan.policies.items():
        assert policy.name == name
        assert tuple(block.rule for block in parse(policy.text)) == policy.rules


@pytest.mark.parametrize(
    ("method", "path", "body", "permitted"),
    [
        ("GET", "pki/cert/17-09-2f", None, True),
        ("GET", "pki/issuer/default/crl", None, True),
        ("GET", "gone/before/cert/17-09-2f", None, True),
        ("GET", "one/too/many/of/cert/17-09-2f", None, False),
        ("GET", "pki/issuer/default", None, False),
        ("GET", "pki/cert/17/raw", None, False),
        ("LIST", "pki/cert/x", None, False),
        ("POST", "pki/cert/x", None, False),
        ("GET", "pki/cert/x", {"a": 1}, False),
    ],
)
def test_without_a_token_only_the_revocation_list_is_asked_for(
    plan: Plan, method: str, path: str, body: dict[str, Any] | None, *, permitted: bool
) -> None:
    """Read, and nothing else; a mount that the policy has forgotten is asked as well."""
    assert plan.permits_anyone(method, path, body) is permitted


@pytest.mark.parametrize(
    ("path", "body", "permitted"),
    [
        ("sys/leases/revoke", TAKEN_BACK, True),
        ("sys/leases/revoke", TAKEN_BACK | {"sync": False}, False),
        ("sys/leases/revoke", {"lease_id": "gone/creds/x/1"}, False),
        ("sys/leases/lookup", {"lease_id": "gone/creds/x/1"}, True),
        ("sys/leases/lookup", {}, False),
        ("sys/leases/renew", {"lease_id": "gone/creds/x/1", "increment": 1}, False),
        ("sys/leases/revoke-prefix/gone", TAKEN_BACK, False),
    ],
)
def test_a_lease_of_a_mount_that_is_forgotten_can_be_taken_back(
    plan: Plan, path: str, body: dict[str, Any], *, permitted: bool
) -> None:
    """Looked up and revoked, never renewed; whether it may is the server's to say."""
    assert plan.permits_daemon("PUT", path, body) is permitted


@pytest.mark.parametrize(
    ("entitlement", "role"),
    [
        (SECRET.replace("-{region}", ""), "database/roles/ro"),
        ("secret: {mount: db, path: creds/static/x}", None),
        ("secret: {mount: db, path: creds}", None),
        ("secret: {mount: db, path: static-creds/x}", None),
        ("secret: {mount: db, path: creds/x, method: POST}", None),
        ("ssh: {mount: db, role: otp, operation: otp, ip: 10.0.0.1}", None),
        (DATABASE.replace("_{region}", ""), None),
    ],
)
def test_a_standing_role_is_known_by_its_credentials_path(
    entitlement: str, role: str | None
) -> None:
    """Read by GET at creds/NAME: the server lets it be read, and no other."""
    text = "version: 1\ntasks:\n" + task("a", x=entitlement)
    (held,) = entitlements_of(enumerate_definitions(load(text)))

    assert standing_role(held) == role
    own = planned(task("a", x=entitlement)).policies["taskmint-daemon"].rules
    read = [rule for rule in own if "/roles/" in rule.path and "read" in rule.capabilities]
    assert [rule for rule in read if not rule.path.startswith("auth/")] == (
        [] if role is None else [Rule(role, ("read",), {})]
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "permitted"),
    [
        ("GET", "gone/roles/x", None, True),
        ("GET", "gone/before/roles/x", None, True),
        ("GET", "gone/roles/x", {"a": 1}, False),
        ("GET", "gone/roles/x/y", None, False),
        ("GET", "one/too/many/of/roles/x", None, False),
        ("GET", "gone/config/x", None, False),
        ("DELETE", "gone/roles/x", None, False),
    ],
)
def test_the_role_of_a_mount_that_is_forgotten_can_be_read(
    plan: Plan, method: str, path: str, body: dict[str, Any] | None, *, permitted: bool
) -> None:
    """Its clock tells when an account ends whose answer was lost."""
    assert plan.permits_daemon(method, path, body) is permitted


@pytest.mark.parametrize(
    ("method", "subject"), [("jwt", DAEMON), ("cert", DAEMON), ("approle", None)]
)
def test_the_auth_role_is_written_in_full(method: AuthMethod, subject: str | None) -> None:
    """For the methods that have one; an AppRole has no subject."""
    made = planned(
        REPORT.split("tasks:\n")[1],
        method=method,
        mount="here",
        role="minter",
        audience="v",
        spiffe_id=DAEMON,
    )
    assert made.auth_role == AuthRole(
        method=method,
        mount="here",
        name="minter",
        audience="v",
        subject=subject,
        policies=("taskmint-daemon",),
        period=DAEMON_TOKEN_PERIOD,
        explicit_max_ttl=DAEMON_TOKEN_MAX,
    )


@pytest.mark.parametrize(
    ("method", "spiffe_id", "present"),
    [
        ("jwt", None, False),
        ("cert", None, False),
        ("approle", None, True),
        ("token", None, False),
        ("token", DAEMON, False),
    ],
)
def test_without_a_name_of_its_own_there_is_no_auth_role(
    method: str, spiffe_id: str | None, *, present: bool
) -> None:
    """JWT and cert auth bind one; a token from a file needs no role."""
    made = planned(REPORT.split("tasks:\n")[1], method=method, spiffe_id=spiffe_id)
    assert (made.auth_role is not None) is present
