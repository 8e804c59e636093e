"""Who reaches a path, and what an identity may ask for."""

import pytest

from policy.asking import JOB, REPORT, load
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.access import Access, given_policies, tasks_of, who_can

WHO = ("spiffe://example.org/ns/orders/sa/{job}",)
OWNER = "team-orders@example.org"


def test_a_path_leads_to_its_task() -> None:
    """The one combination that reaches it, who may ask, and whose it is."""
    assert who_can(load(REPORT), "database/creds/ro-eu") == (
        Access("report", "warehouse", "GET database/creds/ro-eu", WHO, OWNER, ()),
    )


@pytest.mark.parametrize(
    "path",
    [
        "database/creds/ro-cn",
        "database/creds",
        "database/creds/ro-eu/x",
        "v2/database/creds/ro-eu",
        "v1/v1/database/creds/ro-eu",
    ],
)
def test_a_path_that_nobody_reaches(path: str) -> None:
    """Nothing is found, however close."""
    assert who_can(load(REPORT), path) == ()


def test_wildcards_in_the_question_and_in_the_policy() -> None:
    """`*` asks for any segment; a segment that is no enum reaches any."""
    wild = load(REPORT.replace("ro-{region}", "{job}"))

    assert [access.request for access in who_can(load(REPORT), "/database/creds/*")] == [
        "GET database/creds/ro-eu",
        "GET database/creds/ro-us",
    ]
    assert [access.request for access in who_can(wild, "database/creds/anything")] == [
        "GET database/creds/{job}"
    ]


@pytest.mark.parametrize("path", ["v1/database/creds/ro-eu", "/v1/database/creds/ro-eu/"])
def test_the_path_may_be_written_as_in_a_request(path: str) -> None:
    """With the version before it."""
    assert [access.request for access in who_can(load(REPORT), path)] == [
        "GET database/creds/ro-eu"
    ]


@pytest.mark.parametrize(
    ("path", "reached"),
    [("ro-x", True), ("ro-", False), ("admin", False), ("ro-x.y", True), ("xro-x", False)],
)
def test_what_stands_around_a_placeholder_counts(path: str, reached: bool) -> None:
    """A value is one character at least; what it may not hold is not looked at."""
    policy = load(REPORT.replace("ro-{region}", "ro-{job}"))

    assert bool(who_can(policy, f"database/creds/{path}")) is reached


HANDED = REPORT.replace(
    'secret: {mount: database, path: "creds/ro-{region}", proof: login}',
    "token: {paths: [{path: 'kv/data/{job}/{region}', capabilities: [read, list]}]}",
)


def test_what_a_token_that_is_handed_over_reaches_is_found() -> None:
    """And what the daemon writes before it: the token's policy, for one task."""
    held = Access(
        "report",
        "warehouse",
        "list,read kv/data/{job}/eu",
        WHO,
        OWNER,
        ("with the token warehouse",),
    )
    written = Access(
        "report",
        "warehouse",
        "write sys/policies/acl/taskmint-hand-report.warehouse.*",
        WHO,
        OWNER,
        ("by the daemon, for one task",),
    )
    policy = load(HANDED)

    assert who_can(policy, "kv/data/nightly/eu") == (held,)
    assert who_can(policy, "kv/data/nightly/cn") == ()
    assert who_can(policy, "sys/policies/acl/taskmint-hand-report.warehouse.tm_1") == (written,)
    assert given_policies(policy) == ()


def test_a_role_that_is_made_for_the_task_is_found() -> None:
    """Whoever reads its credentials, and who writes it."""
    role = (
        "database: {mount: db, connection: c, creation: ['CREATE {{name}}'], "
        "revocation: ['DROP {{name}}'], proof: sessions}"
    )
    policy = load(
        REPORT.replace('secret: {mount: database, path: "creds/ro-{region}", proof: login}', role)
    )
    name = "taskmint-db-report.warehouse"

    assert [each.request for each in who_can(policy, f"db/creds/{name}.x")] == [
        f"GET db/creds/{name}.*"
    ]
    assert [(each.request, each.terms) for each in who_can(policy, f"db/roles/{name}.x")] == [
        (f"write db/roles/{name}.*", ("by the daemon, for one task",))
    ]


def test_a_policy_of_the_vault_admin_is_named() -> None:
    """What it allows is not in the files."""
    policy = load(
        REPORT.replace(
            'secret: {mount: database, path: "creds/ro-{region}", proof: login}',
            "token: {policy: deploy}",
        )
    )

    assert given_policies(policy) == (
        Access(
            "report",
            "warehouse",
            "whatever the policy deploy allows",
            WHO,
            OWNER,
            ("with the token warehouse",),
        ),
    )
    assert given_policies(load(REPORT)) == ()


def test_the_terms_are_told() -> None:
    """Everything that must hold besides identity and parameters."""
    terms = (
        "    identity: {methods: [x509-svid], token: process}\n"
        "    break_glass: true\n"
        '    windows: [{from: "01:00", to: "02:00"}]\n'
        "    when: caller.uid > 0\n"
        "    approval: {from: ['group:a'], within: 1h}\n"
    )
    policy = load(REPORT.replace("    deadline:", terms + "    deadline:"))

    assert who_can(policy, "database/creds/ro-eu")[0].terms == (
        "proven by x509-svid",
        "with a token that is bound to its process",
        "within mon,tue,wed,thu,fri,sat,sun 01:00-02:00 UTC",
        "in an emergency, with a purpose and a ticket",
        "when caller.uid > 0",
        "approved by 1 of group:a",
    )


def test_an_identity_finds_its_tasks() -> None:
    """In order of name; a stranger finds none."""
    policy = load(REPORT, REPORT.replace("report:", "alpha:"))

    assert [each.name for each in tasks_of(policy, SpiffeId.parse(JOB))] == ["alpha", "report"]
    assert tasks_of(policy, SpiffeId.parse("spiffe://example.org/x")) == ()
