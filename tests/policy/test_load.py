"""Loading: a whole policy or every finding at its place, never a part of one."""

import re
from dataclasses import fields
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.asking import REPORT, REPOSITORY, findings, load
from taskmint.canonical import digest
from taskmint.config import DEFAULT_CLASSES
from taskmint.errors import ConfigError, Finding
from taskmint.model.scope import BindKind, EntitlementKind, ProofLevel
from taskmint.policy.definition import Definition, Limits
from taskmint.policy.describe import describe
from taskmint.policy.load import MAX_SPANNED, Policy, load_policy
from taskmint.yaml_document import MAX_FINDINGS

MINIMAL = """\
version: 1
tasks:
  a:
    owner: o
    class: ci
    who: [spiffe://a.b/c]
    ends: {bind: [peer]}
    scope: {w: {secret: {mount: db, path: creds/x}}}
"""


SECRET = 'secret: {mount: database, path: "creds/ro-{region}", proof: login}'


def changed(old: str, new: str, text: str = REPORT) -> str:
    """The report policy with one piece replaced; the piece must be there."""
    assert old in text
    return text.replace(old, new)


def test_the_report_compiles_to_what_it_says() -> None:
    """Names in Vault, clocks, ends, limits and the one request of its entitlement."""
    definition = load(REPORT).definitions["report"]

    assert definition.token_role == "taskmint-task-report"
    assert definition.policy_parameters == ("region",)
    assert definition.owner == "team-orders@example.org"
    assert (definition.file, definition.line) == ("a.yaml", 3)
    assert definition.dead_man == timedelta(seconds=60)
    assert definition.deadline_default == timedelta(minutes=5)
    assert definition.deadline_max == timedelta(minutes=30)
    assert definition.ends.bind == (BindKind.PEER, BindKind.PARENT)
    assert definition.ends.heartbeat == timedelta(seconds=60)
    assert definition.limits == Limits(concurrent_per_identity=2)
    (warehouse,) = definition.entitlements
    assert (warehouse.name, warehouse.kind, warehouse.mount) == (
        "warehouse",
        EntitlementKind.SECRET,
        "database",
    )
    assert (str(warehouse.path), warehouse.method, warehouse.proof) == (
        "creds/ro-{region}",
        "GET",
        ProofLevel.LOGIN,
    )


def test_what_is_left_out_comes_from_the_class() -> None:
    """ci: 60s, 10m, 1h."""
    definition = load(MINIMAL).definitions["a"]

    assert definition.dead_man == timedelta(seconds=60)
    assert definition.deadline_default == timedelta(minutes=10)
    assert definition.deadline_max == timedelta(hours=1)
    assert definition.ends.heartbeat is None
    assert definition.limits == Limits()
    assert definition.entitlements[0].proof is ProofLevel.LEASE


def test_a_shorter_max_shortens_the_default() -> None:
    """A definition that only says max gets no default beyond it."""
    text = changed("    ends:", "    deadline: {max: 5m}\n    ends:", MINIMAL)

    assert load(text).definitions["a"].deadline_default == timedelta(minutes=5)


def test_a_class_heartbeat_is_the_default_and_an_end() -> None:
    """A definition of such a class needs no other end, and may say its own."""
    classes = {"ci": type(DEFAULT_CLASSES["ci"])(*[timedelta(minutes=n) for n in (1, 2, 3, 2)])}
    text = changed("ends: {bind: [peer]}", "ends: {}", MINIMAL).encode()
    own = changed("ends: {bind: [peer]}", "ends: {heartbeat: 7s}", MINIMAL).encode()
    none = changed("ends: {bind: [peer]}", "ends: {deadline_only: true}", MINIMAL).encode()

    heartbeats = [
        load_policy([("a.yaml", content)], classes).definitions["a"].ends.heartbeat
        for content in (text, own, none)
    ]

    assert heartbeats == [timedelta(minutes=2), timedelta(seconds=7), None]


