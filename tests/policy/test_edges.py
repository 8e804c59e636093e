"""What a mutation run found that no test held: each a small fact, stated."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from policy.asking import JOB, NOON, REPORT, asked, findings, granted, load
from policy.test_entitlement import scope_of
from taskmint.errors import ConfigError
from taskmint.policy.access import terms_of, who_can
from taskmint.policy.change import Change, Direction
from taskmint.policy.decide import decide_shadow
from taskmint.policy.describe import describe
from taskmint.policy.difference import difference
from taskmint.policy.enumerate import enumerate_definitions
from taskmint.policy.exercise import exercised
from taskmint.policy.facts import aware
from taskmint.policy.json_schema import policy_json_schema
from taskmint.policy.pattern import covers, parse_pattern
from taskmint.policy.plan import plan_of
from taskmint.policy.plan_objects import PlanSettings
from taskmint.policy.planning import plan_policy
from taskmint.policy.template import (
    Misplaced,
    body_pattern,
    parse_statement,
    parse_text,
    render_body,
)

EVERYTHING = """\
version: 1
tasks:
  all:
    description: One of each
    owner: team-a
    class: batch
    who: ["spiffe://example.org/{job}", "spiffe://example.org/x/{job}"]
    identity: {methods: [x509-svid, jwt-svid], token: process}
    parameters: {e: {enum: [a, b]}, n: {type: integer, min: 1, max: 9}, b: {type: boolean},
      s: {type: segment, max_length: 9}}
    windows:
      - {days: [mon], from: "22:00", to: "06:00", zone: UTC}
      - {days: [tue, wed], from: "07:00", to: "08:00", zone: UTC}
    when: [caller.uid > 0, request.purpose != ""]
    approval: {from: ["group:a", "user:b"], quorum: 2, within: 1h, automatic: caller.uid > 9}
    dead_man: 50s
    deadline: {default: 4m, max: 20m}
    ends: {bind: [peer, parent], connection: true, heartbeat: 30s, reprove: 5m, daemon_stop: revoke}
    limits: {concurrent_per_identity: 3, starts_per_minute: 4}
    scope:
      w: {secret: {mount: m, path: "p/{e}", method: POST, proof: login,
        body: {t: "{s}", l: [x, "{n}"], d: {k: 1, f: true}}}}
