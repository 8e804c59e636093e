"""CEL: checked at load, bounded, and an error never holds (decisions.md, trap 11)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.asking import NOON, REPORT, asked, denied, findings, granted, load
from taskmint.errors import Code
from taskmint.model.scope import DecisionInput, HistoryFacts
from taskmint.policy.condition import (
    FIXED,
    MAX_ENVIRONMENTS,
    MAX_TEXT,
    BadCondition,
    Compiler,
    Condition,
    Outcome,
    variables,
)
from taskmint.policy.facts import READERS
from taskmint.policy.parameter import BooleanParameter, EnumParameter, IntegerParameter

PARAMETERS = (
    EnumParameter("region", ("eu", "us")),
    IntegerParameter("rows", 0, 10),
    BooleanParameter("force"),
)
TYPES = variables(PARAMETERS, frozenset({"job"}), frozenset({"environment"}))
FACTS = {
    "caller.spiffe_id": "spiffe://a.b/c",
    "caller.trust_domain": "a.b",
    "caller.path": "/c",
    "caller.uid": 1000,
    "caller.method": "jwt-svid",
    "caller.captures.job": "nightly",
    "now": NOON,
    "history.grants": 1,
    "history.denials": 2,
    "history.processes": 3,
    "host.environment": "prod",
    "request.purpose": "why",
    "request.ticket": "T-1",
    "request.context": {"tag": "v1"},
    "request.lifetime": timedelta(minutes=5),
    "request.parameters.region": "eu",
    "request.parameters.rows": 7,
    "request.parameters.force": False,
}


DEEP = "(" * 300 + "now == now" + ")" * 300
ALWAYS = "is always the same, whoever asks"
EXPRESSION = "write an expression of CEL (cel.dev)"
BOMB = "[{1}]{0}.size() == 1"
DOUBLED = ".map(a, a + a)"


def compiled(text: str) -> Condition:
    """Compile over all variables."""
    return Compiler().compile(text, TYPES)


@pytest.mark.parametrize(
    "text",
    [
        'caller.spiffe_id == "spiffe://a.b/c"',
        'caller.trust_domain == "a.b" && caller.path == "/c"',
        "caller.uid == 1000",
        'caller.method in ["jwt-svid", "x509-svid"]',
        'caller.captures.job.startsWith("night")',
        "now.getHours() == 12",
        'now.getHours("Europe/Berlin") == 13',
        'now < timestamp("2027-01-01T00:00:00Z")',
        "now.getDayOfWeek() == 3",
        "history.grants + history.denials == history.processes",
        'host.environment == "prod"',
        'request.purpose != "" && request.ticket.matches("^T-[0-9]+$")',
        'request.context["tag"] == "v1" && !("x" in request.context)',
        'request.lifetime <= duration("5m")',
        'request.parameters.region == "eu" && request.parameters.rows < 8',
        "!request.parameters.force",
        'true || host.environment == "x"',
    ],
)
def test_every_fact_can_be_asked_for(text: str) -> None:
    """Under its dotted name, with its own type."""
    assert compiled(text).outcome(FACTS) is Outcome.HOLDS


def test_every_fact_is_among_the_variables() -> None:
    """What decide hands over and what the compiler knows are the same names."""
    assert set(TYPES) == set(FACTS)
    assert set(FIXED) == set(READERS)
    assert set(FIXED) == {
        name for name in FACTS if not name.startswith(("host.", "caller.cap", "request.param"))
    }


def test_false_is_false() -> None:
    """Not an error."""
    assert compiled('host.environment == "test"').outcome(FACTS) is Outcome.FAILS


@pytest.mark.parametrize(
    "text",
    [
        'request.context["absent"] == "v1"',
        'request.context.absent != "v1"',
        "history.grants / (history.grants - 1) == 1",
        'now.getHours("Nowhere/City") == 1',
        "int(request.purpose) == 1",
        "[0, 1][history.processes] == 0",
    ],
)
def test_an_error_does_not_hold(text: str) -> None:
    """The library returns errors as values that Python takes for true: they are not."""
    assert compiled(text).outcome(FACTS) is Outcome.ERROR
    assert compiled(f"!({text})").outcome(FACTS) is Outcome.ERROR


def test_a_fact_that_is_not_there_is_an_error() -> None:
    """A node without the label is not a node with an empty one."""
    without = {name: value for name, value in FACTS.items() if not name.startswith("host.")}

    assert compiled('host.environment != "prod"').outcome(without) is Outcome.ERROR


@pytest.mark.parametrize(
    "value", ["\ud800", 5, None, ["x"], {"x": 1}, 2**70, datetime(1, 1, 1, tzinfo=UTC)]
)
def test_a_fact_of_another_type_is_an_error(value: object) -> None:
    """Whatever reaches the library; lone surrogates included."""
    assert compiled('request.purpose != ""').outcome({**FACTS, "request.purpose": value}) is (
        Outcome.ERROR
    )


def test_a_budget_stops_what_runs_too_long() -> None:
    """Millions of iterations end in an error, soon."""
    text = "history.grants == 1"
    for name in "abc":
        text = f"[{', '.join('1' * 200)}].all({name}, {text})"

    assert compiled(text).outcome(FACTS) is Outcome.ERROR


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("request.purpos", "undeclared reference to 'request.purpos', at 1:8", "did you mean req"),
        ("host.env == 'x'", "undeclared reference to 'host.env', at 1:5", "name env under host_l"),
        ("purpose == ''", "undeclared reference to 'purpose', at 1:1", "did you mean request.pur"),
        ("request.purpose", "is of type string, not bool", "write a comparison"),
        ("dyn(request.purpose)", "is of type dyn, not bool", "write a comparison"),
        ("history.grants", "is of type int, not bool", "write a comparison"),
        ("caller.uid == '0'", "found no matching overload for '_==_'", EXPRESSION),
        ("caller.uid ==", "Syntax error", EXPRESSION),
        ("now > 5", "found no matching overload", EXPRESSION),
        ("'a'.lowerAscii() == request.purpose", "undeclared reference to 'lowerAscii'", "known: "),
        ("true", ALWAYS, "compare with a fact"),
        ("1 / 0 == 1", ALWAYS, "compare with a fact"),
        ('"request.purpose" != ""', ALWAYS, "compare with a fact"),
        ("true // now", ALWAYS, "compare with a fact"),
        (DEEP, "does not compile: CANCELLED: Expression recursion", "write it shorter, or as"),
        (BOMB.format(3 * DOUBLED, "'a'"), ALWAYS, "compare with a fact"),
        (BOMB.format(4 * DOUBLED, "request.purpose"), "goes over lists more than 3 times", "write"),
        ("[now].map (n,n).map(n,n). exists_one(n,n==n) && [1]. all(a,a==1)", "goes over", "write"),
        ("now == now" + " " * MAX_TEXT, "has more than 2000 characters", "write several"),
    ],
)
def test_what_is_no_condition_is_refused_at_load(text: str, problem: str, fix: str) -> None:
    """Unknown names, other types, syntax, constants, depth, length; with what to write."""
    with pytest.raises(BadCondition) as caught:
        compiled(text)

    assert caught.value.problem.startswith(problem)
    assert caught.value.fix.startswith(fix)
    assert "\n" not in caught.value.problem


def test_conditions_may_go_over_lists_three_times() -> None:
    """The bound is what may still be written; words in strings do not count."""
    text = BOMB.format(3 * DOUBLED, "request.purpose + '.map( .all( '")

    assert compiled(text).outcome(FACTS) is Outcome.HOLDS


def test_more_than_there_is_memory_for_is_an_error() -> None:
    """It takes down neither the load nor the daemon."""

    class Greedy:
        """An expression that asks for more than there is."""

        def eval(self, *, data: object) -> Never:
            raise MemoryError(data)

        def return_type(self) -> object:
            """As it was compiled."""
            return bool

    greedy = replace(compiled("now == now"), _expression=Greedy())

    assert greedy.outcome(FACTS) is Outcome.ERROR


def test_variables_come_in_the_same_order_in_every_process() -> None:
    """Traces list them, and the ledger keeps traces; a set's order is another in each process."""
    names = list(variables((), frozenset("zbya"), frozenset("zbya")))

    assert names[len(FIXED) :] == [
        f"{kind}.{name}" for kind in ("caller.captures", "host") for name in "abyz"
    ]


