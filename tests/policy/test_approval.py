"""When statements approve: enough different others whom the policy names, and no way else."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from taskmint.model.approval import Approver, Outcome, Statement, Vouched
from taskmint.model.scope import Approval
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.approval import (
    Refused,
    Shown,
    Standing,
    Tally,
    is_same_person,
    weigh,
    why_void,
)

NOW = datetime(2027, 1, 1, tzinfo=UTC)
CALLER = SpiffeId("example.org", "/agent")
TASK, SCOPE, POLICY = "tm_01jd0000000000000000000000", "a" * 64, "b" * 64
NEEDED = Approval(
    ("group:leads", "user:dpo", "spiffe://example.org/boss"), 2, timedelta(minutes=30)
)
SHOWN = Shown(TASK, SCOPE, POLICY, CALLER, 1000, NEEDED)

LEADS = frozenset({"leads"})
ANN = Approver("ann", LEADS, frozenset({1001}))
BOB = Approver("bob", LEADS)
DPO = Approver("dpo")
BOSS = Approver("spiffe://example.org/boss", proven_id=SpiffeId("example.org", "/boss"))
NOBODY = Approver("eve", frozenset({"staff"}))
# The caller by other names: mapped to its uid, to its SPIFFE ID, and by its own certificate.
BY_UID = Approver("owner", LEADS, frozenset({1000}))
BY_ID = Approver("owner", LEADS, spiffe_ids=frozenset({CALLER}))
BY_SVID = Approver(str(CALLER), LEADS, proven_id=CALLER)
# Ann by other names: the same uid under another principal, her certificate under none.
ANN_TWICE = Approver("ann-2", LEADS, frozenset({1001}))


def says(
    approver: Approver,
    outcome: Outcome = Outcome.APPROVE,
    *,
    jti: str = "",
    until: timedelta = timedelta(minutes=10),
) -> Vouched:
    """A statement about the plan that was shown."""
    jti = jti or f"{approver.principal}-{outcome}-{until}"
    return Vouched(Statement(TASK, SCOPE, POLICY, outcome, NOW + until, jti), approver, "key:k")


def counted(*statements: Vouched, shown: Shown = SHOWN, at: datetime = NOW) -> Tally:
    """Weigh statements that must all count."""
    tally = Tally()
    for one in statements:
        result = weigh(shown, tally, one, at)
        assert isinstance(result, Tally), result
        tally = result
    return tally


def refusal(tally: Tally, vouched: Vouched, shown: Shown = SHOWN, at: datetime = NOW) -> str:
    """Weigh one that must not count."""
    result = weigh(shown, tally, vouched, at)
    assert isinstance(result, Refused), result
    return result.reason


def test_a_quorum_of_others_approves() -> None:
    """One waits for the second; by group, by name and by SPIFFE ID alike."""
    assert counted(says(ANN)).standing is Standing.WAITING
    for second in (BOB, DPO, BOSS):
        tally = counted(says(ANN), says(second))
        assert tally.standing is Standing.APPROVED
        assert tally.good_until == NOW + timedelta(minutes=10)


@pytest.mark.parametrize("alias", [BY_UID, BY_ID, BY_SVID])
def test_nobody_approves_their_own_request_under_any_name(alias: Approver) -> None:
    """By uid, by a mapped SPIFFE ID, by its own certificate: refused, also to deny."""
    for outcome in Outcome:
        assert refusal(Tally(), says(alias, outcome)) == "nobody approves their own request"


def test_one_person_signing_as_two_counts_once() -> None:
    """The same principal with another key; another principal of the same uid."""
    once = counted(says(ANN))
    for again in (says(ANN, jti="with-another-key"), says(ANN_TWICE)):
        assert refusal(once, again) == "this approver has approved already"
    other_key = replace(says(ANN, jti="with-another-key"), by="key:other")
    assert refusal(once, other_key) == "this approver has approved already"


def test_one_spiffe_id_is_one_person() -> None:
    """Mapped to one principal and proven by another; two that share none are two."""
    own = SpiffeId("example.org", "/people/ann")
    mapped = Approver("ann", LEADS, spiffe_ids=frozenset({own}))
    proven = Approver(str(own), LEADS, proven_id=own)
    both = Approver("x", LEADS, spiffe_ids=frozenset({own}), proven_id=SpiffeId("a", "/other"))
    for one in (mapped, proven, both):
        for other in (mapped, proven, both):
            assert is_same_person(one, other)
        assert not is_same_person(one, BOSS)
        assert refusal(counted(says(mapped, jti="1")), says(one, jti="2")) == (
            "this approver has approved already"
        )


def test_whom_the_policy_does_not_name_has_no_say() -> None:
    """Not to approve, not to deny, not to withdraw; a mapped SPIFFE ID must be proven to count."""
    mapped = Approver("carol", spiffe_ids=frozenset({SpiffeId("example.org", "/boss")}))
    for stranger in (NOBODY, mapped):
        for outcome in Outcome:
            said = refusal(Tally(), says(stranger, outcome))
            assert said == "the policy does not name this approver"


def test_a_replayed_statement_counts_once() -> None:
    """The same jti, also when the approval was withdrawn meanwhile, also by another approver."""
    first = says(ANN, jti="j1")
    tally = counted(first)
    withdrawn = counted(first, says(ANN, Outcome.WITHDRAW))

    assert refusal(tally, first) == "the statement was used before"
    assert refusal(withdrawn, first) == "the statement was used before"
    assert refusal(tally, says(BOB, jti="j1")) == "the statement was used before"


def test_a_statement_about_something_else_counts_for_nothing() -> None:
    """Another task, another plan, another policy."""
    good = says(ANN)
    for statement, why in (
        (replace(good.statement, task="tm_01jd0000000000000000000001"), "another task"),
        (
            replace(good.statement, scope_digest="c" * 64),
            "another plan than the one that was shown",
        ),
        (
            replace(good.statement, policy_digest="c" * 64),
            "a plan that another policy decided",
        ),
    ):
        said = refusal(Tally(), replace(good, statement=statement))
        assert said == f"the statement is about {why}"


def test_an_expired_statement_counts_for_nothing() -> None:
    """On arrival; and an approval that expired while it waited for the second one."""
    assert refusal(Tally(), says(ANN, until=timedelta())) == "the statement has expired"
    early = counted(says(ANN, until=timedelta(minutes=1)))
    later = weigh(SHOWN, early, says(BOB), NOW + timedelta(minutes=2))

    assert isinstance(later, Tally)
    assert (later.standing, len(later.approvals)) == (Standing.WAITING, 1)
    at_its_end = weigh(SHOWN, early, says(BOB), NOW + timedelta(minutes=1))
    assert isinstance(at_its_end, Tally)
    assert (at_its_end.standing, len(at_its_end.approvals)) == (Standing.WAITING, 1)


def test_one_denial_is_enough_and_final() -> None:
    """Nothing counts after it."""
    denied = counted(says(ANN), says(BOB, Outcome.DENY))

    assert denied.standing is Standing.DENIED
    for outcome in Outcome:
        assert refusal(denied, says(DPO, outcome)) == "the request is denied already"
    assert refusal(denied, says(BOB, Outcome.DENY)) == "the statement was used before"


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ((ANN, DPO), None),
        ((), None),
        ((ANN, None), "no approver any more"),
        ((ANN, BY_UID), "the caller's own"),
        ((ANN, NOBODY), "does not name"),
        ((ANN, ANN_TWICE), "of one person"),
    ],
)
def test_approvals_stand_while_those_who_gave_them_still_may(
    now: tuple[Approver | None, ...], why: str | None
) -> None:
    """Known, others than the caller, named by the policy, and different people: as at first."""
    found = why_void(SHOWN, now)
    assert found is None if why is None else why in (found or "")


def test_withdrawing_takes_back_ones_own_approval() -> None:
    """While it waits one may approve anew; afterwards it ends what rests on it."""
    assert refusal(Tally(), says(ANN, Outcome.WITHDRAW)) == (
        "there is no approval of this approver to withdraw"
    )
    waiting = counted(says(ANN), says(ANN, Outcome.WITHDRAW))
    assert (waiting.standing, waiting.approvals) == (Standing.WAITING, ())
    again = counted(says(ANN), says(ANN, Outcome.WITHDRAW), says(ANN, jti="anew"), says(BOB))
    assert again.standing is Standing.APPROVED
    assert "no approval of this" in refusal(again, says(DPO, Outcome.WITHDRAW))
    ended = counted(says(ANN), says(BOB), says(BOB, Outcome.WITHDRAW))
    assert ended.standing is Standing.WITHDRAWN
    assert "withdrawn already" in refusal(ended, says(DPO))


def test_an_approved_request_takes_no_more_approvals_and_no_denial() -> None:
    """What was approved can only be withdrawn, by who approved it; operators end tasks."""
    approved = counted(says(ANN), says(BOB))
    for outcome in (Outcome.APPROVE, Outcome.DENY):
        assert refusal(approved, says(DPO, outcome)) == (
            "the request is approved already; an approval can only be withdrawn"
        )


PEOPLE = (ANN, BOB, DPO, BOSS, NOBODY, BY_UID, BY_ID, BY_SVID, ANN_TWICE)
MAY_COUNT = {"ann": "ann", "ann-2": "ann", "bob": "bob", "dpo": "dpo", BOSS.principal: "boss"}


class Approvals(RuleBasedStateMachine):
    """
    Any sequence of statements, good and bad, beside a plain account of who said what.

    The account knows persons only: who of ann, bob, dpo and boss stands behind the request with a
    statement that was about it, unexpired, fresh, and not taken back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()
        self.at = NOW
        self.used: set[str] = set()
        self.behind: dict[str, datetime] = {}
        self.ever_denied = False

    @rule(span=st.integers(1, 600))
    def time_passes(self, span: int) -> None:
        """Statements expire."""
        self.at += timedelta(seconds=span)

    @rule(
        who=st.sampled_from(PEOPLE),
        outcome=st.sampled_from(Outcome),
        jti=st.sampled_from([f"jti-{number}" for number in range(12)]),
        life=st.integers(-60, 900),
        about=st.sampled_from(["this", "this", "this", "task", "scope", "policy"]),
    )
    def somebody_says(
        self, who: Approver, outcome: Outcome, jti: str, life: int, about: str
    ) -> None:
        """Weigh it, and keep the account."""
        until = self.at + timedelta(seconds=life)
        statement = Statement(
            "tm_other" if about == "task" else TASK,
            "c" * 64 if about == "scope" else SCOPE,
            "c" * 64 if about == "policy" else POLICY,
            outcome,
            until,
            jti,
        )
        before = self.tally
        result = weigh(SHOWN, before, Vouched(statement, who, "key:k"), self.at)
        if isinstance(result, Refused):
            return
        self.tally = result
        person = MAY_COUNT[who.principal]  # nobody else's statement ever counts
        assert about == "this"
        assert until > self.at
        assert jti not in self.used
        self.used.add(jti)
        if outcome is Outcome.APPROVE:
            self.behind[person] = until
        elif outcome is Outcome.WITHDRAW:
            del self.behind[person]
        else:
            self.ever_denied = True
        if result.standing is Standing.APPROVED and before.standing is not Standing.APPROVED:
            live = {name for name, good in self.behind.items() if good > self.at}
            assert len(live) >= NEEDED.quorum
            assert not self.ever_denied

    @invariant()
    def approved_means_a_quorum_stands_behind_it(self) -> None:
        """Different persons, none of whom has taken it back; and each id was used once."""
        if self.tally.standing is Standing.APPROVED:
            people = {MAY_COUNT[one.approver.principal] for one in self.tally.approvals}
            assert len(people) == len(self.tally.approvals) >= NEEDED.quorum
            assert people <= self.behind.keys()
        for one in self.tally.approvals:
            for other in self.tally.approvals:
                assert one is other or not is_same_person(one.approver, other.approver)


TestNoSequenceOfStatementsGrantsWithoutAQuorumOfOthers = Approvals.TestCase


def test_why_approvals_count_no_more_is_said() -> None:
    """Each way in its own words; the caller is known by either name."""
    for approvers, why in (
        ((ANN, None), "an approval is of somebody who is no approver any more"),
        ((ANN, BY_ID), "an approval is the caller's own"),
        ((ANN, BY_UID), "an approval is the caller's own"),
        ((ANN, NOBODY), "an approval is of somebody whom the policy does not name"),
        ((ANN, ANN_TWICE), "two approvals are of one person"),
        ((ANN, BOB), None),
    ):
        assert why_void(SHOWN, approvers) == why


def test_approvals_are_good_until_the_first_expires() -> None:
    """At its last moment they are good no more."""
    tally = counted(says(ANN, until=timedelta(minutes=1)), says(BOB))
    assert tally.is_good(NOW + timedelta(seconds=59))
    assert not tally.is_good(NOW + timedelta(minutes=1))
