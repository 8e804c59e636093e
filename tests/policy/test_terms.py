"""Identity requirements, approvals and shadows, as far as they are decided."""

from dataclasses import replace
from datetime import timedelta

import pytest

from policy.asking import REPORT, asked, denied, findings, granted, load
from taskmint.errors import Code
from taskmint.model.caller import IdentityMethod, TokenBinding
from taskmint.model.scope import (
    Approval,
    DecisionInput,
    Denial,
    HistoryFacts,
    Scope,
)
from taskmint.policy.decide import decide_shadow
from taskmint.policy.enumerate import enumerate_definitions


def with_terms(text: str) -> str:
    """The report policy with one more line."""
    return REPORT.replace("    deadline:", f"    {text}\n    deadline:")


def proven(method: IdentityMethod, binding: TokenBinding = TokenBinding.UID) -> DecisionInput:
    """The usual request, proven in another way."""
    given = asked()
    return replace(given, caller=replace(given.caller, method=method, binding=binding))


def test_an_identity_must_be_proven_as_the_definition_asks() -> None:
    """Other ways are refused; without a list every way will do."""
    policy = load(with_terms("identity: {methods: [x509-svid, delegated]}"))
    denial = denied(policy, proven(IdentityMethod.JWT_SVID), Code.NOT_PERMITTED)

    assert denial.detail == "this task asks for another proof of identity"
    assert denial.trace[-1] == (
        "identity: refused, proven by jwt-svid and not by delegated, x509-svid"
    )
    scope = granted(policy, proven(IdentityMethod.X509_SVID))
    assert "identity: accepted, proven by x509-svid" in scope.trace
    for method in IdentityMethod:
        granted(load(REPORT), proven(method))


def test_a_token_bound_to_a_user_will_not_do_where_a_process_is_asked_for() -> None:
    """A node that binds tokens to users refuses such tasks; what is no token is not asked."""
    policy = load(with_terms("identity: {token: process}"))
    denial = denied(policy, proven(IdentityMethod.JWT_SVID), Code.NOT_PERMITTED)

    assert denial.detail == "this task asks for another proof of identity"
    assert denial.trace[-1] == ("identity: refused, the token is bound by uid and not by process")
    bound = granted(policy, proven(IdentityMethod.JWT_SVID, TokenBinding.PROCESS))
    assert "identity: token accepted, bound by process" in bound.trace
    granted(policy, proven(IdentityMethod.X509_SVID))
    granted(policy, proven(IdentityMethod.DELEGATED))


APPROVAL = (
    'approval: {from: ["group:leads", "user:ann@example.org", "spiffe://example.org/boss"], '
    "quorum: 2, within: 30m, automatic: history.grants == 0}"
)


def with_history(grants: int) -> DecisionInput:
    """The usual request by an identity with a past."""
    return replace(asked(), history=HistoryFacts(grants))


def test_what_needs_approval_is_refused_until_it_is_there() -> None:
    """The denial says whose yes is missing; decided again with it, the scope is granted."""
    policy = load(with_terms(APPROVAL))
    denial = denied(policy, with_history(1), Code.NOT_PERMITTED)

    assert denial.approval == Approval(
        ("group:leads", "user:ann@example.org", "spiffe://example.org/boss"),
        2,
        timedelta(minutes=30),
    )
    assert denial.detail == "this task needs an approval"
    assert denial.trace[-2:] == (
        "approval: not automatic: false, history.grants == 0",
        "approval: needed, 2 of group:leads, user:ann@example.org, spiffe://example.org/boss",
    )
    scope = granted(policy, replace(with_history(1), approved=True))
    assert scope.trace[-1] == "approval: given"


def test_an_automatic_condition_stands_for_the_approval() -> None:
    """Where it holds; and the trace says which it was."""
    scope = granted(load(with_terms(APPROVAL)), with_history(0))

    assert scope.trace[-1] == "approval: automatic, history.grants == 0"