def test_the_longest_text_compiles() -> None:
    """The bound is what may still be written."""
    text = "caller.uid == 1000"

    assert compiled(text.ljust(MAX_TEXT)).outcome(FACTS) is Outcome.HOLDS


def test_equal_texts_are_compiled_once() -> None:
    """Whatever other names a definition has; a name of another type is another condition."""
    compiler = Compiler()
    first = compiler.compile("caller.uid == 1", TYPES)
    rows = compiler.compile("request.parameters.rows != request.parameters.rows", TYPES)
    other = {**TYPES, "request.parameters.rows": "STRING"}

    assert compiler.compile("caller.uid == 1", dict(FIXED)) is first
    assert compiler.compile("caller.uid == 1", other) is first
    assert compiler.compile(rows.text, other) is not rows


def test_names_without_end_are_refused() -> None:
    """Each set of names costs memory, so their number is bounded: a bomb under the size cap."""
    compiler = Compiler()
    for number in range(MAX_ENVIRONMENTS):
        name = f"request.parameters.p{number}"
        compiler.compile(f"{name} == 'x'", {**FIXED, name: "STRING"})

    with pytest.raises(
        BadCondition, match="reads one more set of names of its own than 500"
    ) as caught:
        compiler.compile("request.parameters.q == 'x'", {**FIXED, "request.parameters.q": "STRING"})
    assert caught.value.fix == "give parameters and captures common names"


