"""The plan: exactly what the policy spans, in one form, and the predicate with it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from taskmint.model.scope import Entitlement, EntitlementKind, Json, ProofLevel
from taskmint.policy.acl import Rule, parse
from taskmint.policy.definition import AFTER_DEADLINE
from taskmint.policy.enumerate import Combination, EnumeratedDefinition
from taskmint.policy.plan import plan_of
from taskmint.policy.plan_objects import Plan, PlanSettings
from vault.ground import DAEMON, POLICY, plan_from

TEXT = POLICY.replace("MOUNT", "warehouse")


@pytest.fixture(name="whole")
def the_whole_plan() -> Plan:
    """The plan of `TEXT`, made anew for each test: so a mutation run knows who sees it made."""
    return plan_from(TEXT)


def definition(name: str, *entitlements: Entitlement) -> EnumeratedDefinition:
    """A definition with one combination."""
    role = f"taskmint-task-{name}"
    return EnumeratedDefinition(
        name,
        role,
        timedelta(seconds=60),
        timedelta(minutes=30),
        (Combination(role, {}, entitlements),),
    )


def secret(path: str, **changed: Any) -> Entitlement:
    """An entitlement of the mount `kv`."""
    made = Entitlement("secret", EntitlementKind.SECRET, "kv", path)
    return replace(made, **changed)


def plan(*definitions: EnumeratedDefinition) -> Plan:
    """The plan of these."""
    return plan_of(definitions, PlanSettings())


def test_one_policy_for_each_combination(whole: Plan) -> None:
    """Enums are written out; each policy mints its own combination and no other."""
    assert set(whole.policies) == {
        "taskmint-daemon",
        "taskmint-task-report.eu",
        "taskmint-task-report.us",
        "taskmint-task-sealer",
        "taskmint-task-visitor",
    }
    paths = {rule.path for rule in whole.policies["taskmint-task-report.eu"].rules}
    assert paths == {
        "auth/token/revoke-self",
        "warehouse/creds/orders-ro-eu",
        "warehouse/creds/taskmint-probe-orders-ro-eu",
    }


def test_token_roles_hold_the_clocks(whole: Plan) -> None:
    """The dead-man interval is the period; the server's own maximum lies after the deadline."""
    role = whole.token_roles["taskmint-task-report"]
    assert role.policies == ("taskmint-task-report.eu", "taskmint-task-report.us")
    assert role.orphan
    assert role.period == timedelta(seconds=60)
    assert role.explicit_max_ttl == timedelta(minutes=30) + AFTER_DEADLINE
    hand = whole.token_roles["taskmint-hand-visitor.vault"]
    assert (hand.policies, hand.orphan, hand.num_uses) == (("reader",), False, 3)
    assert (hand.period, hand.explicit_max_ttl) == (timedelta(minutes=1), timedelta(minutes=10))


def test_the_daemon_reads_no_secret(whole: Plan) -> None:
    """P1: no rule of its own policy touches a path that mints; a wildcard only deletes its own."""
    (name,) = whole.daemon_policies
    minting = {
        rule.path
        for policy in whole.policies.values()
        if policy.name != name
        for rule in policy.rules
        if rule.path != "auth/token/revoke-self"
    }
    own = whole.policies[name].rules
    assert not {rule.path for rule in own} & minting
    wild = [rule for rule in own if "*" in rule.path or "+" in rule.path]
    assert wild == [Rule("warehouse/roles/taskmint-db-*", ("delete",), {})]
    others = [rule for rule in own if rule not in wild and rule.path[:4] not in {"auth", "sys/"}]
    assert others == [
        Rule(f"warehouse/roles/orders-ro-{region}", ("read",), {}) for region in ("eu", "us")
    ]


def test_equal_policies_have_equal_plans(whole: Plan) -> None:
    """The same policy in another order gives the same digest; another policy another."""
    first, second, third = (definition(name, secret("creds/x")) for name in "abc")
    assert plan(first, second).digest == plan(second, first).digest
    assert plan(first, second).digest != plan(first, third).digest
    longer = replace(first, deadline_max=timedelta(hours=1))  # in the token role alone
    assert plan(first, second).policies == plan(longer, second).policies
    assert plan(first, second).digest != plan(longer, second).digest
    assert plan_from(TEXT).digest == whole.digest