def test_an_automatic_condition_in_error_approves_nothing() -> None:
    """Fail closed."""
    text = APPROVAL.replace("history.grants == 0", "1 / history.grants == 1 || false")
    denial = denied(load(with_terms(text)), with_history(0), Code.NOT_PERMITTED)

    assert denial.approval is not None


def test_an_approval_heals_nothing_else() -> None:
    """Everything else is decided before, and again when the approval is there."""
    policy = load(with_terms(APPROVAL + "\n    when: caller.uid == 0"))
    denial = denied(policy, replace(with_history(1), approved=True), Code.NOT_PERMITTED)

    assert denial.approval is None
    assert denial.trace[-1].startswith("when: false")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{within: 1h}", "approval.from: is missing"),
        ("{from: ['group:a']}", "approval.within: is missing"),
        ("{from: [], within: 1h}", "approval.from: is too short; write at least 1"),
        ("{from: [a], within: 1h}", 'approval.from[0]: "a" is no approver; write group:NAME'),
        ("{from: ['group:'], within: 1h}", 'approval.from[0]: "" will not do; write group:NAME'),
        ("{from: ['spiffe://A B'], within: 1h}", 'approval.from[0]: "spiffe://A B" is no SPIFFE'),
        ("{from: ['user:a', 'user:a'], within: 1h}", "approval.from: names one approver twice"),
        ("{from: ['user:a'], quorum: 2, within: 1h}", "approval.quorum: 2 different approvers ar"),
        ("{from: ['group:a'], quorum: 0, within: 1h}", "approval.quorum: is too small"),
        ("{from: ['group:a'], within: 1h, automatic: '1'}", "approval.automatic: is of type int"),
    ],
)
def test_approvals_that_cannot_be_given_are_found(text: str, expected: str) -> None:
    """Nobody to ask, nobody that exists, fewer than are needed."""
    (only, *_) = findings(with_terms(f"approval: {text}"))

    assert only.split(": ", 1)[1].startswith(f"tasks.report.{expected}"), only


def test_a_group_may_hold_any_number() -> None:
    """Its members are not known here, so a quorum of several is accepted."""
    load(with_terms("approval: {from: ['group:a'], quorum: 3, within: 1h}"))


SHADOWED = REPORT + REPORT.split("tasks:\n")[1].replace(
    "report:", "report.shadow:\n    shadow: true"
).replace("[eu, us]", "[us]").replace("/sa/{job}", "/sa/*")


def test_a_shadow_is_decided_beside_and_grants_nothing() -> None:
    """The enforced decision is untouched; the shadow's is there for the record."""
    policy = load(SHADOWED)

    granted(policy, asked())
    shadow = decide_shadow(policy, asked())
    assert isinstance(shadow, Denial)
    assert shadow.code == Code.PARAMETER_INVALID
    assert isinstance(decide_shadow(policy, asked(parameters={"region": "us"})), Scope)
    assert decide_shadow(load(REPORT), asked()) is None


def test_a_shadow_is_no_task() -> None:
    """Asked for by its key it does not exist, and the plan holds nothing of it."""
    policy = load(SHADOWED)

    denied(policy, asked("report.shadow"), Code.NOT_PERMITTED)
    assert [each.name for each in enumerate_definitions(policy)] == ["report"]


def test_a_shadow_may_come_before_what_it_shadows() -> None:
    """A new definition is watched before it is enforced: requests are refused meanwhile."""
    policy = load(REPORT.replace("report:", "report.shadow:\n    shadow: true"))

    denied(policy, asked(), Code.NOT_PERMITTED)
    assert isinstance(decide_shadow(policy, asked()), Scope)


def test_a_shadow_counts_for_the_digest() -> None:
    """What is recorded beside a decision is part of what decided."""
    assert load(REPORT).digest != load(SHADOWED).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [("report:", "report.shadow:"), ("    class:", "    shadow: true\n    class:")],
)
def test_a_shadow_has_both_its_key_and_its_mark(old: str, new: str) -> None:
    """Neither a typo in the key nor a forgotten line turns one into the other."""
    (only,) = findings(REPORT.replace(old, new))

    assert "a shadow has both its key and its mark; write report.shadow with shadow: true" in only
