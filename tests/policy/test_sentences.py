"""Findings and lints in full, as a person reads them: place, key, what is wrong, what to write."""

import pytest

from policy.asking import NOON, REPORT, findings, load
from policy.test_entitlement import DATABASE, scope_of
from policy.test_lint import with_line
from taskmint.config import DEFAULT_CLASSES
from taskmint.policy.lint import lint

BRACES = (
    "has a brace outside a placeholder like {name}; "
    "braces enclose the name of a parameter or a captured segment"
)
ONE_SEGMENT = '"a/b" is more than one segment; write the role\'s name alone'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "pki: {mount: p, role: a/b, common_name: x, ttl: 1m}",
            f"31: pki.role: {ONE_SEGMENT}",
        ),
        (
            "pki: {mount: p, role: r, common_name: x, alt_names: ['{'], ttl: 1m}",
            f'62: pki.alt_names[0]: "{{" {BRACES}',
        ),
        ("ssh: {mount: s, role: a/b, operation: otp, ip: x}", f"31: ssh.role: {ONE_SEGMENT}"),
        (
            "ssh: {mount: s, role: '..', operation: otp, ip: x}",
            (
                '31: ssh.role: "creds/.." has an empty segment, a . or a ..; '
                "write for example creds/orders-{region}"
            ),
        ),
        (
            "ssh: {mount: s, role: r, operation: sign, principals: ['{'], ttl: 1m}",
            f'64: ssh.principals[0]: "{{" {BRACES}',
        ),
        ("ssh: {mount: s, role: r, operation: otp, ip: '}'}", f'54: ssh.ip: "}}" {BRACES}'),
        (
            "ssh: {mount: s, role: r, operation: otp, ip: x, username: '{'}",
            f'67: ssh.username: "{{" {BRACES}',
        ),
        (
            DATABASE.replace("{{username}}", "{{{name}}}"),
            (
                '226: database.revocation[0]: "DROP ROLE \\"{{{name}}}\\"" has a brace that is '
                "neither Vault's nor a placeholder's; double braces are Vault's, "
                "single ones an enum's"
            ),
        ),
        (
            "secret: {mount: m, path: x, method: POST, body: {a: {b: '{'}}}",
            f'65: secret.body.a.b: "{{" {BRACES}',
        ),
        *(
            (
                f"secret: {{mount: m, path: x, method: POST, body: {{a: '{text}'}}}}",
                (
                    f'61: secret.body.a: "{text}" begins or ends with *, which is a wildcard '
                    "in an ACL; write the text without a * at its beginning and end"
                ),
            )
            for text in ("*", "abc*", "*abc")
        ),
        (
            "secret: {mount: m, path: x, method: POST, body: {a: [x, '}']}}",
            f'65: secret.body.a[1]: "}}" {BRACES}',
        ),
    ],
)
def test_an_entitlement_that_will_not_do_is_told_in_one_sentence(text: str, expected: str) -> None:
    """To the column."""
    column, _, rest = expected.partition(": ")

    assert findings(scope_of(text)) == [f"a.yaml:13:{column}: tasks.report.scope.warehouse.{rest}"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "windows: [{starts: 2026-01-02T00:00:00Z, ends: 2026-01-01T00:00:00Z}]",
            "15: windows[0]: ends before it starts, so it is never open; write starts before ends",
        ),
        (
            "windows: [{from: '09:00', to: '11:00', zone: Mars}]",
            (
                '50: windows[0].zone: "Mars" is no time zone here; write an IANA name, such as '
                "Europe/Berlin; without tzdata only UTC is known"
            ),
        ),
        (
            "approval: {from: [nobody], within: 1h}",
            (
                '23: approval.from[0]: "nobody" is no approver; '
                "write group:NAME, user:NAME or a SPIFFE ID"
            ),
        ),
        (
            "approval: {from: ['user:a:b'], within: 1h}",
            '23: approval.from[0]: "a:b" will not do; write group:NAME, user:NAME or a SPIFFE ID',
        ),
        (
            "approval: {from: ['user:a', 'user:a'], within: 1h}",
            "22: approval.from: names one approver twice; name each once",
        ),
        (
            "approval: {from: ['user:a', 'user:b'], quorum: 3, within: 1h}",
            (
                "52: approval.quorum: 3 different approvers are needed and 2 named; "
                "lower quorum, or name more"
            ),
        ),
        (
            "approval: {from: ['group:a'], within: 1h, automatic: '1'}",
            "58: approval.automatic: is of type int, not bool; write a comparison",
        ),
        (
            "when: [caller.uid > 0, '2']",
            "28: when[1]: is of type int, not bool; write a comparison",
        ),
        (
            "windows: [{from: '09:00', to: '09:00'}]",
            ('15: windows[0]: from and to are the same; for a whole day write "00:00" to "24:00"'),
        ),
        (
            "windows: [{starts: 2026-01-02T00:00:00Z, ends: 2026-01-02T00:00:00Z}]",
            "15: windows[0]: ends before it starts, so it is never open; write starts before ends",
        ),
    ],
)
def test_a_term_that_will_not_do_is_told_in_one_sentence(line: str, expected: str) -> None:
    """To the column."""
    column, _, rest = expected.partition(": ")

    assert findings(with_line(line)) == [f"a.yaml:8:{column}: tasks.report.{rest}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            REPORT.replace("heartbeat: 60s", "heartbeat: 30m, reprove: 31m"),
            [
                (
                    "9:45: tasks.report.ends.heartbeat: 30m is not below deadline.max, 30m: "
                    "it would never be due; choose a shorter interval"
                ),
                (
                    "9:59: tasks.report.ends.reprove: 31m is not below deadline.max, 30m: "
                    "it would never be due; choose a shorter interval"
                ),
            ],
        ),
        (
            REPORT.replace('["spiffe:', '[x, "spiffe://A/b", "spiffe:').replace(
                '}"]\n', '}", "spiffe://example.org/ns/orders/sa/*"]\n'
            ),
            [
                ('6:11: tasks.report.who[0]: "x" matches nobody; a pattern starts with spiffe://'),
                (
                    '6:14: tasks.report.who[1]: "spiffe://A/b" matches nobody; '
                    "trust domains are lower-case; nobody has this one"
                ),
                (
                    '6:73: tasks.report.who[3]: matches exactly whom "'
                    'spiffe://example.org/ns/orders/sa/{job}" matches; keep one of the two'
                ),
            ],
        ),
        (
            REPORT.replace("default: 5m, max: 30m", "max: 5h").replace(
                "    deadline:", "    break_glass: true\n    deadline:"
            ),
            [
                (
                    "9:15: tasks.report.deadline: an emergency may last 5h; "
                    "set deadline.max to at most 4h"
                )
            ],
        ),
        (
            REPORT.replace("    class:", "    shadow: true\n    class:"),
            [
                (
                    "4:5: tasks.report: a shadow has both its key and its mark; "
                    "write report.shadow with shadow: true, or neither"
                )
            ],
        ),
        (
            REPORT.replace("ro-{region}", "{other}"),
            [
                (
                    "13:17: tasks.report.scope.warehouse.secret: {other} is neither a parameter "
                    "nor captured; known: job, region"
                )
            ],
        ),
        (
            REPORT
            + REPORT.split("tasks:\n")[1]
            .replace("report:", "other:")
            .replace("    deadline:", "    dead_man: 2m\n    deadline:"),
            [
                (
                    f"25:9: tasks.other.scope.warehouse: reaches database/creds/ro-{region} with "
                    "a dead-man interval of 2m, and report (a.yaml:3) with 1m; a Vault role has "
                    "one default_ttl; give both the same dead_man, or separate roles"
                )
                for region in ("eu", "us")
            ],
        ),
    ],
)
def test_what_will_not_do_together_is_told_in_one_sentence(text: str, expected: list[str]) -> None:
    """Clocks, marks, names, and what definitions share."""
    assert findings(text) == [f"a.yaml:{one}" for one in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            REPORT.replace("version: 1", "version: 1\nowners: [team-a]"),
            (
                '4:1: tasks.report.owner: "team-orders@example.org" is not among the owners of '
                "this policy; name a team of the list, or add this one to owners"
            ),
        ),
        (
            with_line("when: request.purpose != ''"),
            (
                "3:1: tasks.report.when: rests on what the caller claims, and on nothing else; "
                "ask for something that is proven or configured as well: caller, now, host, history"
            ),
        ),
        (
            REPORT.replace("max: 30m", "max: 7h"),
            (
                "3:1: tasks.report.deadline.max: 7h is longer than class batch has, 6h; "
                "shorten it, or choose the class that fits"
            ),
        ),
        (
            REPORT.replace("{region:", "{x: {type: boolean}, region:"),
            (
                "3:1: tasks.report.parameters.x: changes nothing; "
                "remove it, or use it in scope or when"
            ),
        ),
        (
            REPORT.replace("ro-{region}", "{region}-{job}"),
            (
                "3:1: tasks.report.scope.warehouse: the server can hold a task to database/creds/+ "
                "only, the daemon to the exact path; enums make the server's bound exact"
            ),
        ),
        (
            REPORT.replace('"creds/ro-{region}"', '"x/{region}", method: POST, body: {a: 1}'),
            (
                "3:1: tasks.report.scope.warehouse: the server allows any a, the daemon the exact "
                "one; it compares text, true and false; quote a number if the engine takes text"
            ),
        ),
        (
            with_line("windows: [{starts: 2026-01-01T00:00:00Z, ends: 2026-12-02T12:00:00Z}]"),
            "3:1: tasks.report.windows[0]: is past and never opens again; remove it",
        ),
    ],
)
def test_a_doubt_is_told_in_one_sentence(text: str, expected: str) -> None:
    """With the line of its definition."""
    assert [str(one) for one in lint(load(text), DEFAULT_CLASSES, NOON)] == [f"a.yaml:{expected}"]