"""


def test_a_definition_is_described_whole() -> None:
    """The digest is of this: what is left out here would change without anybody noticing."""
    assert describe(load(EVERYTHING).definitions["all"]) == {
        "description": "One of each",
        "owner": "team-a",
        "class": "batch",
        "who": ["spiffe://example.org/{job}", "spiffe://example.org/x/{job}"],
        "identity": {"methods": ["jwt-svid", "x509-svid"], "token": "process"},
        "parameters": [
            {"name": "e", "enum": ["a", "b"]},
            {"name": "n", "type": "integer", "min": 1, "max": 9},
            {"name": "b", "type": "boolean"},
            {"name": "s", "type": "segment", "max_length": 9},
        ],
        "windows": ["mon 22:00-06:00 UTC", "tue,wed 07:00-08:00 UTC"],
        "when": ["caller.uid > 0", 'request.purpose != ""'],
        "approval": {
            "from": ["group:a", "user:b"],
            "quorum": 2,
            "within": "1h",
            "automatic": "caller.uid > 9",
        },
        "dead_man": "50s",
        "deadline": {"default": "4m", "max": "20m"},
        "ends": {
            "bind": ["peer", "parent"],
            "connection": True,
            "heartbeat": "30s",
            "reprove": "5m",
            "daemon_stop": "revoke",
        },
        "limits": {"concurrent_per_identity": 3, "starts_per_minute": 4},
        "break_glass": False,
        "scope": {
            "w": {
                "kind": "secret",
                "mount": "m",
                "path": "p/{e}",
                "method": "POST",
                "body": {"t": "{s}", "l": ["x", "{n}"], "d": {"k": 1, "f": True}},
                "proof": "login",
                "revocable": True,
                "ceiling": None,
                "key_field": None,
            }
        },
    }


def test_each_kind_of_entitlement_is_described_whole() -> None:
    """With how long it lives, whose key it takes, and what its own policy says."""
    signs = "pki: {mount: p, role: r, operation: sign, common_name: x, ttl: 10m}"
    paths = "token: {paths: [{path: 'kv/{region}', capabilities: [read]}], ttl: 5m, num_uses: 2}"
    key, token = (load(scope_of(text)).definitions["report"] for text in (signs, paths))

    assert describe(key)["scope"] == {
        "warehouse": {
            "kind": "pki",
            "mount": "p",
            "path": "sign/r",
            "method": "POST",
            "body": {"common_name": "x", "ttl": "10m"},
            "proof": "lease",
            "revocable": False,
            "ceiling": "10m",
            "key_field": "csr",
        }
    }
    assert describe(token)["scope"] == {
        "warehouse": {
            "kind": "token",
            "mount": "auth/token",
            "path": "create/taskmint-hand-report.warehouse",
            "method": "POST",
            "body": {"policies": "taskmint-hand-report.warehouse", "ttl": "5m", "num_uses": 2},
            "proof": "lease",
            "revocable": True,
            "ceiling": "5m",
            "key_field": None,
            "acl": (
                'path "kv/{region}" {\n'
                '  capabilities = ["read"]\n'
                "  allowed_parameters = {\n"
                '    "*" = []\n'
                "  }\n"
                "}\n"
            ),
        }
    }


def test_the_terms_name_every_way_window_and_approver() -> None:
    """Joined as a person would."""
    assert list(terms_of(load(EVERYTHING).definitions["all"])) == [
        "proven by jwt-svid, x509-svid",
        "with a token that is bound to its process",
        "within mon 22:00-06:00 UTC or tue,wed 07:00-08:00 UTC",
        "when caller.uid > 0",
        'when request.purpose != ""',
        "approved by 2 of group:a, user:b",
    ]


@pytest.mark.parametrize("path", ["database/creds/ro-eu", "/database/creds/ro-eu/", "*/creds/*"])
def test_a_path_is_asked_for_with_or_without_outer_slashes(path: str) -> None:
    """Each request that it names is told once."""
    found = [access.request for access in who_can(load(REPORT), path)]

    assert found[0] == "GET database/creds/ro-eu"
    assert len(set(found)) == len(found)


def test_a_request_that_every_value_makes_is_told_once() -> None:
    """Outer slashes are left out of the question, and nothing else of it."""
    text = REPORT.replace("ro-{region}", "X").replace(
        "    scope:",
        "    scope:\n      by-region:\n        secret: {mount: kv, path: 'x/{region}'}",
    )
    found = who_can(load(text), "/database/creds/X/")

    assert [(access.entitlement, access.request) for access in found] == [
        ("warehouse", "GET database/creds/X")
    ]


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("a/**", "a/b", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("**", "a", True),
        ("a/**", "a/**", True),
        ("a/*", "a/b", True),
        ("a/*", "a/b/c", False),
        ("a/b", "a", False),
        ("a", "a/b", False),
        ("a/{n}", "a/*", False),
        ("a/{n}", "a/{m}", True),
        ("a/{n}", "a/b.c", False),
        ("a/{n}", "a/b", True),
        ("a/b", "a/*", False),
    ],
)
def test_one_pattern_covers_another(wide: str, narrow: str, expected: bool) -> None:
    """Whoever the second matches is matched by the first; `**` is for one segment or more."""
    first, second = (parse_pattern(f"spiffe://x/{text}") for text in (wide, narrow))

    assert covers(first, second) is expected
    assert not covers(first, parse_pattern(f"spiffe://y/{narrow}"))


@pytest.mark.parametrize("text", ["{", "}", "a } b", "a { b", "{{name}", "{name}}", "{{other}}"])
def test_a_stray_brace_in_a_statement_is_refused(text: str) -> None:
    """An opening one alone, and a closing one alone; the whole statement is quoted."""
    with pytest.raises(ValueError, match="has a brace that is neither") as caught:
        parse_statement(text)
    assert text in str(caught.value)


@pytest.mark.parametrize("value", ["a/b", "", "{{name}}", "x" * 65])
def test_a_value_alone_in_a_text_is_checked_as_well(value: str) -> None:
    """It keeps its type, and must be a word all the same (P3)."""
    with pytest.raises(Misplaced):
        render_body(parse_text("{x}"), {"x": value})
    assert render_body(parse_text("{x}"), {"x": 7}) == 7


def test_a_time_keeps_its_zone_and_one_without_is_utc() -> None:
    """Never the machine's own zone."""
    elsewhere = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5)))

    assert aware(elsewhere) is elsewhere
    assert aware(NOON.replace(tzinfo=None)) == NOON
    assert aware(NOON.replace(tzinfo=None)).tzinfo is UTC