def test_a_condition_reads_only_what_it_names() -> None:
    """So that a decision does not pay for the rest."""
    assert compiled('host.environment == "now" && caller.uid > 0').names == (
        "caller.uid",
        "host.environment",
    )


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ('request.purpose != ""', True),
        ('request.purpose != "" && request.parameters.rows < 3', True),
        ("request.purpose == 'now' || request.ticket == \"caller.uid\"", True),
        ("request.purpose != '' // now", True),
        ('request.purpose != "" && now > timestamp("2026-01-01T00:00:00Z")', False),
        ("history.grants < 3", False),
        ('host.environment == "x"', False),
        ('caller.captures.job == "x"', False),
    ],
)
def test_what_rests_on_claims_is_known(text: str, claims: bool) -> None:
    """What stands in a string or a comment is not read."""
    assert compiled(text).rests_on_claims is claims


@given(st.text(max_size=80))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    """Nothing but BadCondition comes out of the compiler."""
    try:
        condition = Compiler().compile(text, TYPES)
    except BadCondition:
        return
    assert condition.outcome(FACTS) in Outcome


WHEN = REPORT.replace("    deadline:", "    when: {}\n    deadline:").replace(
    "version: 1\n", "version: 1\nhost_labels: [environment]\n"
)


def with_when(text: str) -> str:
    """The report policy with a `when`."""
    return WHEN.replace("when: {}", f"when: {text}")


def told(given: DecisionInput) -> DecisionInput:
    """The usual request with a purpose, on a production host."""
    return replace(
        given,
        request=replace(given.request, purpose="why", context={"tag": "v1"}),
        host={"environment": "prod"},
        history=HistoryFacts(1, 2, 3),
    )


def test_every_clause_must_hold() -> None:
    """A list is a conjunction; the trace names each clause up to the one that fails."""
    policy = load(with_when("[request.purpose == 'why', history.grants < 1]"))
    denial = denied(policy, told(asked()), Code.NOT_PERMITTED)

    assert denial.detail == "a condition of this task is not met"
    assert denial.trace[-2:] == (
        "when: true, request.purpose == 'why'",
        "when: false, history.grants < 1",
    )


def test_a_condition_sees_the_decisions_facts() -> None:
    """Captures, parameters, lifetime, history and host, as they were given."""
    text = (
        "caller.captures.job == 'nightly' && request.parameters.region == 'eu' "
        "&& request.lifetime == duration('5m') && history.denials == 2 "
        "&& host.environment == 'prod' && caller.method == 'jwt-svid' && caller.uid == 1000 "
        "&& request.context['tag'] == 'v1' && request.ticket == '' && now.getHours() == 12 "
        "&& caller.trust_domain == 'example.org' && caller.path == '/ns/orders/sa/nightly' "
        "&& caller.spiffe_id == 'spiffe://example.org/ns/orders/sa/nightly' "
        "&& history.processes == 3 && history.grants == 1 && request.purpose == 'why'"
    )
    scope = granted(load(with_when(f'"{text}"')), told(asked()))

    assert f"when: true, {text}" in scope.trace


