"""Wider and missing: what the live server holds against the plan, rule by rule (P1)."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from taskmint.model.scope import Json
from taskmint.vault.rights import LiveRights, Rights, compare, role_differences, role_fields
from vault.ground import POLICY, plan_from

TEXT = POLICY.replace("MOUNT", "warehouse")
PLAN = plan_from(TEXT)
NARROW = plan_from(TEXT.replace("[eu, us]", "[eu]"))
DAEMON = "taskmint-daemon"
ROLE = "taskmint-task-report"


def live() -> LiveRights:
    """A server that holds exactly the plan."""
    return LiveRights(
        token_policies=frozenset({DAEMON}),
        identity_policies=frozenset(),
        policies={name: policy.text for name, policy in PLAN.policies.items()},
        token_roles={name: role_fields(role) for name, role in PLAN.token_roles.items()},
    )


def with_policy(name: str, change: Callable[[str], str | None]) -> Rights:
    """Compare with one policy's text changed."""
    held = live()
    text = held.policies[name]
    assert text is not None
    changed = change(text)
    assert changed != text
    return compare(PLAN, replace(held, policies={**held.policies, name: changed}))


def with_role(**changed: Json) -> Rights:
    """Compare with one token role changed."""
    held = live()
    fields: Mapping[str, Json] = {**(held.token_roles[ROLE] or {}), **changed}
    return compare(PLAN, replace(held, token_roles={**held.token_roles, ROLE: fields}))


def test_exactly_the_plan() -> None:
    """Nothing wider, nothing missing."""
    assert compare(PLAN, live()) == Rights((), {})


def test_policies_by_name() -> None:
    """One more on the token, or through its entity, is wider; one fewer disables everything."""
    more = compare(PLAN, replace(live(), token_policies=frozenset({DAEMON, "default"})))
    assert more.wider == ("the daemon's token has the policy default",)
    entity = compare(PLAN, replace(live(), identity_policies=frozenset({"ops"})))
    assert entity.wider == ("the daemon's token has the policy ops, through its entity or a group",)
    fewer = compare(PLAN, replace(live(), token_policies=frozenset()))
    assert not fewer.wider
    assert set(fewer.missing) == {"report", "sealer", "visitor"}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + 'path "secret/*" {\n  capabilities = ["read"]\n}\n',
        lambda text: text.replace('"taskmint-task-report.us"]', '"taskmint-task-report.us", "x"]'),
        lambda text: text.replace('"policies" = ["taskmint-task-sealer"]', '"policies" = []'),
        lambda text: text.replace('"sync" = [true]', '"sync" = []'),
        lambda text: text.replace('"warehouse/*"', '"*"'),
        lambda text: text.replace('  required_parameters = ["lease_id", "sync"]\n', ""),
        lambda text: text.replace('  denied_parameters = { "*" = [] }\n', ""),
        lambda text: text.replace('capabilities = ["read"]', 'capabilities = ["read", "sudo"]'),
        lambda text: "# a comment\n" + text,
        lambda text: text.replace("  capabilities", " capabilities", 1),
        lambda text: text + text,
    ],
)
def test_a_wider_policy_is_named_with_its_line(change: Callable[[str], str]) -> None:
    """More paths, values, fields or capabilities, and whatever cannot be read: wider."""
    rights = with_policy(DAEMON, change)
    assert rights.wider
    assert all(line.startswith(f"policy {DAEMON}, line ") for line in rights.wider)


def test_an_older_plan_is_narrower() -> None:
    """Before `apply` after a policy grew: nothing wider, and only what grew is missing."""
    held = live()
    policies = {name: policy.text for name, policy in NARROW.policies.items()} | {
        "taskmint-task-report.us": None
    }
    roles = {name: role_fields(role) for name, role in NARROW.token_roles.items()}
    rights = compare(PLAN, replace(held, policies=policies, token_roles=roles))
    assert not rights.wider
    assert set(rights.missing) == {"report"}


def test_a_newer_plan_is_wider() -> None:
    """Before `apply` after a policy shrank: what it no longer needs is too much."""
    held = live()
    rights = compare(NARROW, held)
    assert any(
        "taskmint-task-report.us" in line or "auth/token/create" in line for line in rights.wider
    )
    assert any(line.startswith(f"token role {ROLE}: allowed_policies") for line in rights.wider)


def test_a_task_policy_counts_as_well() -> None:
    """What the daemon can mint through a task token is part of its rights."""
    rights = with_policy(
        "taskmint-task-report.eu",
        lambda text: text + 'path "warehouse/creds/orders-rw" {\n  capabilities = ["read"]\n}\n',
    )
    assert [line.partition(":")[0] for line in rights.wider] == [
        "policy taskmint-task-report.eu, line 15"
    ]


def test_a_missing_policy_disables_its_definition() -> None:
    """And no other."""
    rights = with_policy("taskmint-task-sealer", lambda _: None)
    assert rights == Rights((), {"sealer": "policy taskmint-task-sealer does not exist"})


@pytest.mark.parametrize(
    "changed",
    [
        {"token_period": 0},
        {"token_period": 61},
        {"token_explicit_max_ttl": 0},
        {"token_explicit_max_ttl": 86400},
        {"allowed_policies": []},
        {"allowed_policies": ["taskmint-task-report.eu", "root"]},
        {"allowed_policies_glob": ["*"]},
        {"allowed_entity_aliases": ["*"]},
        {"token_no_default_policy": False},
        {"token_type": "default-batch"},
        {"orphan": False},
        {"path_suffix": "x"},
    ],
)
def test_a_wider_token_role(changed: dict[str, Json]) -> None:
    """Longer clocks, more policies, another kind of token: wider, by field."""
    (line,) = with_role(**changed).wider
    assert line.startswith(f"token role {ROLE}: {next(iter(changed))} is ")


@pytest.mark.parametrize(
    "changed",
    [
        {"token_period": 30},
        {"token_explicit_max_ttl": 60},
        {"allowed_policies": ["taskmint-task-report.eu"]},
        {"renewable": False},
    ],
)
def test_a_narrower_token_role(changed: dict[str, Json]) -> None:
    """Shorter or fewer: not wider, but the definition cannot keep its promises."""
    rights = with_role(**changed)
    assert rights == Rights((), {"report": f"token role {ROLE} is not as planned"})


def test_an_absent_field_is_off() -> None:
    """Servers leave out what is empty; Vault Enterprise adds fields of its own."""
    role = PLAN.token_roles[ROLE]
    held = {name: value for name, value in role_fields(role).items() if value}
    assert role_differences(role, {**held, "token_bound_cidrs": None}) == {}