def test_a_token_entitlement_is_made_through_a_role_of_the_plan() -> None:
    """A child of the task token with one policy of its own, given as a string (trap 7)."""
    text = changed(
        "secret: {mount: db, path: creds/x}",
        "token: {policy: team-transit, ttl: 5m, num_uses: 3}",
        MINIMAL,
    )
    (hand,) = (each.render({}) for each in load(text).definitions["a"].entitlements)

    assert (hand.kind, hand.mount, hand.path, hand.method) == (
        EntitlementKind.TOKEN,
        "auth/token",
        "create/taskmint-hand-a.w",
        "POST",
    )
    assert hand.body == {"policies": "team-transit", "ttl": "5m", "num_uses": 3}


def test_a_body_is_typed() -> None:
    """Plain true, false and digits are themselves; everything else is text."""
    text = changed(
        "{mount: db, path: creds/x}",
        "{mount: db, path: x, method: POST, "
        'body: {a: true, b: 5, c: "5", d: [x, {e: "{f}"}], f: two words}}',
        MINIMAL,
    ).replace("    ends:", "    parameters: {f: {type: integer, min: 1, max: 9}}\n    ends:")
    (secret,) = (each.render({"f": 7}) for each in load(text).definitions["a"].entitlements)

    assert secret.body == {"a": True, "b": 5, "c": "5", "d": ["x", {"e": 7}], "f": "two words"}


def test_files_are_merged() -> None:
    """Definitions may stand anywhere; each knows its file."""
    policy = load(REPORT, MINIMAL)

    assert {name: each.file for name, each in policy.definitions.items()} == {
        "report": "a.yaml",
        "a": "b.yaml",
    }


def test_a_task_defined_twice_is_refused() -> None:
    """Both places are named."""
    assert findings("# moved down\n" + MINIMAL, MINIMAL) == [
        "b.yaml:3:3: tasks.a: is defined twice; the first is at a.yaml:4:3"
    ]


def test_the_digest_is_of_the_meaning() -> None:
    """Comments, order and quotes do not count; anything that decides does."""
    same = load("# a comment\n" + MINIMAL.replace("class: ci", 'class: "ci"'))
    assert load(REPORT, MINIMAL).digest == load(MINIMAL, REPORT).digest
    assert load(MINIMAL).digest == same.digest

    digests = {load(MINIMAL).digest, load(REPORT).digest}
    for old, new in (
        ("owner: o", "owner: p"),
        ("class: ci", "class: batch"),
        ("a.b/c", "a.b/*"),
        ("bind: [peer]", "bind: [unit]"),
        ("path: creds/x", "path: creds/y"),
        ("    ends:", "    dead_man: 59s\n    ends:"),
        ("    ends:", "    deadline: {default: 9m}\n    ends:"),
        ("    ends:", "    limits: {starts_per_minute: 9}\n    ends:"),
        ("    ends:", "    parameters: {x: {type: boolean}}\n    ends:"),
        ("    ends:", "    parameters: {x: {type: segment}}\n    ends:"),
        ("    ends:", "    parameters: {x: {type: integer, min: 0, max: 1}}\n    ends:"),
    ):
        digests.add(load(changed(old, new, MINIMAL)).digest)
    assert len(digests) == 13


def test_the_digest_is_of_one_form() -> None:
    """Ledgers and approvals hold it: a release that changed the form would void them all."""
    shadow = REPORT.split("tasks:\n")[1].replace("report:", "report.shadow:\n    shadow: true")
    policy = load(REPORT + shadow)

    assert policy.digest == digest(
        {
            "version": 1,
            "tasks": {"report": describe(policy.definitions["report"])},
            "shadows": {"report": describe(policy.shadows["report"])},
        }
    )