def test_an_error_denies_and_the_trace_says_what_was_not_known() -> None:
    """Fail closed (P12); the operator learns which fact is missing."""
    policy = load(with_when("host.environment != 'test'"))
    denial = denied(policy, asked(), Code.NOT_PERMITTED)

    assert denial.trace[-1] == (
        "when: error, host.environment != 'test'; unknown here: host.environment"
    )


def test_a_trace_holds_no_free_text() -> None:
    """Purpose, ticket and context are purged from the ledger one day; the trace is not."""
    policy = load(with_when("int(request.purpose) + int(request.ticket) == 1"))
    given = asked()
    request = replace(
        given.request, purpose="canary-purpose", ticket="canary-ticket", context={"k": "canary-c"}
    )
    denial = denied(policy, replace(given, request=request), Code.NOT_PERMITTED)

    assert "canary" not in repr(denial)


def test_a_typo_in_a_condition_is_found_at_load() -> None:
    """At the clause, with the place inside it and the name that was meant."""
    text = with_when("[request.purpose != '', request.porpoise == 'x']")

    (only,) = findings(text)

    assert only == (
        "a.yaml:9:35: tasks.report.when[1]: undeclared reference to 'request.porpoise', at 1:8 of "
        "the expression; did you mean request.purpose?"
    )


def test_host_labels_are_declared() -> None:
    """In any of the files; a label that none declares is a typo."""
    text = with_when("host.enviroment == 'prod'")
    (only,) = findings(text)

    assert only.endswith("name enviroment under host_labels, if nodes have it")
    load(text, MINIMAL.replace("version: 1", "version: 1\nhost_labels: [enviroment]"))


MINIMAL = (
    REPORT.replace("report:", "other:")
    .replace("{region: {enum: [eu, us]}}", "{}")
    .replace("ro-{region}", "ro")
)


def test_another_mistake_does_not_make_host_labels_unknown() -> None:
    """One finding, not one and its echo."""
    text = with_when("host.environment == 'prod'").replace("version: 1", "version: 2")

    assert findings(text) == ["a.yaml:1:10: version: is not one of the known words; write 1"]


def test_only_the_facts_that_are_asked_for_are_read() -> None:
    """So a definition without conditions does not pay for any, nor load the library."""
    approval = "approval: {from: ['group:a'], within: 1h, automatic: now.getHours() < 6}"
    text = with_when("[caller.uid > 0, caller.uid < 9]").replace("when:", f"{approval}\n    when:")

    assert load(REPORT).definitions["report"].fact_names == ()
    assert load(text).definitions["report"].fact_names == ("caller.uid", "now")


def test_identical_conditions_are_compiled_once() -> None:
    """In one load, whichever definition asks: one compiled expression and one environment."""
    text = REPORT + REPORT.split("tasks:\n")[1].replace("report:", "other:")
    policy = load(text.replace("deadline:", 'when: request.purpose != ""\n    deadline:'))
    one, other = (policy.definitions[name].conditions[0] for name in ("report", "other"))

    assert one is other


def test_equal_texts_over_other_types_are_not_shared() -> None:
    """A parameter of the same name may be a number here and a word there."""
    word, number = "region: {enum: [eu, us]}", "region: {type: integer, min: 1, max: 9}"
    when = "when: request.parameters.region != {}\n    deadline:"
    other = REPORT.split("tasks:\n")[1].replace("report:", "other:").replace(word, number)
    policy = load(
        REPORT.replace("deadline:", when.format('"eu"'))
        + other.replace("deadline:", when.format("7")).replace("ro-{region}", "other")
    )

    assert [policy.definitions[name].conditions[0].text[-2:] for name in ("report", "other")] == [
        *('u"', " 7")
    ]
