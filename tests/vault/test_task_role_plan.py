"""What is planned, compared, checked and reported about roles that exist for one task: pure."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from taskmint.model.scope import Json
from taskmint.model.task_id import TaskId, born, new_task_id, parse_revision_name, revision_name
from taskmint.policy.acl import Rule, parse
from taskmint.policy.database import POSTGRESQL_REVOCATION, USERNAME_TEMPLATE
from taskmint.policy.plan_objects import Plan, PlanSettings
from taskmint.vault.changes import changes
from taskmint.vault.findings import findings
from taskmint.vault.live import Live
from taskmint.vault.objects import planned_objects, probe_object
from taskmint.vault.render import hcl, plain_json, terraform
from taskmint.vault.standing import (
    Found,
    FoundObject,
    LiveTasks,
    leftovers,
    objects_of_node,
)
from vault.ground import KEEPER, NODE, plan_from

HEAD = "version: 1\ntasks:\n"
TEXT = (HEAD + KEEPER).replace("MOUNT", "warehouse")
EU = "warehouse/roles/taskmint-db-keeper.books.eu"
NOW = datetime(2026, 12, 2, 12, tzinfo=UTC)
CONNECTION: dict[str, Json] = {
    "plugin_name": "postgresql-database-plugin",
    "allowed_roles": ["taskmint-db-*", "taskmint-probe-db.tasks"],
    "connection_details": {"username_template": USERNAME_TEMPLATE, "username": "vault"},
}
OWN = "roles of single tasks have a connection of their own"
MOUNT: dict[str, Json] = {"type": "database", "config": {"max_lease_ttl": 0}}


def name_of(age: timedelta, node: str = NODE) -> tuple[str, TaskId]:
    """The name of a task's first revision, and the task, made so long ago."""
    task = new_task_id(int((NOW - age).timestamp() * 1000), bytes(10))
    return revision_name(node, task, 1), task


@pytest.fixture(name="plan")
def a_plan() -> Plan:
    """
    Without an auth role and an entity, which these tests are not about.

    Made anew for each test, so that a mutation run knows who sees it made.
    """
    return plan_from(TEXT, PlanSettings())


def live(
    plan: Plan,
    connection: Mapping[str, Json] | None = CONNECTION,
    mount: Mapping[str, Json] = MOUNT,
) -> Live:
    """A server that holds the plan, over this connection."""
    objects = {item.path: dict(item.fields) for item in planned_objects(plan)}
    probe = probe_object(plan.task_roles[0], "tasks")
    return Live(
        objects={**objects, probe.path: dict(probe.fields)},
        mounts={"warehouse": mount},
        auth_mounts={},
        database_roles={},
        connections={("warehouse", "tasks"): connection},
        policy_names=frozenset(plan.policies),
        token_role_names=frozenset(plan.token_roles),
        others={},
    )


def test_names_tell_node_and_task() -> None:
    """Also of a node with dashes; and the id tells when it was made."""
    name, task = name_of(timedelta(hours=1), "a-b-c")
    assert parse_revision_name(name) == ("a-b-c", task)
    assert born(task) == (NOW - timedelta(hours=1)).timestamp()
    for other in ("", "x", name + "x", name[:-2], f"A-{task[3:]}-1", f"a-{task[3:]}-0", f"-{name}"):
        assert parse_revision_name(other) is None, other


def test_the_daemon_may_write_exactly_the_planned_roles(plan: Plan) -> None:
    """P3: create and delete by beginning, every field required and pinned as a whole."""
    (policy,) = (plan.policies[name] for name in plan.daemon_policies)
    rules = {rule.path: rule for rule in policy.rules}
    eu = rules[f"{EU}.*"]
    assert eu.capabilities == ("create", "delete")
    assert eu.required == tuple(sorted(eu.parameters))
    assert all(len(values) == 1 for values in eu.parameters.values())
    assert rules["warehouse/roles"] == Rule("warehouse/roles", ("list",), {})
    anything = "warehouse/roles/taskmint-db-*"
    assert rules[anything] == Rule(anything, ("delete",), {})
    assert all(block.rule is not None for block in parse(policy.text))


def test_the_predicate_is_as_narrow(plan: Plan) -> None:
    """P3: the process holds its own requests to the same, and to one segment."""
    (eu,) = (role for role in plan.task_roles if role.beginning.endswith(".eu"))
    (us,) = (role for role in plan.task_roles if role.beginning.endswith(".us"))
    path = f"{EU}.{name_of(timedelta())[0]}"
    permits = plan.permits_daemon
    assert permits("POST", path, eu.fields)
    assert permits("DELETE", path, None)
    assert permits("LIST", "warehouse/roles", None)
    probe = "warehouse/creds/taskmint-probe-db.tasks"
    assert plan.permits_task("taskmint-task-keeper.eu", "GET", probe, None)
    assert permits("DELETE", "warehouse/roles/taskmint-db-former.x.y", None)
    for method, other, body in (
        ("POST", path, us.fields),
        ("POST", path, {**eu.fields, "max_ttl": "1861s"}),
        ("POST", path, {**eu.fields, "extra": "x"}),
        ("POST", path, {"db_name": "tasks"}),
        ("POST", EU, eu.fields),
        ("POST", f"{path}/x", eu.fields),
        ("GET", f"{path}/x", None),
        ("DELETE", path, {"x": 1}),
        ("DELETE", "warehouse/roles/orders-ro-eu", None),
        ("DELETE", "warehouse/roles/taskmint-db-x/y", None),
        ("LIST", "warehouse/creds", None),
    ):
        assert not permits(method, other, body), (method, other)