def test_the_description_of_a_definition_leaves_nothing_out() -> None:
    """A field added to Definition must reach the digest, or be named here with its reason."""
    renamed = {
        "class_name": "class",
        "patterns": "who",
        "entitlements": "scope",
        "conditions": "when",
    }
    derived = {
        "name",  # the key it stands under
        "who",  # the index of `patterns`
        "bound",  # "ends", for each bind
        "fact_names",  # "when" and "approval" name them
        "token_role",  # made from the name
        "policy_parameters",  # made from parameters and scope
        "deadline_default",  # "deadline"
        "deadline_max",  # "deadline"
        "file",  # where it stands does not decide
        "line",
    }
    expected = {renamed.get(f.name, f.name) for f in fields(Definition)} - derived | {
        "who",
        "deadline",
    }

    assert set(describe(load(REPORT).definitions["report"])) == expected


MISTAKES = [
    ("version: 1", "version: ^2", "version: is not one of the known words; write 1"),
    (
        "version: 1",
        "version: ^'1'",
        "version: must be a whole number; write decimal digits without quotes",
    ),
    ("version: 1\n", "", "version: is missing; add it"),
    ("tasks:", "^hosts: {}\ntasks:", "hosts: is not a known key; did you mean host_labels?"),
    (
        "  report:",
        "  ^Report:",
        (
            'tasks.Report: "Report" will not do; write at most 48 lower-case letters, digits and '
            "dashes, not a dash first"
        ),
    ),
    (
        "  report:",
        "  ^-x:",
        (
            'tasks.-x: "-x" will not do; write at most 48 lower-case letters, digits and dashes, '
            "not a dash first"
        ),
    ),
    ("    owner: team-orders@example.org\n", "", "tasks.report.owner: is missing; add it"),
    (
        "owner: team-orders@example.org",
        "owner: ^''",
        "tasks.report.owner: is too short; write at least 1",
    ),
    ("class: batch", "class: ^bach", 'tasks.report.class: "bach" is no class; did you mean batch?'),
    (
        "class: batch",
        "class: ^xyz",
        'tasks.report.class: "xyz" is no class; known: agent, batch, ci, human, service',
    ),
    (
        '["spiffe://example.org/ns/orders/sa/{job}"]',
        "^[]",
        "tasks.report.who: is too short; write at least 1",
    ),
    (
        '"spiffe://example.org',
        '^"spiffe//',
        (
            'tasks.report.who[0]: "spiffe///ns/orders/sa/{job}" matches nobody; a pattern starts '
            "with spiffe://"
        ),
    ),
    (
        '"spiffe://ex',
        '^"spiffe://Ex',
        (
            'tasks.report.who[0]: "spiffe://Example.org/ns/orders/sa/{job}" matches nobody; trust '
            "domains are lower-case; nobody has this one"
        ),
    ),
    (
        '}"]\n',
        '}", ^"spiffe://example.org/ns/orders/sa/*"]\n',
        (
            'tasks.report.who[1]: matches exactly whom "spiffe://example.org/ns/orders/sa/{job}" '
            "matches; keep one of the two"
        ),
    ),
    (
        "region: {enum: [eu, us]}",
        "region: {enum: [eu]}, job: ^{type: boolean}",
        "tasks.report.parameters.job: has the name of a captured segment; rename one of the two",
    ),
    ("[eu, us]", "^[]", "tasks.report.parameters.region.enum: is too short; write at least 1"),
    (
        "[eu, us]",
        "[eu, ^EU]",
        (
            'tasks.report.parameters.region.enum[1]: differs from "eu" by case at most, and Vault '
            "would mix them up; rename one of the two"
        ),
    ),
    (
        "[eu, us]",
        "[eu, ^eu]",
        (
            'tasks.report.parameters.region.enum[1]: differs from "eu" by case at most, and Vault '
            "would mix them up; rename one of the two"
        ),
    ),
    (
        "[eu, us]",
        "[a, ^a]",
        (
            'tasks.report.parameters.region.enum[1]: differs from "a" by case at most, and Vault '
            "would mix them up; rename one of the two"
        ),
    ),
    (
        "    deadline:",
        "    dead_man: ^500ms\n    deadline:",
        ("tasks.report.dead_man: 500ms is no whole number of seconds; write for example 30s"),
    ),
    (
        "    deadline:",
        "    dead_man: ^1500ms\n    deadline:",
        ("tasks.report.dead_man: 1500ms is no whole number of seconds; write for example 30s"),
    ),
    (
        "max: 30m",
        "max: ^999999999h",
        "tasks.report.deadline.max: must be a duration; write at most 87600h",
    ),
    (
        "    deadline:",
        "    windows: ^[]\n    deadline:",
        "tasks.report.windows: is too short; write at least 1",
    ),
    (
        "    deadline:",
        '    windows: [{from: ^"24:00", to: "01:00"}]\n    deadline:',
        (
            "tasks.report.windows[0].from: is the end of a day; "
            'write "00:00", and the day on which it begins'
        ),
    ),
    (
        SECRET,
        "pki: {mount: p, role: r, common_name: a, alt_names: [a, ^'*.x', c], ttl: 1m}",
        (
            'tasks.report.scope.warehouse.pki.alt_names[1]: "*.x" begins or ends with *, which is '
            "a wildcard in an ACL; write the text without a * at its beginning and end"
        ),
    ),
    (
        SECRET,
        "pki: {mount: p, role: r, common_name: a, ttl: ^500ms}",
        (
            "tasks.report.scope.warehouse.pki.ttl: 500ms is no whole number of seconds; "
            "write for example 30s"
        ),
    ),
    (
        SECRET,
        "token: {policy: p, ttl: ^500ms}",
        (
            "tasks.report.scope.warehouse.token.ttl: 500ms is no whole number of seconds; "
            "write for example 30s"
        ),
    ),
    (
        SECRET,
        "ssh: {mount: s, role: r, operation: sign, principals: [a], ttl: ^500ms}",
        (
            "tasks.report.scope.warehouse.ssh.ttl: 500ms is no whole number of seconds; "
            "write for example 30s"
        ),
    ),
    (
        "[eu, us]",
        "[eu, ^a/b]",
        (
            'tasks.report.parameters.region.enum[1]: "a/b" will not do; write at most 64 letters, '
            "digits, dashes, underscores"
        ),
    ),
    (
        "[eu, us]",
        "[eu, ^no]",
        (
            "tasks.report.parameters.region.enum[1]: must be text, and YAML reads this as true or "
            'false; write "no"'
        ),
    ),
    (
        "{enum: [eu, us]}",
        "^{}",
        (
            "tasks.report.parameters.region: is an enum or has a type; write {enum: [a, b]} or "
            "{type: segment}"
        ),
    ),
    (
        "{enum: [eu, us]}",
        "^{enum: [a], type: segment}",
        (
            "tasks.report.parameters.region: is an enum or has a type; write {enum: [a, b]} or "
            "{type: segment}"
        ),
    ),
    (
        "{enum: [eu, us]}",
        "{type: ^word}",
        (
            "tasks.report.parameters.region.type: is not one of the known words; write 'segment', "
            "'integer' or 'boolean'"
        ),
    ),
    (
        "{enum: [eu, us]}",
        "^{type: integer}",
        "tasks.report.parameters.region: an integer has bounds; write min and max, min first",
    ),
    (
        "{enum: [eu, us]}",
        "^{type: integer, min: 2, max: 1}",
        "tasks.report.parameters.region: an integer has bounds; write min and max, min first",
    ),
    (
        "{enum: [eu, us]}",
        "^{enum: [eu], max_length: 3}",
        "tasks.report.parameters.region: max_length is for segments; remove it",
    ),
    (
        "{enum: [eu, us]}",
        "^{type: segment, max: 3}",
        "tasks.report.parameters.region: min and max are for integers; remove them",
    ),
    (
        "{enum: [eu, us]}",
        "{type: segment, max_length: ^65}",
        "tasks.report.parameters.region.max_length: is too large; write at most 64",
    ),
    (
        "region: {",
        "^Region: {",
        (
            'tasks.report.parameters.Region: "Region" will not do; write at most 32 lower-case '
            "letters, digits, underscores"
        ),
    ),
    (
        "deadline: {default: 5m",
        "deadline: ^{default: 31m",
        "tasks.report.deadline: default is above deadline.max, 30m; lower default or raise max",
    ),
    (
        "{default: 5m, max: 30m}",
        "^{default: 50s, max: 60s}",
        (
            "tasks.report.deadline: the dead-man interval, 1m, is not below deadline.max, 1m; set "
            "dead_man lower, or max higher"
        ),
    ),
    (
        "    ends:",
        "    dead_man: ^30m\n    ends:",
        (
            "tasks.report.dead_man: the dead-man interval, 30m, is not below deadline.max, 30m; "
            "set dead_man lower, or max higher"
        ),
    ),
    (
        "heartbeat: 60s",
        "heartbeat: ^30m",
        (
            "tasks.report.ends.heartbeat: 30m is not below deadline.max, 30m: it would never be "
            "due; choose a shorter interval"
        ),
    ),
    (
        "heartbeat: 60s",
        "reprove: ^30m",
        (
            "tasks.report.ends.reprove: 30m is not below deadline.max, 30m: it would never be "
            "due; choose a shorter interval"
        ),
    ),
    (
        "bind: [peer, parent]",
        "bind: ^[peer, peer]",
        "tasks.report.ends.bind: names one kind twice; name each kind once, the default first",
    ),
    (
        "bind: [peer, parent]",
        "bind: [^pear]",
        (
            "tasks.report.ends.bind[0]: is not one of the known words; write one of: peer, "
            "parent, session, unit"
        ),
    ),
    (
        "{bind: [peer, parent], heartbeat: 60s}",
        "^{daemon_stop: keep}",
        (
            "tasks.report.ends: nothing ends this task but its deadline; write bind, connection, "
            "heartbeat or reprove; or deadline_only: true"
        ),
    ),
    (
        "{bind: [peer, parent], h",
        "^{deadline_only: true, h",
        "tasks.report.ends: deadline_only stands beside other ends; remove one or the other",
    ),
    (
        "_per_identity: 2",
        "_per_identity: ^0",
        "tasks.report.limits.concurrent_per_identity: is too small; write at least 1",
    ),
    (
        "warehouse:",
        "^Warehouse:",
        (
            'tasks.report.scope.Warehouse: "Warehouse" will not do; write at most 48 lower-case '
            "letters, digits, dashes and underscores"
        ),
    ),
    (
        "secret: {mount",
        "^secrt: {mount",
        "tasks.report.scope.warehouse.secrt: is not a known key; did you mean secret?",
    ),
    (
        "        secret: {mount",
        "        ^token: {policy: x}\n        secret: {mount",
        (
            "tasks.report.scope.warehouse: has exactly one kind; write one of: secret, database, "
            "token, pki, ssh"
        ),
    ),
    (
        "mount: database",
        "mount: ^data/../base",
        (
            'tasks.report.scope.warehouse.secret.mount: "data/../base" will not do; write the '
            "mount without outer slashes"
        ),
    ),
    (
        'path: "creds/ro-{region}"',
        "path: ^creds/../x",
        (
            'tasks.report.scope.warehouse.secret.path: "creds/../x" has an empty segment, a . or '
            "a ..; write for example creds/orders-{region}"
        ),
    ),
    (
        'secret: {mount: database, path: "creds/ro-{region}',
        'secret: ^{mount: db, path: "{regoin}',
        (
            "tasks.report.scope.warehouse.secret: {regoin} is neither a parameter nor captured; "
            "did you mean region?"
        ),
    ),
    (
        "proof: login",
        "proof: ^maybe",
        (
            "tasks.report.scope.warehouse.secret.proof: is not one of the known words; write "
            "'lease', 'login' or 'sessions'"
        ),
    ),
    (
        "proof: login",
        "body: ^{a: b}",
        (
            "tasks.report.scope.warehouse.secret.body: a GET has no body; write method: POST, or "
            "remove body"
        ),
    ),
    (
        "proof: login",
        "method: POST, body: {a: ^no}",
        'tasks.report.scope.warehouse.secret.body.a: YAML reads this as true or false; write "no"',
    ),
    (
        "proof: login",
        'method: POST, body: {a: ^"{x"}',
        (
            'tasks.report.scope.warehouse.secret.body.a: "{x" has a brace outside a placeholder '
            "like {name}; braces enclose the name of a parameter or a captured segment"
        ),
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES, ids=[m[2][:60] for m in MISTAKES])
def test_each_mistake_is_found_at_its_place(old: str, new: str, expected: str) -> None:
    """Where the caret stands; what is wrong, and what to write."""
    marked = changed(old, new)
    (only, *_) = findings(marked.replace("^", ""))

    before, _, _ = marked.partition("^") if "^" in marked else ("", "", "")
    place = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
    file, line, column, rest = only.split(":", 3)
    assert file == "a.yaml"
    assert rest.strip() == expected
    assert "^" not in marked or f"{line}:{column}" == place, only


def test_all_mistakes_are_told_at_once() -> None:
    """In every file and every definition, in order of place."""
    broken = changed("class: ci", "class: cj", MINIMAL).replace("owner: o", "ownr: o")
    found = findings(changed("class: batch", "class: bach"), broken, "a: [")

    assert [re.match(r"\w\.yaml:\d+", finding) for finding in found] != []
    assert [finding.split(": ")[1] for finding in found] == [
        "tasks.report.class",
        "tasks.a.owner",
        "tasks.a.ownr",
        "a",
    ]


def test_a_placeholder_must_be_captured_by_every_pattern() -> None:
    """Otherwise a caller who comes in by the other pattern has no value for it."""
    text = changed("creds/ro-{region}", "creds/{job}").replace(
        'sa/{job}"]', 'sa/{job}", "spiffe://example.org/x"]'
    )

    (only,) = findings(text)

    assert only.endswith(
        "scope.warehouse.secret: {job} is not captured by each pattern of who; "
        "capture {job} in every pattern of who"
    )


def test_too_many_combinations_are_refused() -> None:
    """Each is a policy in Vault; enums that the scope does not use do not count."""
    values = ", ".join(f"v{n}" for n in range(40))
    enums = f"    parameters: {{a: {{enum: [{values}]}}, b: {{enum: [{values}]}}}}\n    ends:"
    text = changed("    ends:", enums, MINIMAL)

    load(text)
    (only,) = findings(text.replace("creds/x", '"creds/{a}-{b}"'))

    assert only == (
        "a.yaml:7:17: tasks.a.parameters: its enums make 1600 combinations; each is a policy in "
        "Vault; keep to 1000, or split the definition"
    )


def test_a_policy_that_spans_without_end_is_refused() -> None:
    """All definitions together are bounded as well: a bomb under the size cap."""
    enums = ", ".join(f"{name}: {{enum: [{', '.join('abcdefghij')}]}}" for name in "xyz")
    task = (
        MINIMAL.split("tasks:\n")[1]
        .replace("    ends:", f"    parameters: {{{enums}}}\n    ends:")
        .replace("creds/x", '"creds/{x}{y}{z}"')
    )
    tasks = [task.replace("  a:", f"  a{n}:") for n in range(MAX_SPANNED // 1000 + 1)]

    half = [each.replace("{w: ", "{v: {secret: {mount: db, path: y}}, w: ") for each in tasks[:251]]
    with pytest.raises(ConfigError) as caught:
        load("version: 1\ntasks:\n" + "".join(half))
    assert "span 502000 requests" in caught.value.findings[0].problem
    with pytest.raises(ConfigError) as caught:
        load("version: 1\ntasks:\n" + "".join(tasks))
    problem = "all definitions together span 501000 requests of enum values"
    assert caught.value.findings == (Finding("(policy)", 1, 1, "", problem, "keep to 500000"),)


def test_no_files_are_no_policy() -> None:
    """An empty directory is a mistake, not a policy that refuses everyone."""
    with pytest.raises(ConfigError) as caught:
        load()
    fix = "name one in policy.files"
    assert caught.value.findings == (
        Finding("(policy)", 1, 1, "", "no policy file was given", fix),
    )
    assert findings("version: 1\ntasks: {}\n")[0].startswith("a.yaml:2:8: tasks: ")


def test_the_shipped_policy_loads() -> None:
    """What config/ ships is test input."""
    for path in sorted((REPOSITORY / "config" / "policy.d").glob("*.yaml")):
        load_policy([(str(path), path.read_bytes())], DEFAULT_CLASSES)


PIECES = st.sampled_from(
    [
        *re.findall(r"\w+|[^\w\s]|\s+", REPORT),
        "who: 1",
        "{",
        "&a",
        "*a",
        "<<:",
        "!!x",
        "null",
        "-",
        "\t",
        "{{x}}",
        "**",
        "when",
        "\ud800",
    ]
)


@given(st.data())
def test_any_mutation_loads_or_says_what_is_wrong(data: st.DataObject) -> None:
    """Pieces of a real policy dropped, moved and replaced: a Policy or a ConfigError."""
    pieces = re.findall(r"\w+|[^\w\s]|\s+", REPORT)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(pieces) - 1))
        pieces[at] = data.draw(PIECES)
    content = "".join(pieces).encode("utf-8", "surrogatepass")

    assert isinstance(loaded(content), Policy | ConfigError)


def loaded(content: bytes) -> Policy | ConfigError:
    """Load, and return what came of it; any other exception is a failure of the test."""
    try:
        return load_policy([("f.yaml", content)], DEFAULT_CLASSES)
    except ConfigError as error:
        return error


def test_definitions_keep_what_they_agree_in_once() -> None:
    """Equal terms are one object: memory, and the processor's cache, grow with what differs."""
    policy = load(REPORT + REPORT.split("tasks:\n")[1].replace("report:", "other:"))
    one, other = (policy.definitions[name] for name in ("report", "other"))

    assert one.ends is other.ends
    assert one.bound is other.bound
    assert one.limits is other.limits
    assert one.identity is other.identity
    assert one.parameters is other.parameters
    assert one.entitlements is not other.entitlements


def test_a_hundred_mistakes_are_enough() -> None:
    """In one definition or in many; what nobody would read is not looked for, which is slow."""
    many = ", ".join(f"p{n}x: {{type: boolean}}" for n in range(300))
    unknown = "".join(f"{{q{n}x}}" for n in range(300))
    conditions = ", ".join(f"request.parameters.q{n}x" for n in range(300))
    of_placeholders = changed("{region: {enum: [eu, us]}}", f"{{{many}}}").replace(
        "ro-{region}", unknown
    )
    of_conditions = changed("    deadline:", f"    when: [{conditions}]\n    deadline:")
    of_definitions = "version: 1\ntasks:\n" + "".join(
        MINIMAL.split("tasks:\n")[1].replace("  a:", f"  a{n}:").replace("owner", "ownr")
        for n in range(300)
    )

    for text in (of_placeholders, of_conditions, of_definitions):
        assert MAX_FINDINGS <= len(findings(text)) <= MAX_FINDINGS + 1
    assert len(findings(of_placeholders, of_conditions, of_definitions)) == MAX_FINDINGS
