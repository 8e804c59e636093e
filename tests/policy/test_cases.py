"""Policy tests: cases in YAML, clear differences, and what no case exercised."""

import pytest

from policy.asking import REPORT, load
from taskmint.errors import Code, ConfigError
from taskmint.policy.cases import Case, Mismatch, Verdict, read_cases, run_case
from taskmint.policy.exercise import clauses, exercised

HEAD = """\
version: 1
given:
  caller: spiffe://example.org/ns/orders/sa/nightly
  task: report
  parameters: {region: eu}
cases:
"""


def cases(text: str) -> tuple[Case, ...]:
    """Read cases below the usual head."""
    return read_cases("t.yaml", (HEAD + text).encode())


def verdict(expect: str, given: str = "{}", policy: str = REPORT) -> Verdict:
    """Run one case."""
    (case,) = cases(f"  - {{name: n, given: {given}, expect: {expect}}}\n")
    return run_case(load(policy), case)


@pytest.mark.parametrize(
    ("expect", "given"),
    [
        ("{decision: allow}", "{}"),
        (
            (
                "{decision: allow, scope: {warehouse: GET database/creds/ro-eu}, lease: 60s, "
                "lifetime: 5m, bind: peer}"
            ),
            "{}",
        ),
        ("{decision: allow, lifetime: 7m, bind: parent}", "{ttl: 7m, bind: parent}"),
        ("{decision: deny, code: parameter_invalid, because: parameters}", "{parameters: {}}"),
        ("{decision: deny, code: not_permitted, because: task}", "{task: other}"),
        ("{decision: deny, because: who}", "{caller: spiffe://example.org/x}"),
        ("{decision: deny, because: deadline}", "{ttl: 31m}"),
        ("{decision: deny, code: bind_refused, because: ends}", "{bind: unit}"),
        ("{decision: deny, scope: {}}", "{task: other}"),
    ],
)
def test_a_case_that_comes_out_as_expected_has_no_mismatch(expect: str, given: str) -> None:
    """What is not named is not checked."""
    assert verdict(expect, given).mismatches == ()


@pytest.mark.parametrize(
    ("expect", "mismatches"),
    [
        ("{decision: deny}", [("decision", "deny", "allow")]),
        ("{decision: approval}", [("decision", "approval", "allow")]),
        ("{decision: allow, shadow: allow}", [("shadow", "allow", "none")]),
        ("{decision: allow, code: not_permitted}", [("code", "not_permitted", "none")]),
        ("{decision: allow, because: who}", [("because", "who", "none")]),
        (
            "{decision: allow, scope: {b: GET x, a: GET y}}",
            [("scope", "a: GET y\nb: GET x", "warehouse: GET database/creds/ro-eu")],
        ),
        (
            "{decision: allow, scope: {}}",
            [("scope", "none", "warehouse: GET database/creds/ro-eu")],
        ),
        ("{decision: allow, lease: 61s}", [("lease", "61s", "1m")]),
        ("{decision: allow, lifetime: 4m}", [("lifetime", "4m", "5m")]),
        ("{decision: allow, bind: unit}", [("bind", "unit", "peer")]),
        (
            "{decision: deny, lifetime: 4m}",
            [("decision", "deny", "allow"), ("lifetime", "4m", "5m")],
        ),
    ],
)
def test_a_mismatch_says_what_was_expected_and_what_came(
    expect: str, mismatches: list[tuple[str, str, str]]
) -> None:
    """Each by itself, whole scopes line by line."""
    assert verdict(expect).mismatches == tuple(Mismatch(*each) for each in mismatches)


def test_a_denial_has_neither_scope_nor_clocks() -> None:
    """Nothing is expected of what was not granted."""
    mismatches = verdict(
        "{decision: deny, scope: {a: b}, lease: 1s, lifetime: 1s, bind: peer}", "{task: x}"
    ).mismatches

    assert [each.actual for each in mismatches] == ["none", "none", "none", "none"]