def test_every_text_is_in_our_form(whole: Plan) -> None:
    """What we write, we can compare rule by rule."""
    for policy in whole.policies.values():
        assert all(block.rule is not None for block in parse(policy.text))


def test_the_auth_role_is_the_daemons_alone(whole: Plan) -> None:
    """Bound to one subject and one audience; left out when the subject is not known."""
    role = whole.auth_role
    assert role is not None
    assert (role.subject, role.audience, role.policies) == (DAEMON, "vault", ("taskmint-daemon",))
    assert plan_from(TEXT, PlanSettings()).auth_role is None


def test_the_strictest_promise_of_a_shared_database_role() -> None:
    """Two definitions, one role: the longest deadline, the highest proof."""
    short = definition("short", secret("creds/x"))
    long = replace(
        definition("long", secret("creds/x", proof=ProofLevel.SESSIONS)),
        deadline_max=timedelta(hours=5),
    )
    (role,) = plan(short, long).database_roles
    assert (role.deadline_max, role.proof) == (timedelta(hours=5), ProofLevel.SESSIONS)
    assert role.probe == "taskmint-probe-x"


def test_a_body_is_pinned_field_by_field() -> None:
    """In the process exactly; by the server wherever it can compare."""
    body: dict[str, Json] = {"role": "x", "ttl": 300, "tags": ["a"], "flag": True}
    made = plan(definition("d", secret("issue", method="POST", body=body)))
    text = made.policies["taskmint-task-d"].text
    assert '"flag" = [true]' in text
    assert '"role" = ["x"]' in text
    assert '"tags" = [["a"]]' in text
    assert '"ttl" = []' in text
    assert 'required_parameters = ["flag", "role", "tags", "ttl"]' in text
    assert made.permits_task("taskmint-task-d", "POST", "kv/issue", body)
    for other in ({**body, "ttl": 301}, {**body, "more": 1}, {"role": "x"}):
        assert not made.permits_task("taskmint-task-d", "POST", "kv/issue", other)


def test_unknown_parameters_stay_inside_their_segment() -> None:
    """A `+` is one segment, and a body's `*` an ending."""
    body: dict[str, Json] = {"path": "teams/*", "size": "*"}
    made = plan(
        definition(
            "d",
            secret("creds/+", proof=ProofLevel.SESSIONS),
            secret("issue/+", method="POST", body=body),
        )
    )
    policy = "taskmint-task-d"
    assert made.permits_task(policy, "GET", "kv/creds/any", None)
    assert not made.permits_task(policy, "GET", "kv/creds/any/more", None)
    assert made.permits_task(policy, "GET", "kv/creds/taskmint-probe-any", None)
    assert [rule.path for rule in made.policies[policy].rules] == [
        "auth/token/revoke-self",
        "kv/creds/+",
        "kv/issue/+",
    ]
    assert made.permits_task(policy, "POST", "kv/issue/x", {"path": "teams/a", "size": 5})
    assert not made.permits_task(policy, "POST", "kv/issue/x", {"path": "root", "size": 5})
    assert made.database_roles == ()


def test_a_policy_that_is_not_planned_permits_nothing(whole: Plan) -> None:
    """An unknown name, and the empty one of a token whose policy nobody told us."""
    for policy in ("", "taskmint-task-none"):
        assert not whole.permits_task(policy, "POST", "auth/token/revoke-self", None)


def test_leases_of_former_mounts_are_still_taken_back(whole: Plan) -> None:
    """In the process: looked up and revoked whatever the mount; renewed only under the plan."""
    lease = {"lease_id": "former/creds/x/1"}
    assert whole.permits_daemon("PUT", "sys/leases/lookup", lease)
    assert whole.permits_daemon("PUT", "sys/leases/revoke", {**lease, "sync": True})
    assert not whole.permits_daemon("PUT", "sys/leases/revoke", lease)
    assert not whole.permits_daemon("PUT", "sys/leases/renew", {**lease, "increment": 60})