@pytest.mark.parametrize(
    ("more", "life", "period", "uses"),
    [
        ("", timedelta(minutes=31), timedelta(minutes=1), 0),
        (", ttl: 10m, num_uses: 5", timedelta(minutes=10), timedelta(minutes=1), 5),
        (", ttl: 2h", timedelta(minutes=31), timedelta(minutes=1), 0),
        (", ttl: 30s", timedelta(seconds=30), timedelta(seconds=30), 0),
        (", ttl: 1000ms", timedelta(seconds=1), timedelta(seconds=1), 0),
    ],
)
def test_a_token_for_the_caller_lives_no_longer_than_its_task(
    more: str, life: timedelta, period: timedelta, uses: int
) -> None:
    """The deadline and the minute that token roles have beyond it; a whole second at least."""
    policy = load(scope_of(f"token: {{policy: p{more}}}"))
    role = plan_of(enumerate_definitions(policy), PlanSettings()).token_roles[
        "taskmint-hand-report.warehouse"
    ]

    assert (role.explicit_max_ttl, role.period, role.num_uses) == (life, period, uses)
    assert (role.policies, role.policies_glob, role.orphan) == (("p",), None, False)


def test_a_shadow_is_of_the_same_policy() -> None:
    """Its decision carries the digest of the policy that holds both."""
    shadow = REPORT.split("tasks:\n")[1].replace("report:", "report.shadow:\n    shadow: true")
    policy = load(REPORT + shadow)
    decision = decide_shadow(policy, asked(who=JOB))

    assert decision is not None
    assert decision.policy_digest == policy.digest


def test_a_change_bears_its_definition() -> None:
    """The name by which a reviewer finds it, shadows too; and shadows differ by their own terms."""
    shadow = REPORT.split("tasks:\n")[1].replace("report:", "report.shadow:\n    shadow: true")
    old, longer = load(REPORT + shadow), load(REPORT + shadow.replace("max: 30m", "max: 20m"))
    wider = load(REPORT.replace("max: 30m", "max: 31m") + shadow)

    assert difference(old, old) == ()
    assert difference(old, longer) == (
        Change(Direction.OTHER, "report", "the shadow of report changed; a shadow grants nothing"),
    )
    (change,) = difference(old, wider)
    assert (change.direction, change.task) == (Direction.WIDENED, "report")


def test_every_name_pattern_and_window_is_told_apart() -> None:
    """Lists of them are joined as a person would, and a request is told with its body."""
    two = REPORT.replace('sa/{job}"]', 'sa/{job}", "spiffe://example.org/x"]')
    posts = two.replace('{region}", ', '{region}", method: POST, body: {a: 1}, ')
    windows = '[{from: "06:00", to: "07:00", zone: UTC}, {from: "08:00", to: "09:00", zone: UTC}]'
    bounded = REPORT.replace("    deadline:", f"    windows: {windows}\n    deadline:")

    said = [change.sentence for change in difference(load(two), load(posts))]
    both = "spiffe://example.org/ns/orders/sa/{job}, spiffe://example.org/x"
    assert f'{both} gained POST database/creds/ro-eu with {{"a":1}} through report' in said
    assert f"{both} lost GET database/creds/ro-eu through report" in said
    (only,) = difference(load(REPORT), load(bounded))
    days = "mon,tue,wed,thu,fri,sat,sun"
    assert only.sentence == (
        f"report may run within {days} 06:00-07:00 UTC or {days} 08:00-09:00 UTC only"
    )