def test_the_forms_that_people_read(plan: Plan) -> None:
    """HCL and JSON tell what will be written; Terraform holds the rights to it."""
    assert f"# written for each task, and deleted: {EU}.*" in hcl(plan)
    (eu, _) = json.loads(plain_json(plan))["task_database_roles"]
    assert (eu["path"], eu["fields"]["db_name"]) == (f"{EU}.*", "tasks")
    policies = json.loads(terraform(plan))["resource"]["vault_policy"]
    assert f"{EU}.*" in policies["taskmint-daemon"]["policy"]


def test_nothing_to_do_and_nothing_to_find(plan: Plan) -> None:
    """A server that holds it all."""
    assert list(changes(plan, live(plan), prune=True)) == []
    assert list(findings(plan, live(plan))) == []


def test_a_connection_is_opened_to_the_roles_and_their_probe(plan: Plan) -> None:
    """`apply` adds both to what is allowed, once."""
    held = {**CONNECTION, "allowed_roles": []}
    (change,) = changes(plan, live(plan, held), prune=False)
    assert change.body is not None
    assert change.body["allowed_roles"] == ["taskmint-db-*", "taskmint-probe-db.tasks"]


def test_a_probe_that_is_missing_is_written_once(plan: Plan) -> None:
    """Two combinations, one connection, one probe."""
    bare = live(plan)
    objects = {path: data for path, data in bare.objects.items() if "taskmint-probe" not in path}
    (change,) = changes(plan, replace(bare, objects=objects), prune=False)
    assert change.path == "warehouse/roles/taskmint-probe-db.tasks"
    assert change.body is not None
    assert change.body["db_name"] == "tasks"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"allowed_roles": ["taskmint-db-*", "orders-ro-eu", "taskmint-probe-db.tasks"]},
            f"connection warehouse/tasks: also serves orders-ro-eu; {OWN}",
        ),
        (
            {"allowed_roles": ["*"]},
            f"connection warehouse/tasks: also serves *; {OWN}",
        ),
        (
            {"connection_details": {"username": "postgres"}},
            "connection warehouse/tasks: its account is postgres, a superuser",
        ),
    ],
)
def test_findings_of_the_connection(plan: Plan, changed: dict[str, Json], problem: str) -> None:
    """Kept for these roles alone, by an account that is no superuser."""
    assert list(findings(plan, live(plan, {**CONNECTION, **changed}))) == [problem]


def test_a_connection_or_an_engine_that_is_not_there(plan: Plan) -> None:
    """The admin's own to make."""
    (missing,) = findings(plan, live(plan, None))
    assert missing.startswith("connection warehouse/tasks: does not exist; make it for these roles")
    (engine,) = findings(plan, live(plan, None, {"type": "kv"}))
    assert "of type kv, and a database was expected" in engine


def test_a_deadline_beyond_the_mounts_maximum(plan: Plan) -> None:
    """The inequality of the clocks, for each combination."""
    short: dict[str, Json] = {"type": "database", "config": {"max_lease_ttl": 600}}
    found = list(findings(plan, live(plan, mount=short)))
    assert len(found) == 2
    assert found[0].endswith("the longest deadline is 1800 s, and the mount's maximum is 600 s")


def test_statements_of_the_policy_are_linted(plan: Plan) -> None:
    """As those of standing roles are: here what a task could hand on, and a bare DROP ROLE."""
    text = TEXT.replace(json.dumps(POSTGRESQL_REVOCATION), "'DROP ROLE \"{{name}}\"'")
    text = text.replace("GRANT orders_ro_{region}", "GRANT ALL ON orders")
    careless = plan_from(text, PlanSettings())
    lints = [line for line in findings(careless, live(plan)) if line.startswith("database roles ")]
    assert len([line for line in lints if "grants ALL" in line]) == 1
    assert len([line for line in lints if "ends no open session" in line]) == 1
    assert len(lints) == 6


@pytest.mark.parametrize(
    ("age", "node", "here", "reason"),
    [
        (timedelta(minutes=1), NODE, None, None),
        (timedelta(minutes=1), NODE, True, None),
        (timedelta(minutes=1), NODE, False, "belongs to no live task of its node"),
        (timedelta(minutes=1), "other", False, None),
        (timedelta(hours=1), "other", False, "is older than any task of the plan may be"),
        (timedelta(hours=1), NODE, None, "is older than any task of the plan may be"),
        (timedelta(hours=1), NODE, True, None),
    ],
)
@pytest.mark.parametrize("kind", ["database role", "lease"])
def test_a_role_or_lease_without_its_task_is_a_leftover(
    plan: Plan, age: timedelta, node: str, here: bool | None, reason: str | None, kind: str
) -> None:
    """Of the node that was asked, by its tasks; of others by age: nothing lives longer."""
    name, task = name_of(age, node)
    item = FoundObject(kind, f"{EU}.{name}", node, task)
    found = Found((), (item,), {}, frozenset(), frozenset())
    asked = None if here is None else LiveTasks(NODE, frozenset({task} if here else ()))
    reported = list(leftovers(plan, live(plan), found, asked, NOW))
    assert [(one.kind, one.name, one.owner, one.reason) for one in reported] == (
        [(kind, item.path, node, reason)] if reason else []
    )
    if reported:
        assert reported[0].age_seconds == int(age.total_seconds())


def test_what_a_node_that_is_gone_wrote_is_deleted_and_its_leases_are_not() -> None:
    """Those end with the tokens that are revoked first."""
    name, task = name_of(timedelta(), "gone")
    role = FoundObject("database role", f"{EU}.{name}", "gone", task)
    lease = replace(role, kind="lease")
    other = replace(role, node="other")
    found = Found((), (role, lease, other), {}, frozenset(), frozenset())
    assert list(objects_of_node(found, "gone")) == [role]
