"""The difference of two policies, in words: nobody gains anything silently."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.asking import JOB, REPORT, asked, load
from taskmint.model.scope import ParameterValue, ProofLevel, Scope
from taskmint.policy.change import Direction
from taskmint.policy.decide import decide
from taskmint.policy.definition import Policy
from taskmint.policy.difference import difference

JOBS = "spiffe://example.org/ns/orders/sa/{job}"
SECRET = 'secret: {mount: database, path: "creds/ro-{region}", proof: login}'


def told(old: str, new: str) -> list[str]:
    """Every change, as `widened: sentence`."""
    return [
        f"{change.direction.value}: {change.sentence}"
        for change in difference(load(old), load(new))
    ]


def with_line(line: str) -> str:
    """The report policy with one more line."""
    return REPORT.replace("    deadline:", f"    {line}\n    deadline:")


def test_a_policy_does_not_differ_from_itself() -> None:
    """However it is laid out."""
    assert told(REPORT, "# comment\n" + REPORT) == []


# A pair (narrow, wide) and what is said of narrow → wide, and of wide → narrow.
PAIRS = [
    (
        REPORT,
        REPORT.replace("[eu, us]", "[eu, us, cn]"),
        [f"widened: {JOBS} gained GET database/creds/ro-cn through report"],
        [f"narrowed: {JOBS} lost GET database/creds/ro-cn through report"],
    ),
    (
        REPORT.replace("ro-{region}", "nightly"),
        REPORT.replace("ro-{region}", "{job}"),
        [
            f"widened: {JOBS} gained GET database/creds/{{job}} through report",
            f"narrowed: {JOBS} lost GET database/creds/nightly through report",
        ],
        [
            f"widened: {JOBS} gained GET database/creds/nightly through report",
            f"narrowed: {JOBS} lost GET database/creds/{{job}} through report",
        ],
    ),
    (
        REPORT.replace('"]\n', '"]\n').replace("/sa/{job}", "/sa/nightly"),
        REPORT,
        [
            (
                f"widened: {JOBS} gained GET database/creds/ro-eu, GET database/creds/ro-us "
                "through report"
            )
        ],
        [
            (
                f"narrowed: {JOBS} lost GET database/creds/ro-eu, GET database/creds/ro-us "
                "through report"
            )
        ],
    ),
    (
        REPORT,
        REPORT.replace("/sa/{job}", "/sa/*"),
        [
            (
                "widened: spiffe://example.org/ns/orders/sa/* gained GET database/creds/ro-eu, "
                "GET database/creds/ro-us through report"
            )
        ],
        [
            (
                "narrowed: spiffe://example.org/ns/orders/sa/* lost GET database/creds/ro-eu, "
                "GET database/creds/ro-us through report"
            )
        ],
    ),
    (
        REPORT,
        REPORT.replace("max: 30m", "max: 1h"),
        ["widened: report may run for 1h, was for 30m"],
        ["narrowed: report may run for 30m, was for 1h"],
    ),
    (
        REPORT,
        REPORT.replace("default: 5m", "default: 6m"),
        ["widened: report runs by default for 6m, was for 5m"],
        ["narrowed: report runs by default for 5m, was for 6m"],
    ),
    (
        REPORT,
        with_line("dead_man: 2m"),
        ["widened: report outlives its daemon for 2m, was for 1m"],
        ["narrowed: report outlives its daemon for 1m, was for 2m"],
    ),
    (
        REPORT,
        REPORT.replace(", heartbeat: 60s", ""),
        ["widened: report lives without a heartbeat without limit, was for 1m"],
        ["narrowed: report lives without a heartbeat for 1m, was without limit"],
    ),
    (
        REPORT.replace("heartbeat: 60s", "reprove: 1m"),
        REPORT.replace("heartbeat: 60s", "reprove: 2m"),
        ["widened: report lives without a new proof for 2m, was for 1m"],
        ["narrowed: report lives without a new proof for 1m, was for 2m"],
    ),
    (
        REPORT,
        REPORT.replace("[peer, parent]", "[peer, parent, unit]"),
        ["widened: report may be bound to unit instead"],
        ["narrowed: report can no longer be bound to unit"],
    ),
    (
        REPORT.replace("[peer, parent]", "[peer]"),
        REPORT.replace("bind: [peer, parent], ", ""),
        ["widened: report can no longer be bound to peer"],
        ["narrowed: report is bound to peer unless asked otherwise"],
    ),
    (
        REPORT.replace("heartbeat: 60s", "heartbeat: 60s, connection: true"),
        REPORT,
        ["widened: report is bound to its connection: False"],
        ["narrowed: report is bound to its connection: True"],
    ),
    (
        REPORT.replace("heartbeat: 60s", "heartbeat: 60s, daemon_stop: revoke"),
        REPORT,
        ["widened: a planned stop of the daemon makes report keep"],
        ["narrowed: a planned stop of the daemon makes report revoke"],
    ),
    (
        REPORT,
        REPORT.replace("concurrent_per_identity: 2", "concurrent_per_identity: 3"),
        ["widened: an identity may have 3 of report at once, were 2"],
        ["narrowed: an identity may have 2 of report at once, were 3"],
    ),
    (
        REPORT.replace("limits: {", "limits: {starts_per_minute: 5, "),
        REPORT,
        ["widened: an identity may have any number of report starts a minute, were 5"],
        ["narrowed: an identity may have 5 of report starts a minute, were any number"],
    ),
    (
        with_line("when: [caller.uid > 0, now.getHours() < 6]"),
        with_line("when: caller.uid > 0"),
        ["widened: report no longer asks that now.getHours() < 6"],
        ["narrowed: report asks that now.getHours() < 6"],
    ),
    (
        with_line('windows: [{from: "01:00", to: "02:00"}]'),
        REPORT,
        [
            (
                "widened: report may run at any time, was within "
                "mon,tue,wed,thu,fri,sat,sun 01:00-02:00 UTC"
            )
        ],
        ["narrowed: report may run within mon,tue,wed,thu,fri,sat,sun 01:00-02:00 UTC only"],
    ),
    (
        with_line('windows: [{days: [mon], from: "01:00", to: "02:00"}]'),
        with_line(
            'windows: [{days: [mon], from: "01:00", to: "02:00"}, '
            "{starts: 2026-01-01T00:00:00Z, ends: 2026-01-02T00:00:00Z, tag: v1}]"
        ),
        ["widened: report may also run within 2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z tag v1"],
        [
            (
                "narrowed: report may no longer run within "
                "2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z tag v1"
            )
        ],
    ),
    (
        with_line("identity: {methods: [jwt-svid, x509-svid]}"),
        REPORT,
        ["widened: report accepts identities proven by delegated"],
        ["narrowed: report no longer accepts identities proven by delegated"],
    ),
    (
        with_line("identity: {token: process}"),
        REPORT,
        ["widened: report asks for a token bound by uid, was process"],
        ["narrowed: report asks for a token bound by process, was uid"],
    ),
    (
        with_line("approval: {from: ['group:a', 'user:b'], quorum: 2, within: 1h}"),
        REPORT,
        ["widened: report no longer needs an approval"],
        ["narrowed: report needs an approval by 2 of group:a, user:b"],
    ),
    (
        with_line("approval: {from: ['group:a'], quorum: 2, within: 1h}"),
        with_line("approval: {from: ['group:a'], quorum: 1, within: 1h}"),
        ["widened: report needs 1 approvals, were 2"],
        ["narrowed: report needs 2 approvals, were 1"],
    ),
    (
        with_line("approval: {from: ['group:a'], within: 1h}"),
        with_line("approval: {from: ['group:a', 'user:b'], within: 1h}"),
        ["widened: user:b may approve report"],
        ["narrowed: user:b may no longer approve report"],
    ),
    (
        with_line("approval: {from: ['group:a'], within: 1h}"),
        with_line("approval: {from: ['group:a'], within: 2h}"),
        ["widened: an approval of report may come for 2h, was for 1h"],
        ["narrowed: an approval of report may come for 1h, was for 2h"],
    ),
    (
        with_line("approval: {from: ['group:a'], within: 1h}"),
        with_line("approval: {from: ['group:a'], within: 1h, automatic: caller.uid == 0}"),
        ["widened: report needs no approval when caller.uid == 0"],
        ["narrowed: report needs an approval also when caller.uid == 0"],
    ),
    (
        REPORT.replace("proof: login", "proof: sessions"),
        REPORT,
        ["widened: report proves warehouse revoked to level login, was sessions"],
        ["narrowed: report proves warehouse revoked to level sessions, was login"],
    ),
    (
        REPORT.replace(SECRET, "pki: {mount: p, role: r, common_name: x, ttl: 1h}"),
        REPORT.replace(SECRET, "pki: {mount: p, role: r, common_name: x, ttl: 2h}"),
        ["widened: warehouse of report lives for 2h, was for 1h"],
        ["narrowed: warehouse of report lives for 1h, was for 2h"],
    ),
    (
        REPORT.replace(SECRET, "pki: {mount: p, role: r, common_name: x, ttl: 1h, proof: crl}"),
        REPORT.replace(SECRET, "pki: {mount: p, role: r, common_name: x, ttl: 1h}"),
        [
            "widened: report proves warehouse revoked to level lease, was crl",
            "widened: warehouse of report is not taken back when the task ends",
        ],
        [
            "narrowed: report proves warehouse revoked to level crl, was lease",
            "narrowed: warehouse of report is taken back when the task ends",
        ],
    ),
    (
        REPORT.replace("{region:", "{n: {type: integer, min: 2, max: 8}, region:"),
        REPORT.replace("{region:", "{n: {type: integer, min: 1, max: 9}, region:"),
        [
            (
                "widened: parameter n of report takes a whole number from 1 to 9, "
                "was a whole number from 2 to 8"
            )
        ],
        [
            (
                "narrowed: parameter n of report takes a whole number from 2 to 8, "
                "was a whole number from 1 to 9"
            )
        ],
    ),
    (
        REPORT.replace("{region:", "{s: {type: segment, max_length: 3}, region:"),
        REPORT.replace("{region:", "{s: {type: segment, max_length: 4}, region:"),
        [
            (
                "widened: parameter s of report takes 1 to 4 letters, digits, dashes or "
                "underscores, was 1 to 3 letters, digits, dashes or underscores"
            )
        ],
        [
            (
                "narrowed: parameter s of report takes 1 to 3 letters, digits, dashes or "
                "underscores, was 1 to 4 letters, digits, dashes or underscores"
            )
        ],
    ),
]


@pytest.mark.parametrize(("narrow", "wide", "there", "back"), PAIRS, ids=range(len(PAIRS)))
def test_what_widens_one_way_narrows_the_other(
    narrow: str, wide: str, there: list[str], back: list[str]
) -> None:
    """Each in one sentence that says who, what and how much."""
    assert told(narrow, wide) == there
    assert told(wide, narrow) == back


def test_a_new_task_is_a_gain_and_a_lost_one_a_loss() -> None:
    """For each pattern, with everything it reaches."""
    more = REPORT + REPORT.split("tasks:\n")[1].replace("report:", "other:").replace("ro-", "rw-")

    assert told(REPORT, more) == [
        f"widened: {JOBS} gained GET database/creds/rw-eu, GET database/creds/rw-us through other"
    ]
    assert told(more, REPORT) == [
        f"narrowed: {JOBS} lost GET database/creds/rw-eu, GET database/creds/rw-us through other"
    ]


def test_what_is_covered_is_not_gained() -> None:
    """A literal below a wildcard, a path below a `+`, and the same through other patterns."""
    wide = REPORT.replace("/sa/{job}", "/**")
    narrow = REPORT.replace('/sa/{job}"]', '/sa/x", "spiffe://example.org/ns/orders/*"]')

    assert {change.direction for change in difference(load(wide), load(narrow))} == {
        Direction.NARROWED
    }


@pytest.mark.parametrize(
    ("length", "listed", "directions"),
    [(3, "[aaa, b]", "narrowed"), (2, "[aaa, b]", "narrowed widened")],
)
def test_an_enum_may_hold_what_a_segment_refuses(length: int, listed: str, directions: str) -> None:
    """Where only a condition reads it, nothing else tells of a value that was too long before."""
    given = REPORT.replace(
        "    deadline:", "    when: request.parameters.n == 'aaa'\n    deadline:"
    )
    words, enum = (
        given.replace("{region:", f"{{n: {kind}, region:")
        for kind in (f"{{type: segment, max_length: {length}}}", f"{{enum: {listed}}}")
    )
    other = {"narrowed": "widened", "widened": "narrowed"}

    assert {said.partition(":")[0] for said in told(words, enum)} == set(directions.split())
    assert {said.partition(":")[0] for said in told(enum, words)} == {
        other[said] for said in directions.split()
    }


@pytest.mark.parametrize("path", ["all", "x/{job}"])
def test_a_value_that_no_path_tells_of_is_told(path: str) -> None:
    """An enum that only conditions read."""
    old = REPORT.replace("ro-{region}", path)
    new = old.replace("[eu, us]", "[eu, cn]")

    assert told(old, new) == [
        "widened: parameter region of report may be cn",
        "narrowed: parameter region of report may no longer be us",
    ]


def test_parameters_that_come_and_go_are_told() -> None:
    """What they reach is told by the paths."""
    more = REPORT.replace("{region:", "{s: {type: boolean}, region:")

    assert told(REPORT, more) == ["other: report takes the parameter s: true or false"]
    assert told(more, REPORT) == ["other: report no longer takes the parameter s"]


def test_a_segment_that_becomes_an_enum_is_a_loss() -> None:
    """And the other way a gain."""
    enum = REPORT.replace("{region:", "{s: {enum: [a]}, region:")
    segment = REPORT.replace("{region:", "{s: {type: segment}, region:")

    assert [line.split(":")[0] for line in told(enum, segment)] == ["widened"]
    assert [line.split(":")[0] for line in told(segment, enum)] == ["narrowed"]


def test_a_reworded_condition_is_both() -> None:
    """The machine cannot tell; a person can."""
    assert told(with_line("when: caller.uid > 0"), with_line("when: caller.uid >= 1")) == [
        "widened: report no longer asks that caller.uid > 0",
        "narrowed: report asks that caller.uid >= 1",
    ]


def test_a_parameter_of_another_type_is_both() -> None:
    """It takes what it did not take before, and no longer what it took."""
    changes = told(
        REPORT.replace("{region:", "{s: {type: boolean}, region:"),
        REPORT.replace("{region:", "{s: {type: segment}, region:"),
    )
    sentence = (
        "parameter s of report takes 1 to 64 letters, digits, dashes or underscores, "
        "was true or false"
    )

    assert changes == [f"widened: {sentence}", f"narrowed: {sentence}"]


def test_the_proof_of_each_entitlement_is_compared() -> None:
    """Also of those behind one that is new."""
    first = "scope:\n      a:\n        secret: {mount: kv, path: x}"
    new = REPORT.replace("proof: login", "proof: lease").replace("scope:", first)

    assert told(REPORT, new) == [
        f"widened: {JOBS} gained GET kv/x through report",
        "widened: report proves warehouse revoked to level lease, was login",
    ]


def test_a_value_is_told_by_what_any_of_its_requests_gains() -> None:
    """Not by the last of them alone: one other parameter may make all the difference."""
    kinds = REPORT.replace("[eu, us]}", "[eu]}, kind: {enum: [a, b]}").replace(
        "ro-{region}", "{region}-{kind}"
    )
    held = "      beside:\n        secret: {mount: database, path: creds/us-b, proof: login}\n"
    wider = kinds.replace("[eu]", "[eu, us]")

    assert told(kinds + held, wider + held) == [
        f"widened: {JOBS} gained GET database/creds/us-a through report"
    ]


@pytest.mark.parametrize(
    ("old", "new", "directions"),
    [
        ("type: integer, min: 2, max: 8", "type: integer, min: 3, max: 8", ["narrowed"]),
        ("type: integer, min: 2, max: 8", "type: integer, min: 1, max: 8", ["widened"]),
        ("type: integer, min: 2, max: 8", "type: integer, min: 2, max: 7", ["narrowed"]),
        ("type: integer, min: 2, max: 8", "type: integer, min: 2, max: 9", ["widened"]),
        ("type: integer, min: 2, max: 8", "type: integer, min: 3, max: 9", ["widened", "narrowed"]),
        ("type: integer, min: 2, max: 8", "type: segment", ["widened", "narrowed"]),
        ("type: segment", "type: integer, min: 2, max: 8", ["widened", "narrowed"]),
        ("type: boolean", "enum: [a]", ["widened", "narrowed"]),
        ("type: segment", "type: boolean", ["widened", "narrowed"]),
    ],
)
def test_each_bound_of_a_parameter_is_compared(old: str, new: str, directions: list[str]) -> None:
    """What is taken now and was not widens, what is no longer taken narrows."""
    before, after = (REPORT.replace("{region:", f"{{s: {{{kind}}}, region:") for kind in (old, new))

    assert [line.split(":")[0] for line in told(before, after)] == directions


def test_labels_are_told_and_widen_nothing() -> None:
    """Owner, class and description; and shadows."""
    new = REPORT.replace("team-orders@", "team-sales@").replace(
        "class: batch", "class: batch\n    description: d"
    )
    shadow = REPORT + REPORT.split("tasks:\n")[1].replace(
        "report:", "report.shadow:\n    shadow: true"
    )

    assert told(REPORT, new) == [
        'other: the owner of report is "team-sales@example.org", was "team-orders@example.org"',
        'other: the description of report is "d", was ""',
    ]
    assert told(REPORT, shadow) == ["other: the shadow of report changed; a shadow grants nothing"]


def _task(scope: str, who: str = '"spiffe://x/sa/{job}"', params: str = "", more: str = "") -> str:
    """A task t with these lines."""
    return (
        f"version: 1\ntasks:\n  t:\n    owner: o\n    class: batch\n    who: [{who}]\n"
        f"    parameters: {{{params}}}\n    deadline: {{default: 5m, max: 30m}}\n"
        f"    ends: {{bind: [peer]}}\n{more}    scope: {{{scope}}}\n"
    )


def _secret(path: str, more: str = "") -> str:
    return f'a: {{secret: {{mount: db, path: "{path}"{more}}}}}'


def _pki(name: str, more: str = "") -> str:
    return f'a: {{pki: {{mount: pki, role: r, common_name: "{name}", ttl: 5m{more}}}}}'


def _ssh(principals: str) -> str:
    return (
        f"a: {{ssh: {{mount: ssh, role: r, operation: sign, principals: {principals}, ttl: 5m}}}}"
    )


def _token(capabilities: str) -> str:
    return f'a: {{token: {{paths: [{{path: "kv/data/{{job}}/x", capabilities: {capabilities}}}]}}}}'


SAME = ["other: t is written otherwise, and gives and takes the same"]
_SEGMENT = "n: {type: segment}"
_EU = "n: {enum: [eu, prod]}"
_NOT_PROD = """    when: 'request.parameters.n != "prod"'\n"""
_STS = "a: {{secret: {{mount: aws, path: sts/x, method: POST, body: {{arn: '{}'}}}}}}"

# What stands around, after or in a placeholder, and whether its value is proven or claimed: the
# second policy gives somebody what nobody had by the first, and takes what he had.
ANOTHER_REQUEST = {
    "a literal before": (
        _task(_secret("creds/ro-{n}"), params=_SEGMENT),
        _task(_secret("creds/admin-{n}"), params=_SEGMENT),
        "GET db/creds/admin-{n}",
    ),
    "a literal less": (
        _task(_secret("creds/ro-{n}"), params=_SEGMENT),
        _task(_secret("creds/{n}"), params=_SEGMENT),
        "GET db/creds/{n}",
    ),
    "a literal instead": (
        _task(_secret("creds/shard-{n}"), params="n: {type: integer, min: 0, max: 3}"),
        _task(_secret("creds/admin")),
        "GET db/creds/admin",
    ),
    "a literal that no value could be": (
        _task(_secret("creds/{n}"), params=_SEGMENT),
        _task(_secret("creds/prod.admin")),
        "GET db/creds/prod.admin",
    ),
    "another mount": (
        _task(_secret("creds/{job}")),
        _task(_secret("creds/{job}").replace("db", "db2")),
        "GET db2/creds/{job}",
    ),
    "another method": (
        _task(_secret("creds/{job}", ", method: POST")),
        _task(_secret("creds/{job}")),
        "GET db/creds/{job}",
    ),
    "another capture": (
        _task(_secret("creds/{a}"), '"spiffe://x/{a}/{b}"'),
        _task(_secret("creds/{b}"), '"spiffe://x/{a}/{b}"'),
        "GET db/creds/{b}",
    ),
    "a claim instead of a capture": (
        _task(_secret("creds/{job}")),
        _task(_secret("creds/{n}"), params=_SEGMENT),
        "GET db/creds/{n}",
    ),
    "a value that only another may be": (
        _task(_secret("creds/{n}"), params="n: {type: segment, max_length: 3}"),
        _task(_secret("creds/{n}"), params="n: {enum: [prod]}"),
        "GET db/creds/prod",
    ),
    "the end of a name": (
        _task(_pki("{job}.dev.example.org")),
        _task(_pki("{job}.prod.example.org")),
        'POST pki/issue/r with {"common_name":"{job}.prod.example.org"}',
    ),
    "another name in a list": (
        _task(_pki("a.b", ', alt_names: ["{job}.x"]')),
        _task(_pki("a.b", ', alt_names: ["{job}.x", "vault.example.org"]')),
        'POST pki/issue/r with {"alt_names":"{job}.x,vault.example.org","common_name":"a.b"}',
    ),
    "another principal": (
        _task(_ssh('["{job}"]')),
        _task(_ssh('["{job}", root]')),
        'POST ssh/sign/r with {"public_key":"*","valid_principals":"{job},root"}',
    ),
    "other capabilities": (
        _task(_token("[read]")),
        _task(_token("[delete]")),
        (
            "POST auth/token/create/taskmint-hand-t.a with "
            r'{"acl":"path \"kv/data/{job}/x\" {\n  capabilities = [\"delete\"]\n'
            r"  allowed_parameters = {\n    \"*\" = []\n  }\n}\n"
            '","policies":"taskmint-hand-t.a"}'
        ),
    ),
    "the end of a text": (
        _task(_STS.format("arn:{n}:role/ro"), params=_SEGMENT),
        _task(_STS.format("arn:{n}:role/admin"), params=_SEGMENT),
        'POST aws/sts/x with {"arn":"arn:{n}:role/admin"}',
    ),
}


@pytest.mark.parametrize("name", ANOTHER_REQUEST)
def test_what_a_wildcard_would_hide_is_told(name: str) -> None:
    """The diff compares what was written, not what Vault can be told of it."""
    old, new, request = ANOTHER_REQUEST[name]
    who = ", ".join(pattern.text for pattern in load(new).definitions["t"].patterns)
    changes = told(old, new)

    assert f"widened: {who} gained {request} through t" in changes
    assert any(line.startswith("narrowed: ") for line in changes)


def test_an_enum_in_a_path_of_a_token_is_told_with_its_values() -> None:
    """As in any other request."""
    before = _task(_token("[read]").replace("{job}", "{n}"), params="n: {enum: [eu]}")
    after = before.replace("[eu]", "[eu, prod]")
    (change,) = told(before, after)

    assert change.startswith("widened: spiffe://x/sa/{job} gained POST auth/token/create/")
    assert "kv/data/prod/x" in change


def test_captures_that_change_places_are_told() -> None:
    """Other callers reach other paths, through the same path and pattern."""
    before = _task(_secret("creds/{a}"), '"spiffe://x/{a}/{b}"')
    after = _task(_secret("creds/{a}"), '"spiffe://x/{b}/{a}"')
    sentence = "what t captures may be another part of an identity, or claimed"

    assert told(before, after) == [f"widened: {sentence}", f"narrowed: {sentence}"]


def test_a_capture_that_becomes_a_claim_of_the_same_name_is_told() -> None:
    """Whoever it is may then name any."""
    before = _task(_secret("creds/{n}"), '"spiffe://x/sa/{n}"')
    after = _task(_secret("creds/{n}"), '"spiffe://x/sa/{m}"', params=_SEGMENT)
    sentence = "what t captures may be another part of an identity, or claimed"

    assert told(before, after) == [
        f"widened: {sentence}",
        f"narrowed: {sentence}",
        "other: t takes the parameter n: 1 to 64 letters, digits, dashes or underscores",
    ]


def test_a_capture_that_a_condition_reads_is_told_when_it_moves() -> None:
    """No request shows it."""
    when = """    when: 'caller.captures.a == "admin"'\n"""
    before = _task(_secret("creds/x"), '"spiffe://x/{a}/{b}"', more=when)
    after = _task(_secret("creds/x"), '"spiffe://x/{b}/{a}"', more=when)

    assert [line.split(":")[0] for line in told(before, after)] == ["widened", "narrowed"]
    assert told(before.replace(when, ""), after.replace(when, "")) == SAME


@pytest.mark.parametrize(
    ("more", "fewer"),
    [
        ("x/{a}/*, x/foo/{a}", "x/{a}/*"),
        ("x/{a}/*, x/foo/{a}", "x/{a}/*, x/bar/{a}"),
        ("x/{a}/*, x/foo/{a}, y/foo/{a}", "x/{a}/*, y/foo/{a}"),
        ("x/*/foo/{a}, x/*/{a}/*", "x/{j}/foo/{a}, x/*/{a}/*"),
    ],
)
def test_a_pattern_that_captures_otherwise_is_told_when_it_goes(more: str, fewer: str) -> None:
    """Its callers fall to another pattern, which takes another part of them."""
    before, after = (
        _task(_secret("creds/{a}"), ", ".join(f'"spiffe://{each}"' for each in who.split(", ")))
        for who in (more, fewer)
    )
    sentence = "what t captures may be another part of an identity, or claimed"

    for old, new in ((before, after), (after, before)):
        assert {f"widened: {sentence}", f"narrowed: {sentence}"} <= set(told(old, new))
    assert told(before, before) == []


def test_a_name_that_nothing_uses_may_be_captured_or_not() -> None:
    """Only who matches counts then."""
    one = _task(_secret("creds/{a}"), '"spiffe://x/{a}/{b}"')
    other = _task(_secret("creds/{a}"), '"spiffe://x/{a}/{c}"')

    assert told(one, other) == SAME


def test_an_enum_for_any_word_narrows() -> None:
    """What was claimed freely is one of a list now, under the same name."""
    free = _task(_secret("creds/{n}"), params=_SEGMENT, more=_NOT_PROD)
    listed = _task(_secret("creds/{n}"), params=_EU, more=_NOT_PROD)

    assert {line.split(":")[0] for line in told(free, listed)} == {"narrowed"}
    assert "widened" in {line.split(":")[0] for line in told(listed, free)}


def test_a_value_that_a_condition_reads_must_come_again() -> None:
    """A path written out is had without the claim that the condition may refuse."""
    enum = _task(_secret("creds/{n}"), params="n: {enum: [prod]}", more=_NOT_PROD)
    literal = enum.replace("creds/{n}", "creds/prod")

    assert told(enum, literal) == [
        "widened: spiffe://x/sa/{job} gained GET db/creds/prod through t"
    ]
    assert told(literal, enum) == ["narrowed: spiffe://x/sa/{job} lost GET db/creds/prod through t"]
    assert told(enum.replace(_NOT_PROD, ""), literal.replace(_NOT_PROD, "")) == SAME
    assert told(literal.replace(_NOT_PROD, ""), enum.replace(_NOT_PROD, "")) == SAME


def test_an_enum_that_no_condition_reads_is_told() -> None:
    """The same paths, by a value that nothing refuses."""
    both = f"{_EU}, m: {{enum: [eu, prod]}}"
    read = _task(_secret("creds/{n}"), params=both, more=_NOT_PROD)
    free = _task(_secret("creds/{m}"), params=both, more=_NOT_PROD)

    assert told(read, free) == [
        "widened: spiffe://x/sa/{job} gained GET db/creds/eu through t",
        "widened: spiffe://x/sa/{job} gained GET db/creds/prod through t",
    ]


def test_a_new_name_hides_no_weaker_end() -> None:
    """A request is compared with the same request, whatever the entitlement is called."""
    before = _task(_secret("creds/x", ", proof: sessions"))
    after = _task(_secret("creds/x", ", revocable: false").replace("a:", "b:"))

    assert told(before, after) == [
        "widened: t proves b revoked to level lease, was sessions",
        "widened: b of t is not taken back when the task ends",
        "other: t gives as b what it gave as a",
    ]
    assert told(after, before)[-1] == "other: t gives as a what it gave as b"


def test_entitlements_that_swap_what_they_ask_are_compared_by_what_they_ask() -> None:
    """Each name keeps its proof, and each request gets another."""
    first, second = _secret("creds/x", ", proof: login"), _secret("creds/y").replace("a:", "b:")
    swapped = _secret("creds/y", ", proof: login"), second.replace("creds/y", "creds/x")

    assert told(_task(f"{first}, {second}"), _task(", ".join(swapped))) == [
        "widened: t proves b revoked to level lease, was login",
        "narrowed: t proves a revoked to level login, was lease",
    ]


def test_one_that_was_there_is_compared_with_itself() -> None:
    """Not with another that asks the same."""
    twice = f"{_secret('creds/x', ', proof: login')}, {_secret('creds/x').replace('a:', 'b:')}"

    assert told(_task(twice), _task(twice, more="    description: d\n")) == [
        'other: the description of t is "d", was ""'
    ]


def test_a_token_that_lives_shorter_narrows_alone() -> None:
    """Its ttl is told once, as the time it lives."""
    longer = _task("a: {token: {policy: p, ttl: 10m}}")

    assert told(longer, longer.replace("10m", "5m")) == [
        "narrowed: a of t lives for 5m, was for 10m"
    ]
    field = _task(_STS.replace("arn", "ttl").format("10m"))
    assert [line.split(":")[0] for line in told(field, field.replace("10m", "5m"))] == [
        "widened",
        "narrowed",
    ]


def test_another_default_end_is_told() -> None:
    """Whoever asks for none is bound to another; and to the same when only others change places."""
    both, other = (REPORT.replace("[peer, parent]", f"[{b}, unit]") for b in ("peer", "parent"))

    assert told(both, both.replace("peer, unit", "unit, peer")) == [
        "other: report is bound to unit unless asked otherwise, was to peer"
    ]
    assert told(both, other)[-1] == (
        "other: report is bound to parent unless asked otherwise, was to peer"
    )
    assert told(both, both.replace("peer, unit", "peer, unit, session")) == [
        "widened: report may be bound to session instead"
    ]


@pytest.mark.parametrize(
    ("line", "other"),
    [
        (
            "parameters: {a: {enum: [x]}, b: {enum: [y]}}",
            "parameters: {b: {enum: [y]}, a: {enum: [x]}}",
        ),
        ("when: [caller.uid > 0, caller.uid > 1]", "when: [caller.uid > 1, caller.uid > 0]"),
    ],
)
def test_another_order_is_told(line: str, other: str) -> None:
    """It names other policies in Vault, or none: the digest is another."""
    text = REPORT.replace("    parameters: {region: {enum: [eu, us]}}\n", "").replace(
        "{region}", "x"
    )
    before, after = (
        text.replace("    deadline:", f"    {each}\n    deadline:") for each in (line, other)
    )

    assert told(before, after) == [
        "other: report is written otherwise, and gives and takes the same"
    ]


WHO = st.sampled_from(["/sa/{job}", "/sa/*", "/sa/nightly", "/**", "/*/nightly", "/sa/other"])
REGIONS = st.sampled_from(["[eu]", "[us]", "[eu, us]"])
PATHS = st.sampled_from(["ro-{region}", "{region}", "x/{n}", "ro-eu", "all"])
WHEN = st.lists(
    st.sampled_from(["caller.uid > 0", "caller.uid > 1000", "now.getHours() < 13"]), max_size=2
)
WINDOW = st.sampled_from(
    [
        '[{from: "00:00", to: "24:00"}]',
        '[{from: "11:00", to: "13:00"}]',
        '[{from: "01:00", to: "02:00"}]',
    ]
)
MAX = st.sampled_from(["5m", "30m"])
BIND = st.sampled_from(["[peer]", "[parent, peer]"])


@st.composite
def policies(draw: st.DrawFn) -> str:
    """A variation of the report."""
    who = draw(WHO)
    text = REPORT.replace("/sa/{job}", who).replace("[eu, us]", draw(REGIONS))
    text = text.replace("{region: {", "{n: {type: integer, min: 0, max: 9}, region: {")
    text = text.replace("ro-{region}", draw(PATHS)).replace("max: 30m", f"max: {draw(MAX)}")
    text = text.replace("[peer, parent]", draw(BIND))
    return text.replace(
        "    deadline:", f"    when: {draw(WHEN)}\n    windows: {draw(WINDOW)}\n    deadline:"
    )


@given(
    policies(),
    policies(),
    st.sampled_from(
        [JOB, "spiffe://example.org/ns/orders/sa/other", "spiffe://example.org/ns/orders/sa/a.b"]
    ),
    st.sampled_from(["eu", "us"]),
)
def test_nobody_gains_without_a_word(old: str, new: str, who: str, region: str) -> None:
    """Whatever the old policy refused and the new one grants, something is said to widen."""
    parameters: dict[str, ParameterValue] = {"region": region, "n": 3}
    given_ = asked(parameters=parameters, who=who)
    before, after = load(old), load(new)
    had, has = decide(before, given_), decide(after, given_)

    if isinstance(has, Scope) and (
        not isinstance(had, Scope) or had.entitlements != has.entitlements
    ):
        assert any(change.direction is Direction.WIDENED for change in difference(before, after))


PLACES = st.sampled_from(
    [
        '"spiffe://x/{a}/{b}"',
        '"spiffe://x/{b}/{a}"',
        '"spiffe://x/{a}/*"',
        '"spiffe://x/eu/{a}"',
        '"spiffe://x/{a}/*", "spiffe://x/eu/{a}"',
        '"spiffe://x/{a}/prod", "spiffe://x/*/{a}"',
        '"spiffe://x/**"',
    ]
)
KINDS = st.sampled_from(
    [
        "{enum: [eu]}",
        "{enum: [eu, prod]}",
        "{type: segment}",
        "{type: segment, max_length: 2}",
        "{type: integer, min: 1, max: 2}",
        "{type: integer, min: 2, max: 3}",
        "{type: boolean}",
    ]
)
READS = {
    "n": "string(request.parameters.n) != 'prod'",
    "m": "string(request.parameters.m) == 'eu'",
    "a": "caller.captures.a != 'prod'",
    "b": "caller.captures.b == 'eu'",
}
VALUES: tuple[ParameterValue, ...] = ("eu", "prod", "2", "true")
CALLERS = ("spiffe://x/eu/prod", "spiffe://x/prod/eu", "spiffe://x/eu/eu", "spiffe://x/2/a.b")


@st.composite
def small_policies(draw: st.DrawFn) -> str:
    """A task t: captures, parameters, paths of them, and conditions on them."""
    who = draw(PLACES)
    params = draw(st.dictionaries(st.sampled_from("nm"), KINDS))
    captured = [name for name in "ab" if all(f"{{{name}}}" in each for each in who.split(", "))]
    names = [*captured, *sorted(params)]
    pieces = ["eu", "prod", "ro-", *(f"{{{name}}}" for name in names)]
    path = st.lists(st.sampled_from(pieces), min_size=1, max_size=2).map("".join)
    proof = st.sampled_from(["login", "sessions"])
    scope = ", ".join(
        f'{name}: {{secret: {{mount: db, path: "{draw(path)}", proof: {draw(proof)}}}}}'
        for name in draw(st.sampled_from(["c", "d", "cd"]))
    )
    declared = ", ".join(f"{name}: {kind}" for name, kind in sorted(params.items()))
    reads = st.lists(
        st.sampled_from([READS[name] for name in names] or ["caller.uid > 0"]), max_size=1
    )
    return _task(scope, who, declared, f"    when: {draw(reads)}\n")


def weakest(policy: Policy, who: str) -> dict[str, int]:
    """What somebody gets with any of the values for the parameters, and how surely it ends."""
    names = [each.name for each in policy.definitions["t"].parameters]
    had: dict[str, int] = {}
    for values in product(VALUES, repeat=len(names)):
        decision = decide(policy, asked("t", dict(zip(names, values, strict=True)), who=who))
        for each in decision.entitlements if isinstance(decision, Scope) else ():
            level = list(ProofLevel).index(each.proof)
            had[each.path] = min(level, had.get(each.path, level))
    return had


@given(small_policies(), small_policies())
def test_whoever_gets_what_he_could_not_get_is_told_of(old: str, new: str) -> None:
    """With whatever parameters; also when what he gets ends less surely than before."""
    before, after = load(old), load(new)
    gains = any(
        path not in had or level < had[path]
        for who in CALLERS
        for had in [weakest(before, who)]
        for path, level in weakest(after, who).items()
    )
    directions = {change.direction for change in difference(before, after)}

    assert Direction.WIDENED in directions or not gains
    assert not difference(before, before)