def test_a_class_and_an_emergency_are_told() -> None:
    """A class is a label once its clocks are compared; an emergency narrows."""
    urgent = REPORT.replace("    deadline:", "    break_glass: true\n    deadline:")
    clocks = "dead_man: 60s\n    deadline:"
    said = difference(
        load(REPORT.replace("deadline:", clocks)),
        load(REPORT.replace("deadline:", clocks).replace("class: batch", "class: ci")),
    )

    assert 'the class of report is "ci", was "batch"' in [each.sentence for each in said]
    assert [
        [(each.direction, each.sentence) for each in difference(load(old), load(new))]
        for old, new in ((REPORT, urgent), (urgent, REPORT), (urgent, urgent))
    ] == [
        [(Direction.NARROWED, "report is for emergencies with a ticket only")],
        [(Direction.WIDENED, "report no longer needs an emergency with a ticket")],
        [],
    ]


def test_what_a_token_of_its_own_policy_may_is_told() -> None:
    """The policy that is written for one task is part of the request."""
    paths = "token: {{paths: [{{path: kv/data/app, capabilities: [{0}]}}]}}"
    said = difference(
        load(scope_of(paths.format("read"))), load(scope_of(paths.format("read, update")))
    )

    assert [each.direction for each in said] == [Direction.WIDENED, Direction.NARROWED]
    assert '{"acl":"path \\"kv/data/app\\" {' in said[0].sentence
    assert "update" in said[0].sentence
    assert "update" not in said[1].sentence


def test_the_text_of_a_body_ends_where_the_first_unknown_stands() -> None:
    """Everything before it is held to, one name or several."""
    text = parse_text("{a}-{b}-{c}-x")
    assert body_pattern(text, {"a": "1", "b": "2"}) == "1-2-*"
    assert body_pattern(text, {"a": "1", "c": "3"}) == "1-*"
    assert body_pattern(text, {"a": "1", "b": "2", "c": "3"}) == "1-2-3-x"


def test_nothing_is_exercised_by_no_decision() -> None:
    """A policy without a test has no clause that was seen to hold."""
    assert exercised(load(REPORT), []) == frozenset()


def test_the_schema_refers_to_nothing_that_is_not_there() -> None:
    """Keys as people write them (`class`), and every reference has its target."""
    schema = policy_json_schema()
    text = json.dumps(schema)
    parts = schema["$defs"]
    assert isinstance(parts, dict)
    for name in text.split('"#/$defs/')[1:]:
        assert name.partition('"')[0] in parts
    assert text.count('"$defs"') == 1
    definition = parts["Definition"]
    assert isinstance(definition, dict)
    assert isinstance(definition["properties"], dict)
    assert "class" in definition["properties"]
    assert "class_" not in text


@pytest.mark.parametrize(
    ("approver", "found"),
    [
        ("spiffe://", '"spiffe://" is no SPIFFE ID; '),
        ("group:Leads-1", None),
        ("user:Ann.B@x", None),
        ("group:", "will not do; write group:NAME, user:NAME or a SPIFFE ID"),
        ("team:x", '"team:x" is no approver; write group:NAME, user:NAME or a SPIFFE ID'),
    ],
)
def test_who_may_approve_is_written_in_one_of_three_ways(approver: str, found: str | None) -> None:
    """Capitals are allowed in names; what is wrong is told with what to write."""
    text = REPORT.replace(
        "    deadline:", f'    approval: {{from: ["{approver}"], within: 1h}}\n    deadline:'
    )
    if found is None:
        rule = load(text).definitions["report"].approval
        assert rule is not None
        assert rule.approvers == (approver,)
        return
    (only,) = findings(text)
    assert found in only
    assert not only.endswith(("; ", "None"))


PATHS = """\
token:
          paths:
            - {path: "kv/data/{region}/{job}", capabilities: [read]}
            - {path: "kv/{region}", capabilities: [list]}"""


def test_a_policy_that_is_written_is_a_namespaces_alone() -> None:
    """Elsewhere it is refused with its place and with what to write."""
    with pytest.raises(ConfigError) as caught:
        plan_policy(load(scope_of(PATHS)), PlanSettings())
    assert [str(finding) for finding in caught.value.findings] == [
        (
            "a.yaml:3:1: tasks.report.scope.warehouse.token.paths: writes policies, which would be "
            "self-grant outside a namespace of taskmint's own; "
            "set vault.namespace, or name a policy that the Vault admin keeps"
        )
    ]