def test_everything_that_decides_can_be_given() -> None:
    """Identity, claims, time, host and history."""
    (case,) = cases(
        "  - name: n\n    given: {uid: 7, method: delegated, token: process, purpose: p, "
        "ticket: t, context: {k: v}, at: 2026-12-02T12:00:00Z, host: {environment: prod}, "
        "history: {grants: 1, denials: 2, processes: 3}, approved: true, "
        "parameters: {a: x, b: 5, c: true, d: '5', e: -5, f: false, g: 'false'}, "
        "public_keys: {k: ssh-ed25519 AAAA}}\n    expect: {decision: allow}\n"
    )
    given = case.given

    assert (given.caller.uid, given.caller.method, given.caller.binding) == (
        7,
        "delegated",
        "process",
    )
    assert given.request.parameters == {
        "a": "x",
        "b": 5,
        "c": True,
        "d": "5",
        "e": -5,
        "f": False,
        "g": "false",
    }
    assert given.request.public_keys == {"k": "ssh-ed25519 AAAA"}
    assert (given.request.purpose, given.request.ticket) == ("p", "t")
    assert given.request.context == {"k": "v"}
    assert given.now.isoformat() == "2026-12-02T12:00:00+00:00"
    assert given.host == {"environment": "prod"}
    assert (given.history.grants, given.history.denials, given.history.processes) == (1, 2, 3)
    assert given.approved
    assert (case.file, case.line, case.name) == ("t.yaml", 7, "n")


def test_a_case_overrides_the_files_given() -> None:
    """Key by key, and whole keys."""
    first, second = cases(
        "  - {name: a, expect: {decision: allow}}\n"
        "  - {name: b, given: {parameters: {region: us}}, expect: {decision: allow}}\n"
    )

    assert first.given.request.parameters == {"region": "eu"}
    assert second.given.request.parameters == {"region": "us"}
    assert second.given.request.task == "report"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 1\ncases: []\n", "t.yaml:2:8: cases: is too short; write at least 1"),
        (
            "version: 1\ncases: [{name: n, given: {task: x}, expect: {decision: deny}}]\n",
            (
                "t.yaml:2:9: cases[0]: says neither itself nor in the file's given who asks for "
                "what; write caller and task"
            ),
        ),
        (
            HEAD + "  - {name: n, expect: {decison: allow}}",
            "t.yaml:7:23: cases[0].expect.decision: is missing; add it",
        ),
        (
            HEAD + "  - {name: n, given: {caller: x}, expect: {decision: allow}}",
            "t.yaml:7:31: cases[0].given.caller: is no SPIFFE ID; a SPIFFE ID starts with spiffe://",
        ),
        (
            HEAD + "  - {name: n, given: {parameters: {a: []}}, expect: {decision: allow}}",
            (
                "t.yaml:7:39: cases[0].given.parameters.a: must be a word, a number or a boolean; "
                "write one"
            ),
        ),
        (
            HEAD + "  - {name: n, given: {parameters: {a: 007}}, expect: {decision: allow}}",
            't.yaml:7:39: cases[0].given.parameters.a: YAML reads this as a number; write "007"',
        ),
        (
            HEAD + "  - {name: n, given: {parameters: {a: no}}, expect: {decision: allow}}",
            "t.yaml:7:39: cases[0].given.parameters.a: YAML reads this as true or false; write",
        ),
        (
            HEAD + "  - &a {name: n, expect: {decision: allow}}",
            "t.yaml:7:5: cases: anchors are not",
        ),
    ],
)
def test_a_test_file_is_as_strict_as_a_policy(text: str, expected: str) -> None:
    """A typo in a test must not make it pass."""
    with pytest.raises(ConfigError) as caught:
        read_cases("t.yaml", text.encode())

    assert caught.value.code is Code.POLICY_INVALID
    assert str(min(caught.value.findings)).startswith(expected)


FULL = REPORT.replace(
    "    deadline:",
    "    identity: {methods: [jwt-svid]}\n"
    '    windows: [{from: "01:00", to: "02:00"}]\n'
    "    when: [caller.uid > 0, caller.uid < 9]\n"
    "    approval: {from: ['group:a'], within: 1h, automatic: history.grants == 0}\n"
    "    deadline:",
) + REPORT.split("tasks:\n")[1].replace("report:", "report.shadow:\n    shadow: true")


def test_the_clauses_of_a_policy_are_listed() -> None:
    """Every outcome that a test should have seen, shadows by their key."""
    listed = [(clause.task, clause.clause) for clause in clauses(load(FULL))]

    assert listed == [
        ("report", "granted"),
        ("report", "who: spiffe://example.org/ns/orders/sa/{job}"),
        ("report", "identity: accepted"),
        ("report", "identity: refused"),
        ("report", "windows: mon,tue,wed,thu,fri,sat,sun 01:00-02:00 UTC is open"),
        ("report", "windows: none is open"),
        ("report", "when: true, caller.uid > 0"),
        ("report", "when: false, caller.uid > 0"),
        ("report", "when: true, caller.uid < 9"),
        ("report", "when: false, caller.uid < 9"),
        ("report", "approval: given"),
        ("report", "approval: needed"),
        ("report", "approval: automatic"),
        ("report.shadow", "granted"),
        ("report.shadow", "who: spiffe://example.org/ns/orders/sa/{job}"),
    ]