def test_what_was_written_for_a_task_is_deleted_after_its_definition_went(whole: Plan) -> None:
    """
    In the process whatever the mount, so that a restart under a changed policy takes it back.

    The server lets roles go where leases can be taken back, and policies inside a namespace.
    """
    former = ("warehouse/roles", "team/warehouse/roles", "a/team/warehouse/roles")
    for path in (*(f"{mount}/taskmint-db-d.x.eu.n-1" for mount in former),
                 "sys/policies/acl/taskmint-hand-d.t.n-1"):  # fmt: skip
        assert whole.permits_daemon("DELETE", path, None), path
        assert not whole.permits_daemon("POST", path, {}), path
    for path in ("warehouse/roles/orders-ro", "sys/policies/acl/taskmint-daemon", "sys/mounts/x"):
        assert not whole.permits_daemon("DELETE", path, None), path
    one = definition("d", secret("creds/x"), secret("apps/x", revocable=False))
    policies = "sys/policies/acl/taskmint-hand-*"
    for settings, there in ((PlanSettings(), False), (PlanSettings(namespace="n"), True)):
        (own,) = (item for item in plan_of((one,), settings).policies.values()
                  if item.name == "taskmint-daemon")  # fmt: skip
        deletes = {rule.path for rule in own.rules if "delete" in rule.capabilities}
        assert deletes == {"kv/roles/taskmint-db-*"} | ({policies} if there else set())


def test_the_clock_of_a_former_role_can_still_be_read(whole: Plan) -> None:
    """
    In the process whatever the mount; on the server only the roles of the plan's own leases.

    It tells how long an account works whose mint was not answered, and makes nothing.
    """
    for mount in ("warehouse", "team/warehouse"):
        assert whole.permits_daemon("GET", f"{mount}/roles/former", None)
        assert not whole.permits_daemon("GET", f"{mount}/creds/former", None)
    post = replace(secret("creds/posted"), method="POST")
    no_lease = secret("creds/static", revocable=False)
    one = definition("d", secret("creds/x"), secret("creds/a/b"), secret("apps/x"), post, no_lease)
    rules = plan_of((one,), PlanSettings()).policies["taskmint-daemon"].rules
    assert [
        rule.path for rule in rules if rule.capabilities == ("read",) and "kv/" in rule.path
    ] == ["kv/roles/x"]


def test_a_certificate_of_a_former_mount_is_still_looked_for(whole: Plan) -> None:
    """Without a token, where everybody may read: what Vault says of it, and its issuer's list."""
    for mount in ("pki", "team/pki"):
        assert whole.permits_anyone("GET", f"{mount}/cert/0a-1b", None)
        assert whole.permits_anyone("GET", f"{mount}/issuer/default/crl", None)
    for path in ("kv/data/x", "pki/issuer/default", "pki/cert/ca/raw"):
        assert not whole.permits_anyone("GET", path, None), path


def test_without_a_lease_mount_no_lease_is_in_reach() -> None:
    """A policy that only hands out tokens: no empty list of prefixes, which would mean any."""
    body: dict[str, Json] = {"policies": "reader"}
    handed = Entitlement(
        "t", EntitlementKind.TOKEN, "auth/token", "create/taskmint-hand-d.t", "POST", body
    )
    assert "sys/leases" not in plan(definition("d", handed)).policies["taskmint-daemon"].text


def test_a_large_policy_is_split() -> None:
    """Raft takes no entry over 1 MiB: the daemon's rules fill several policies, all its own."""
    long = "-long" * 60
    made = plan(
        *(definition(f"d{number:03}{long}", secret(f"creds/r{number}")) for number in range(800))
    )
    assert made.daemon_policies == {"taskmint-daemon", "taskmint-daemon-2", "taskmint-daemon-3"}
    for name in made.daemon_policies:
        assert len(made.policies[name].text) < 600_000
        assert made.permits_daemon("GET", f"sys/policies/acl/{name}", None)
    body: dict[str, Json] = {"policies": f"taskmint-task-d799{long}", "display_name": "taskmint-x"}
    assert made.permits_daemon("POST", f"auth/token/create/taskmint-task-d799{long}", body)


def test_shared_names_are_refused() -> None:
    """Two definitions cannot mean different things by one name, nor take the daemon's."""
    one, other = definition("d", secret("creds/x")), definition("d", secret("creds/y"))
    with pytest.raises(ValueError, match="share the policy name"):
        plan(one, other)
    combination = replace(one.combinations[0], token_policy="taskmint-daemon")
    with pytest.raises(ValueError, match="the daemon's own policy"):
        plan(replace(one, combinations=(combination,)))
    later = replace(one, name="e", deadline_max=timedelta(hours=2))
    with pytest.raises(ValueError, match="share the token role"):
        plan(one, later)