def test_a_token_of_its_own_policy_hands_out_that_kind_only() -> None:
    """Its role is named after the definition and the entitlement, its policies begin like it."""
    plan = plan_policy(load(scope_of(PATHS)), PlanSettings(namespace="taskmint"))
    name = "taskmint-hand-report.warehouse"
    role = plan.token_roles[name]

    assert (role.name, role.policies, role.policies_glob) == (name, (), f"{name}.*")
    assert plan.writes_policies
    assert plan.task_object_places == {("sys/policies/acl", "taskmint-hand-")}
    sent = {"policies": f"{name}.x", "display_name": "x"}
    policy = "taskmint-task-report.eu"
    minted = plan.task_predicates[policy]
    assert minted.permits("POST", f"auth/token/create/{name}", {"policies": f"{name}.x"})
    assert not minted.permits("POST", f"auth/token/create/{name}", {"policies": "root"})
    assert not minted.permits("POST", f"auth/token/create/{name}", sent)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("sys/policies", "[0].path: \"sys/policies\" is Vault's own; name a secrets engine's path"),
        ("{job}/x", '[0].path: "{job}/x" names no mount; begin with the mount itself'),
        ("kv/{region}", '[1].path: "kv/{region}" stands here twice; write its capabilities once'),
    ],
)
def test_paths_are_found_where_they_stand(path: str, found: str) -> None:
    """By their number in the list."""
    (only,) = findings(scope_of(PATHS.replace("kv/data/{region}/{job}", path)))
    assert only.endswith(f": tasks.report.scope.warehouse.token.paths{found}")


def test_the_text_of_a_policy_is_whole_around_its_names() -> None:
    """What stands before, between and after them; a path without any; a brace of HCL's own."""
    paths = (
        "token: {paths: ["
        + ", ".join(
            f"{{path: '{path}', capabilities: [read]}}"
            for path in ("kv/a", "kv/{region}/b/{job}/c", "kv/x-{job}")
        )
        + "]}"
    )
    (made,) = granted(load(scope_of(paths)), asked()).entitlements

    assert made.acl == "\n".join(
        f'path "{path}" {{\n'
        '  capabilities = ["read"]\n'
        "  allowed_parameters = {\n"
        '    "*" = []\n'
        "  }\n"
        "}\n"
        for path in ("kv/a", "kv/x-nightly", "kv/eu/b/nightly/c")
    )


@pytest.mark.parametrize("text", ["GRANT x*", "*"])
def test_a_statement_that_ends_as_a_wildcard_is_quoted(text: str) -> None:
    """The server would read it as one."""
    with pytest.raises(ValueError, match="ends with \\*, which is a wildcard") as caught:
        parse_statement(text)
    assert text in str(caught.value)


@pytest.mark.parametrize("policy", ["root", "taskmint-daemon", "taskmint-task-report.eu"])
def test_a_policy_that_is_not_for_callers_is_found_where_it_stands(policy: str) -> None:
    """With what to write."""
    (only,) = findings(scope_of(f"token: {{policy: {policy}}}"))
    assert only.endswith(
        f'tasks.report.scope.warehouse.token.policy: "{policy}" is not for a caller; '
        "name a policy that the Vault admin keeps"
    )


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("pki", "mount: sys, role: r, common_name: x, ttl: 1m"),
        ("ssh", "mount: sys, role: r, operation: otp, ip: 10.0.0.1"),
        ("secret", "mount: sys, path: x"),
        ("database", "mount: sys, connection: c, creation: [x], revocation: [y]"),
    ],
)
def test_a_mount_that_is_vaults_own_is_found_where_it_stands(kind: str, text: str) -> None:
    """Whatever is minted at it."""
    (only,) = findings(scope_of(f"{kind}: {{{text}}}"))
    assert f": tasks.report.scope.warehouse.{kind}.mount: " in only
    assert only.endswith("is Vault's own; name a secrets engine's path")
