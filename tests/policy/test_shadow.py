"""What a shadow would change: the comparison of two decisions."""

from dataclasses import replace
from datetime import timedelta

import pytest

from policy.asking import REPORT, asked, load
from taskmint.policy.decide import decide, decide_shadow
from taskmint.policy.shadow import Verdict, compare, shadowed

OTHER = "report.shadow:\n    shadow: true"
AWAITED = 'approval: {from: ["group:leads"], within: 1h}\n    ends:'


def with_shadow(old: str = "", new: str = "") -> str:
    """The report, and a shadow of it in which `new` stands for `old`."""
    return REPORT + REPORT.split("tasks:\n")[1].replace("report:", OTHER).replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("", "", Verdict.SAME),
        ("owner: team-orders@", "owner: team-audit@", Verdict.SAME),
        ("enum: [eu, us]", "enum: [us]", Verdict.WOULD_REFUSE),
        ("ends:", AWAITED, Verdict.WOULD_WAIT),
        ("creds/ro-{region}", "creds/rw-{region}", Verdict.OTHER_TERMS),
        ("default: 5m", "default: 4m", Verdict.OTHER_TERMS),
        ("class: batch", "class: batch\n    dead_man: 30s", Verdict.OTHER_TERMS),
        ("heartbeat: 60s", "heartbeat: 30s", Verdict.OTHER_TERMS),
        ("bind: [peer, parent]", "bind: [parent]", Verdict.OTHER_TERMS),
        ("region: {enum: [eu, us]}", "region: {type: segment}", Verdict.OTHER_TERMS),
    ],
)
def test_a_shadows_verdict_on_a_grant(old: str, new: str, verdict: Verdict) -> None:
    """Same, other terms, a refusal, an approval first; the words around it do not count."""
    policy = load(with_shadow(old, new))
    found = shadowed(policy, asked(), decide(policy, asked()))

    assert found is not None
    assert found.verdict is verdict
    assert found.decision == decide_shadow(policy, asked())


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("max: 30m", "max: 2h", Verdict.WOULD_GRANT),
        ("default: 5m", "default: 4m", Verdict.SAME),
        ("enum: [eu, us]", "enum: [us]", Verdict.SAME),
    ],
)
def test_a_shadows_verdict_on_a_refusal(old: str, new: str, verdict: Verdict) -> None:
    """Refused by both is the same, whatever each of them says."""
    policy, given = load(with_shadow(old, new)), asked(ttl=timedelta(hours=1))
    found = shadowed(policy, given, decide(policy, given))

    assert found is not None
    assert found.verdict is verdict


def test_what_waits_is_compared_by_whom_it_waits_for() -> None:
    """Two approvals are the same when their rules are."""
    leads = decide(load(REPORT.replace("ends:", AWAITED)), asked())
    others = decide(load(REPORT.replace("ends:", AWAITED.replace("leads", "duty"))), asked())

    assert compare(leads, leads) is Verdict.SAME
    assert compare(leads, others) is Verdict.OTHER_TERMS


@pytest.mark.parametrize("urgent", [True, False])
def test_an_emergency_is_one_of_the_terms(urgent: bool) -> None:
    """Its ticket is watched, so it ends otherwise."""
    glass = "break_glass: true\n    ends:"
    usual = asked()
    given = replace(usual, request=replace(usual.request, purpose="p", ticket="t"))
    texts = (REPORT.replace("ends:", glass), REPORT)
    old, new = map(load, texts if urgent else reversed(texts))

    assert compare(decide(old, given), decide(new, given)) is Verdict.OTHER_TERMS


def test_without_a_shadow_there_is_nothing_to_compare() -> None:
    """None, and not "same"."""
    policy = load(REPORT)

    assert shadowed(policy, asked(), decide(policy, asked())) is None
