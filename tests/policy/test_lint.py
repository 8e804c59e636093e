"""Lints: what loads and should be looked at again."""

from datetime import timedelta

import pytest

from policy.asking import NOON, REPORT, load
from policy.test_entitlement import scope_of
from taskmint.config import DEFAULT_CLASSES
from taskmint.policy.lint import lint


def lints(text: str) -> list[str]:
    """Key and problem of each lint of a policy."""
    found = lint(load(text), DEFAULT_CLASSES, NOON)
    return [f"{finding.key}: {finding.problem}" for finding in found]


def with_line(line: str, text: str = REPORT) -> str:
    """The report policy with one more line."""
    return text.replace("    deadline:", f"    {line}\n    deadline:")


def test_the_report_has_nothing_to_complain_of() -> None:
    """Enums only, its class's clocks, nothing unused."""
    assert lints(REPORT) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            REPORT.replace("version: 1", "version: 1\nowners: [team-a]"),
            'tasks.report.owner: "team-orders@example.org" is not among the owners of this policy',
        ),
        (
            with_line("when: request.purpose != ''"),
            "tasks.report.when: rests on what the caller claims, and on nothing else",
        ),
        (
            REPORT.replace("max: 30m", "max: 7h"),
            "tasks.report.deadline.max: 7h is longer than class batch has, 6h",
        ),
        (
            with_line("dead_man: 61s"),
            "tasks.report.dead_man: 61s is longer than class batch has, 1m",
        ),
        (
            REPORT.replace("{region:", "{x: {type: boolean}, region:"),
            "tasks.report.parameters.x: changes nothing",
        ),
        (
            REPORT.replace("ro-{region}", "{region}-{job}"),
            (
                "tasks.report.scope.warehouse: the server can hold a task to database/creds/+ "
                "only, the daemon to the exact path"
            ),
        ),
        (
            REPORT.replace(
                '"creds/ro-{region}"', 'x, method: POST, body: {a: "u-{job}", b: true}'
            ).replace("{region: {enum: [eu, us]}}", "{}"),
            "tasks.report.scope.warehouse: the server allows any a, the daemon the exact one",
        ),
        (
            REPORT.replace(
                '"creds/ro-{region}"', '"x/{region}", method: POST, body: {a: 1, b: "1"}'
            ),
            "tasks.report.scope.warehouse: the server allows any a, the daemon the exact one",
        ),
        (
            with_line("windows: [{starts: 2026-01-01T00:00:00Z, ends: 2026-12-02T12:00:00Z}]"),
            "tasks.report.windows[0]: is past and never opens again",
        ),
    ],
)
def test_what_is_doubtful_is_said_with_its_key(text: str, expected: str) -> None:
    """One doubt, one lint; and it says what could be done."""
    assert lints(text) == [expected]
    (finding,) = lint(load(text), DEFAULT_CLASSES, NOON)
    assert finding.fix
    assert (finding.file, finding.line) == (
        "a.yaml",
        3 + ("owners" in text.split("tasks:", maxsplit=1)[0]),
    )


@pytest.mark.parametrize(
    "text",
    [
        REPORT.replace("version: 1", "version: 1\nowners: [team-orders@example.org]"),
        with_line("when: [request.purpose != '', caller.uid > 0]"),
        REPORT.replace("max: 30m", "max: 6h"),
        with_line("dead_man: 60s"),
        scope_of("token: {policy: p, ttl: 5m, num_uses: 3}").replace(
            "{region: {enum: [eu, us]}}", "{}"
        ),
        with_line("when: request.parameters.x && caller.uid > 0").replace(
            "{region:", "{x: {type: boolean}, region:"
        ),
        with_line(
            "approval: {from: ['group:a'], within: 1h, automatic: request.parameters.x}"
        ).replace("{region:", "{x: {type: boolean}, region:"),
        with_line("windows: [{starts: 2026-01-01T00:00:00Z, ends: 2026-12-02T12:00:01Z}]"),
    ],
)
def test_what_is_fine_is_left_alone(text: str) -> None:
    """The other side of each bound."""
    assert lints(text) == []


def test_a_definition_without_enums_is_linted_as_well() -> None:
    """It has one combination; only what holds a wildcard is told."""
    text = REPORT.replace("{region: {enum: [eu, us]}}", "{}")

    assert lints(text.replace("ro-{region}", "all")) == []
    assert len(lints(text.replace("ro-{region}", "{job}"))) == 1


def test_shadows_are_linted_as_well() -> None:
    """They are written to become real."""
    text = with_line("dead_man: 2m").replace("report:", "report.shadow:\n    shadow: true")

    assert lints(text) == ["tasks.report.dead_man: 2m is longer than class batch has, 1m"]


def test_a_class_that_is_gone_is_not_linted() -> None:
    """Loading found it; the lint does not fall over it."""
    assert lint(load(REPORT), {}, NOON) == ()
    assert lint(load(REPORT), DEFAULT_CLASSES, NOON + timedelta(days=9)) == ()


def test_what_is_never_held_to_one_value_is_not_linted() -> None:
    """A TTL is bounded by its role. The advice is to use enums."""
    secret = 'secret: {mount: database, path: "creds/ro-{region}", proof: login}'
    text = REPORT.replace("{region: {enum: [eu, us]}}", "{}").replace(
        secret,
        "ssh: {mount: ssh, role: ops, operation: sign, principals: ['{job}'], ttl: 5m}",
    )
    (finding,) = lint(load(text), DEFAULT_CLASSES, NOON)
    assert finding.problem == "the server allows any valid_principals, the daemon the exact one"
    assert finding.fix == "enums make the server's bound exact"
