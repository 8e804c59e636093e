"""The difference of two policies, in words: nobody gains anything silently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.asking import JOB, REPORT, asked, load
from taskmint.model.scope import ParameterValue, Scope
from taskmint.policy.change import Direction
from taskmint.policy.decide import decide
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
        [f"widened: {JOBS} gained GET database/creds/+ through report"],
        [f"narrowed: {JOBS} lost GET database/creds/+ through report"],
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


@pytest.mark.parametrize("path", ["all", "{region}-{job}", "x/{job}"])
def test_a_value_that_no_path_tells_of_is_told(path: str) -> None:
    """An enum that only conditions read, or that stands beside a wildcard in its segment."""
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
    held = "      beside:\n        secret: {mount: database, path: creds/us-b}\n"
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