def test_a_decision_exercises_the_clauses_it_reached() -> None:
    """Each as its trace says, and no further; a case without approval may not have one."""
    policy = load(FULL)
    (case,) = cases(
        "  - {name: n, given: {uid: 5, at: 2026-12-02T01:30:00Z, history: {grants: 1}}, "
        "expect: {decision: approval}}\n"
    )
    outcome = run_case(policy, case)
    assert outcome.shadow is not None

    seen = exercised(policy, [("report", outcome.decision), ("report.shadow", outcome.shadow)])

    assert {(clause.task, clause.clause.split(",")[0]) for clause in seen} == {
        ("report", "who: spiffe://example.org/ns/orders/sa/{job}"),
        ("report", "identity: accepted"),
        ("report", "windows: mon"),
        ("report", "when: true"),
        ("report", "approval: needed"),
        ("report.shadow", "granted"),
        ("report.shadow", "who: spiffe://example.org/ns/orders/sa/{job}"),
    }


def clauses_of(policy: str, given: str, decision: str = "deny") -> set[str]:
    """The clauses that one case exercises."""
    loaded = load(policy)
    outcome = verdict(f"{{decision: {decision}}}", given, policy)
    assert outcome.mismatches == ()
    return {each.clause for each in exercised(loaded, [("report", outcome.decision)])}


def test_a_condition_is_exercised_by_itself() -> None:
    """Not by another that begins with the same words."""
    text = REPORT.replace(
        "    deadline:", "    when: [caller.uid > 1, caller.uid > 1000]\n    deadline:"
    )
    who = "who: spiffe://example.org/ns/orders/sa/{job}"

    assert clauses_of(text, "{uid: 5}") == {
        who,
        "when: true, caller.uid > 1",
        "when: false, caller.uid > 1000",
    }
    assert clauses_of(text, "{uid: 0}") == {who, "when: false, caller.uid > 1"}


def test_a_condition_that_cannot_be_decided_is_not_exercised() -> None:
    """It neither held nor failed, whatever the trace adds."""
    text = REPORT.replace("version: 1", "version: 1\nhost_labels: [zone]").replace(
        "    deadline:", "    when: host.zone == 'a'\n    deadline:"
    )

    assert clauses_of(text, "{}") == {"who: spiffe://example.org/ns/orders/sa/{job}"}


def test_a_key_that_is_refused_does_not_exercise_that_it_will_do() -> None:
    """Whatever the entitlement is called."""
    ssh = "ssh: {mount: s, role: r, operation: sign, principals: [u], ttl: 5m}"
    text = REPORT.split("    scope:")[0] + f"    scope:\n      the: {{{ssh}}}\n"

    assert clauses_of(text, "{}") == {"who: spiffe://example.org/ns/orders/sa/{job}"}
    assert [each.clause for each in clauses(load(text))][-1] == "public_keys: the will do"


def test_the_binding_of_a_token_is_a_clause() -> None:
    """Accepted and refused; of other proofs nothing is bound."""
    text = REPORT.replace("    deadline:", "    identity: {token: process}\n    deadline:")
    who = "who: spiffe://example.org/ns/orders/sa/{job}"

    assert [each.clause for each in clauses(load(text))] == [
        "granted",
        who,
        "identity: token accepted",
        "identity: token refused",
    ]
    assert clauses_of(text, "{token: process}", "allow") == {
        "granted",
        who,
        "identity: token accepted",
    }
    assert clauses_of(text, "{token: uid}") == {who, "identity: token refused"}
    assert clauses_of(text, "{method: x509-svid}", "allow") == {"granted", who}


@pytest.mark.parametrize(("method", "listed"), [("jwt-svid", 2), ("x509-svid", 0)])
def test_a_binding_that_no_accepted_proof_has_is_no_clause(method: str, listed: int) -> None:
    """Nobody could exercise it."""
    text = REPORT.replace(
        "    deadline:", f"    identity: {{methods: [{method}], token: process}}\n    deadline:"
    )

    assert len([each for each in clauses(load(text)) if "token" in each.clause]) == listed


def test_an_emergency_is_a_clause() -> None:
    """With its ticket and without."""
    text = REPORT.replace("    deadline:", "    break_glass: true\n    deadline:")
    who = "who: spiffe://example.org/ns/orders/sa/{job}"

    assert [each.clause for each in clauses(load(text))] == [
        "granted",
        who,
        "break_glass: under",
        "break_glass: refused",
    ]
    assert clauses_of(text, "{purpose: p, ticket: t}", "allow") == {
        "granted",
        who,
        "break_glass: under",
    }
    assert clauses_of(text, "{purpose: p}") == {who, "break_glass: refused"}
