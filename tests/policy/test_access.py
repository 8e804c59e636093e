"""Who reaches a path, and what an identity may ask for."""

import pytest

from policy.asking import JOB, REPORT, load
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.access import Access, tasks_of, who_can

WHO = ("spiffe://example.org/ns/orders/sa/{job}",)
OWNER = "team-orders@example.org"


def test_a_path_leads_to_its_task() -> None:
    """The one combination that reaches it, who may ask, and whose it is."""
    assert who_can(load(REPORT), "database/creds/ro-eu") == (
        Access("report", "warehouse", "GET database/creds/ro-eu", WHO, OWNER, ()),
    )


@pytest.mark.parametrize(
    "path", ["database/creds/ro-cn", "database/creds", "database/creds/ro-eu/x"]
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
        "GET database/creds/+"
    ]


def test_the_terms_are_told() -> None:
    """Everything that must hold besides identity and parameters."""
    terms = (
        "    identity: {methods: [x509-svid]}\n"
        '    windows: [{from: "01:00", to: "02:00"}]\n'
        "    when: caller.uid > 0\n"
        "    approval: {from: ['group:a'], within: 1h}\n"
    )
    policy = load(REPORT.replace("    deadline:", terms + "    deadline:"))

    assert who_can(policy, "database/creds/ro-eu")[0].terms == (
        "proven by x509-svid",
        "within mon,tue,wed,thu,fri,sat,sun 01:00-02:00 UTC",
        "when caller.uid > 0",
        "approved by 1 of group:a",
    )


def test_an_identity_finds_its_tasks() -> None:
    """In order of name; a stranger finds none."""
    policy = load(REPORT, REPORT.replace("report:", "alpha:"))

    assert [each.name for each in tasks_of(policy, SpiffeId.parse(JOB))] == ["alpha", "report"]
    assert tasks_of(policy, SpiffeId.parse("spiffe://example.org/x")) == ()
