"""The decision: pure, total, and it says why."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.asking import JOB, REPORT, asked, denied, findings, granted, load
from taskmint.errors import Code
from taskmint.model.scope import (
    BindKind,
    Decision,
    DecisionInput,
    Denial,
    Ends,
    Entitlement,
    EntitlementKind,
    ParameterValue,
    ProofLevel,
    RequestFacts,
    Scope,
)
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.decide import decide
from taskmint.policy.enumerate import enumerate_definitions
from taskmint.policy.parameter import EnumParameter

POLICY = load(REPORT)


def test_a_permitted_request_gets_its_whole_scope() -> None:
    """Everything the daemon needs to mint, renew and end, and the digest of who decided."""
    scope = granted(POLICY, asked())

    assert scope == Scope(
        definition="report",
        policy_digest=POLICY.digest,
        token_role="taskmint-task-report",
        token_policy="taskmint-task-report.eu",
        entitlements=(
            Entitlement(
                name="warehouse",
                kind=EntitlementKind.SECRET,
                mount="database",
                path="creds/ro-eu",
                proof=ProofLevel.LOGIN,
            ),
        ),
        dead_man=timedelta(seconds=60),
        lifetime=timedelta(minutes=5),
        ends=Ends(bind=(BindKind.PEER,), heartbeat=timedelta(seconds=60)),
        trace=scope.trace,
    )


def test_the_trace_says_each_step() -> None:
    """For the operator: which definition, which pattern, which values."""
    assert granted(POLICY, asked()).trace == (
        "task: report, a.yaml:3",
        f"who: spiffe://example.org/ns/orders/sa/{{job}} matches {JOB}",
        "parameters: region = eu",
        "deadline: 5m, at most 30m",
        "ends: bound to peer",
    )


def test_an_unknown_task_and_a_forbidden_one_look_alike() -> None:
    """No oracle: the same code and the same words; the trace knows which."""
    unknown = denied(POLICY, asked("reprot"), Code.NOT_PERMITTED)
    forbidden = denied(
        POLICY, asked(who="spiffe://example.org/ns/sales/sa/nightly"), Code.NOT_PERMITTED
    )

    assert replace(unknown, trace=()) == replace(forbidden, trace=())
    assert unknown.trace == ('task: no definition is named "reprot"',)
    assert forbidden.trace == (
        "task: report, a.yaml:3",
        "who: no pattern matches spiffe://example.org/ns/sales/sa/nightly",
    )


def test_who_may_not_ask_learns_nothing_from_bad_parameters() -> None:
    """Identity is decided before anything that the request claims."""
    given = asked("report", {"x": "y"}, who="spiffe://other.org/x", ttl=timedelta(days=9))

    denied(POLICY, given, Code.NOT_PERMITTED)


@pytest.mark.parametrize(
    ("parameters", "detail"),
    [
        ({}, 'parameter "region" is missing'),
        ({"region": "uk"}, 'parameter "region" must be one of: eu, us'),
        ({"region": "EU"}, 'parameter "region" must be one of: eu, us'),
        ({"region": 1}, 'parameter "region" must be one of: eu, us'),
        (
            {"region": "eu", "regoin": "eu"},
            'parameter "regoin" is not a parameter of this task; did you mean region?',
        ),
        (
            {"region": "eu", "job": "admin"},
            'parameter "job" is not a parameter of this task; known: region',
        ),
    ],
)
def test_bad_parameters_are_refused_by_name(
    parameters: dict[str, ParameterValue], detail: str
) -> None:
    """Missing, unknown, out of range; a captured name cannot be claimed."""
    denial = denied(POLICY, asked(parameters=parameters), Code.PARAMETER_INVALID)

    assert denial.detail == detail
    assert denial.trace[-1] == f"parameters: {detail}"


def test_a_longer_life_than_the_policy_allows_is_refused() -> None:
    """Not clamped: the caller is told the limit."""
    at_most = granted(POLICY, asked(ttl=timedelta(minutes=30)))
    denial = denied(POLICY, asked(ttl=timedelta(minutes=30, seconds=1)), Code.TTL_EXCEEDS_POLICY)

    assert at_most.lifetime == timedelta(minutes=30)
    assert denial.detail == "the longest lifetime of this task is 30m"


@pytest.mark.parametrize("ttl", [timedelta(), timedelta(seconds=-1)])
def test_a_life_of_nothing_is_refused(ttl: timedelta) -> None:
    """Whatever let it come this far."""
    denial = denied(POLICY, asked(ttl=ttl), Code.TTL_EXCEEDS_POLICY)

    assert denial.detail == "a lifetime is longer than nothing"
    assert denial.trace[-1] == f"deadline: {ttl} was asked for"


def test_the_end_asked_for_must_be_listed() -> None:
    """Silence takes the first; the scope names the one that holds."""
    silent = granted(POLICY, asked())
    second = granted(POLICY, asked(bind=BindKind.PARENT))
    denial = denied(POLICY, asked(bind=BindKind.UNIT), Code.BIND_REFUSED)

    assert (silent.ends.bind, second.ends.bind) == ((BindKind.PEER,), (BindKind.PARENT,))
    assert denial.detail == "this task can be bound to: peer, parent"


def test_a_definition_without_bind_binds_to_nothing() -> None:
    """And refuses to be asked for it."""
    policy = load(REPORT.replace("bind: [peer, parent], ", ""))

    assert granted(policy, asked()).ends.bind == ()
    denial = denied(policy, asked(bind=BindKind.PEER), Code.BIND_REFUSED)
    assert denial.detail == "this task can be bound to: nothing"
    assert "ends: bound to nothing" in granted(policy, asked()).trace


def test_the_facts_that_a_condition_misses_are_named() -> None:
    """For whoever reads the trace: what the node does not know."""
    text = REPORT.replace("version: 1", "version: 1\nhost_labels: [zone, rack]").replace(
        "    deadline:", "    when: host.zone == host.rack\n    deadline:"
    )
    denial = denied(load(text), asked(), Code.NOT_PERMITTED)
    line, _, unknown = denial.trace[-1].partition("; unknown here: ")
    assert line.endswith("host.zone == host.rack")
    assert sorted(unknown.split(", ")) == ["host.rack", "host.zone"]


def test_captured_segments_come_from_the_identity() -> None:
    """`{job}` is what was proven, in path and body; the request has no say."""
    policy = load(
        REPORT.replace(
            'path: "creds/ro-{region}"',
            'path: "creds/{job}", method: POST, body: {for: "{job} in {region}"}',
        )
    )
    (warehouse,) = granted(policy, asked()).entitlements

    assert warehouse.path == "creds/nightly"
    assert warehouse.body == {"for": "nightly in eu"}


def test_typed_parameters_reach_the_body_with_their_type() -> None:
    """Text from a command line becomes the number or boolean that was declared."""
    policy = load(
        REPORT.replace(
            "{region: {enum", "{n: {type: integer, min: 1, max: 9}, region: {enum"
        ).replace('path: "creds/ro-{region}"', 'path: "x/{n}", method: POST, body: {n: "{n}"}')
    )
    (warehouse,) = granted(policy, asked(parameters={"region": "eu", "n": "7"})).entitlements

    assert warehouse.path == "x/7"
    assert warehouse.body == {"n": 7}


def test_the_token_policy_names_the_enums_that_are_used() -> None:
    """In declared order; an enum that the scope does not use does not split the plan."""
    text = REPORT.replace(
        "{region: {enum: [eu, us]}}",
        "{size: {enum: [s, l]}, region: {enum: [eu, us]}, unused: {enum: [x]}}",
    )
    parameters: dict[str, ParameterValue] = {"region": "us", "size": "l", "unused": "x"}
    both = load(text.replace("ro-{region}", "{region}-{size}"))
    none = load(text.replace("ro-{region}", "all"))

    assert granted(both, asked(parameters=parameters)).token_policy == "taskmint-task-report.l.us"
    assert granted(none, asked(parameters=parameters)).token_policy == "taskmint-task-report"


def test_a_value_that_is_no_word_never_reaches_a_path() -> None:
    """A second fence: even an enum that the loader should not have let in is refused."""
    definition = POLICY.definitions["report"]
    hostile = EnumParameter("region", ("../../sys/health",))
    policy = replace(POLICY, definitions={"report": replace(definition, parameters=(hostile,))})
    given_ = asked(parameters={"region": "../../sys/health"})
    denial = denied(policy, given_, Code.PARAMETER_INVALID)

    assert denial.detail == "a parameter will not do"
    assert denial.trace[-1].startswith("scope: a value is one word")


def test_the_same_input_decides_the_same() -> None:
    """What the ledger recorded can be decided again (P11)."""
    assert decide(POLICY, asked()) == decide(POLICY, asked())


HOSTILE_TEXT = st.one_of(
    st.text(),
    st.sampled_from(
        ["report", "region", "eu", "us", "job", "../..", "eu\n", "{{x}}", "\ud800", ""]
    ),
)
VALUES = st.one_of(HOSTILE_TEXT, st.integers(), st.booleans())
REQUESTS = st.builds(
    RequestFacts,
    task=HOSTILE_TEXT,
    parameters=st.dictionaries(HOSTILE_TEXT, VALUES),
    purpose=HOSTILE_TEXT,
    ticket=st.none() | HOSTILE_TEXT,
    context=st.dictionaries(HOSTILE_TEXT, HOSTILE_TEXT),
    ttl=st.none() | st.timedeltas(),
    bind=st.none() | st.sampled_from(BindKind),
)
MANY = load(
    REPORT,
    REPORT.replace("report:", "free:")
    .replace("{region: {enum: [eu, us]}}", "{region: {type: segment}, b: {type: boolean}}")
    .replace("ro-{region}", "{job}/x-{region}/{b}"),
)
CALLERS = st.sampled_from(
    [JOB, "spiffe://example.org/ns/orders/sa/a.b", "spiffe://other.org/x", "spiffe://example.org"]
)


def reachable(decision: Scope) -> bool:
    """Whether a granted request is one that the enumeration spans (P3)."""
    for definition in enumerate_definitions(MANY):
        for combination in definition.combinations:
            if combination.token_policy != decision.token_policy:
                continue
            return all(
                spans(span, entitlement)
                for span, entitlement in zip(
                    combination.entitlements, decision.entitlements, strict=True
                )
            )
    return False


def spans(span: Entitlement, made: Entitlement) -> bool:
    """Segment by segment; `+` spans any one segment that is not empty."""
    wanted, have = span.path.split("/"), made.path.split("/")
    same = replace(span, path=made.path) == made
    return (
        same
        and len(wanted) == len(have)
        and all(
            (want == "+" and one) or want == one for want, one in zip(wanted, have, strict=True)
        )
    )


@given(REQUESTS, CALLERS, st.booleans(), st.booleans())
def test_every_request_is_decided_and_no_grant_leaves_the_plan(
    request: RequestFacts, caller: str, known: bool, valid: bool
) -> None:
    """P3: whatever is asked, the answer is a Denial or a Scope that the enumeration spans."""
    given = asked(who="spiffe://example.org/x")
    if known:
        request = replace(request, task="free", ttl=None, bind=None)
    if valid:
        region = request.parameters.get("region", "eu")
        request = replace(request, parameters={"region": region, "b": True})
    given = replace(
        given, request=request, caller=replace(given.caller, spiffe_id=SpiffeId.parse(caller))
    )
    decision: Decision = decide(MANY, given)

    if isinstance(decision, Scope):
        assert caller == JOB
        assert reachable(decision)
    else:
        assert isinstance(decision, Denial)
        assert decision.code in set(Code)
        assert decision.detail


EMERGENCY = REPORT.replace("    deadline:", "    break_glass: true\n    deadline:")


def urgent(purpose: str, ticket: str | None) -> DecisionInput:
    """The usual request, with what an emergency asks for."""
    usual = asked()
    return replace(usual, request=replace(usual.request, purpose=purpose, ticket=ticket))


@pytest.mark.parametrize(
    ("purpose", "ticket"),
    [("", "T-1"), (" ", "T-1"), ("the table is locked", None), ("the table is locked", " \t")],
)
def test_an_emergency_without_purpose_or_ticket_is_refused(
    purpose: str, ticket: str | None
) -> None:
    """White space is neither; both are asked for."""
    denial = denied(load(EMERGENCY), urgent(purpose, ticket), Code.NOT_PERMITTED)
    assert denial.detail == "an emergency needs a purpose and a ticket"
    assert denial.trace[-1] == "break_glass: an emergency needs a purpose and a ticket"


def test_an_emergency_is_granted_under_its_ticket() -> None:
    """The trace says under which; another task needs none."""
    scope = granted(load(EMERGENCY), urgent("the table is locked", "T-1"))
    assert scope.break_glass
    assert 'break_glass: under ticket "T-1"' in scope.trace
    assert not any("break_glass" in line for line in granted(POLICY, asked()).trace)


def test_an_emergency_is_short() -> None:
    """Four hours at most, found at load."""
    longest = load(EMERGENCY.replace("max: 30m", "max: 4h")).definitions["report"]
    assert longest.deadline_max == timedelta(hours=4)
    (found,) = findings(EMERGENCY.replace("max: 30m", "max: 241m"))
    assert found == (
        "a.yaml:9:15: tasks.report.deadline: an emergency may last 241m; "
        "set deadline.max to at most 4h"
    )
