"""ACL rules and their one text: written, read back, compared; and what the server makes of it."""

import json

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmint.model.scope import Json
from taskmint.policy.acl import Rule, as_server_sees, covers, merge, parse, render
from taskmint.policy.predicate import matches
from vault.ground import Ground

WORDS = st.text(alphabet="abcxyz0189-_.", min_size=1, max_size=12)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES: st.SearchStrategy[Json] = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.lists(TEXTS, max_size=3),
    st.dictionaries(TEXTS, TEXTS, max_size=3),
)
CAPABILITIES = st.lists(
    st.sampled_from(["create", "read", "update", "delete", "list"]), unique=True
).map(lambda words: tuple(sorted(words)))
PARAMETERS = st.dictionaries(WORDS, st.lists(VALUES, max_size=3).map(tuple), max_size=4)
RULES = st.builds(
    Rule,
    path=st.lists(WORDS, min_size=1, max_size=4).map("/".join),
    capabilities=CAPABILITIES,
    parameters=PARAMETERS,
    required=st.lists(WORDS, unique=True, max_size=2).map(lambda words: tuple(sorted(words))),
)


@given(st.lists(RULES, max_size=5))
def test_what_is_written_is_read_back(rules: list[Rule]) -> None:
    """Writing what was read gives the same text, so equal rights have equal digests."""
    text = render(merge(rules))
    blocks = parse(text)
    read = [block.rule for block in blocks if block.rule is not None]
    assert len(read) == len(blocks)
    assert render(read) == text
    assert render(merge(reversed(rules))) == text


@given(st.text(max_size=200))
def test_any_text_is_read_without_a_crash(text: str) -> None:
    """Whatever stands in a live policy: blocks, each with a rule or without."""
    assert all(block.line > 0 for block in parse(text))


@given(RULES, TEXTS)
def test_a_block_that_was_touched_is_not_ours(rule: Rule, addition: str) -> None:
    """A line more inside a block: read as no rule at all, or as the very rule it says."""
    lines = render((as_server_sees(rule),)).split("\n")
    touched = "\n".join([*lines[:2], addition, *lines[2:]])
    for block in parse(touched):
        assert block.rule is None or render((block.rule,)).strip() in touched


def test_lines_are_counted_from_one() -> None:
    """A finding names the line on which the block begins."""
    rules = merge([Rule("a", ("read",), {}), Rule("b", ("read",), {})])
    text = render(rules) + 'path "secret/*" {\n capabilities=["read"]\n}\n'
    assert [(block.line, block.rule is None) for block in parse(text)] == [
        (1, False),
        (6, False),
        (10, True),
    ]
    assert [(block.line, block.text, block.rule is None) for block in parse("  x\n" + text)] == [
        (1, "x", True),
        (2, 'path "a" {', False),
        (7, 'path "b" {', False),
        (11, 'path "secret/*" {', True),
    ]
    assert len(parse("\n\n" + text)) == 3
    assert [(block.line, block.rule) for block in parse("  x\n" + render(rules[:1]))] == [
        (1, None),
        (2, rules[0]),
    ]


@pytest.mark.parametrize("text", ["  indented", "}", "\n  indented\n}\n"])
def test_what_begins_nothing_is_a_block_all_the_same(text: str) -> None:
    """A policy is never read as if it said nothing."""
    (block,) = parse(text)
    assert (block.line, block.text, block.rule) == (1, text.split("\n", 1)[0].strip(), None)
    assert parse("") == parse(" \n \n") == ()


@pytest.mark.parametrize("tail", [" ", "\t", "  \n", "X", "\r", "\n  \n"])
def test_a_tail_that_we_do_not_write_is_not_ours(tail: str) -> None:
    """White space counts as well: what is in our form is in it to the last character."""
    text = render(merge([Rule("a", ("read",), {})])).rstrip("\n")
    (block,) = parse(text + tail)
    assert block.rule is None
    (whole,) = parse(text + "\n\n")
    assert whole.rule == Rule("a", ("read",), {})


@pytest.mark.parametrize("word", ["X", "XX", "x }"])
def test_any_line_at_the_margin_begins_a_block(word: str) -> None:
    """Whatever its first letter is."""
    text = render(merge([Rule("a", ("read",), {})]))
    assert [(block.line, block.text) for block in parse(f"{text}{word}\n")] == [
        (1, 'path "a" {'),
        (text.count("\n") + 1, word),
    ]


@given(RULES)
def test_a_rule_covers_itself_and_nothing_more(rule: Rule) -> None:
    """Reflexive; a capability, a field or a value more is not covered, a required field less."""
    assert covers(rule, rule)
    assert not covers(rule, Rule(rule.path + "x", rule.capabilities, rule.parameters))
    more = Rule(rule.path, rule.capabilities, {**rule.parameters, "NEW": ()}, rule.required)
    assert covers(more, rule)
    assert not covers(rule, more)
    asks = Rule(rule.path, rule.capabilities, rule.parameters, (*rule.required, "NEW"))
    assert covers(rule, asks)
    assert not covers(asks, rule)


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ((), ("a",), True),
        (("a",), (), False),
        (("a", "b"), ("b",), True),
        (("a",), ("a", "b"), False),
        ((True,), (1,), False),
    ],
)
def test_no_values_means_any(
    wide: tuple[Json, ...], narrow: tuple[Json, ...], *, covered: bool
) -> None:
    """An empty list of values is the widest."""
    rules = [Rule("p", ("update",), {"f": values}) for values in (wide, narrow)]
    assert covers(*rules) is covered


@given(st.lists(RULES, min_size=1, max_size=4), st.data())
def test_merging_takes_nothing_away(rules: list[Rule], data: st.DataObject) -> None:
    """Each rule, as the server sees it, is covered by the merged one of its path."""
    merged = {rule.path: rule for rule in merge(rules)}
    rule = data.draw(st.sampled_from(rules))
    assert covers(merged[rule.path], as_server_sees(rule))


def test_the_text_of_each_kind_of_value() -> None:
    """HCL: `=` in mappings, JSON otherwise; no `${`, which would begin a template, anywhere."""
    values: tuple[Json, ...] = (
        True,
        5,
        'q"',
        "é",
        "a ${b}",
        ["x", "${"],
        {"k": "v", "${": ["w"]},
        {},
    )
    rule = Rule("p/${x}", ("update", "create"), {"f": values, "e": ()}, ("f", "e"))

    assert render((rule,)) == (
        'path "p/\\u0024{x}" {\n'
        '  capabilities = ["create", "update"]\n'
        '  required_parameters = ["e", "f"]\n'
        "  allowed_parameters = {\n"
        '    "e" = []\n'
        '    "f" = ["a \\u0024{b}", "q\\"", "é", 5, ["x", "\\u0024{"], true, '
        '{ "\\u0024{" = ["w"], "k" = "v" }, {}]\n'
        "  }\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("value", "comparable"),
    [
        ("a", True),
        ("a*", True),
        ("*", False),
        (True, True),
        (5, False),
        (["a", True], True),
        (["a", "b*"], False),
        (["a", 5], False),
        ({"k": "a"}, True),
        ({"k": "a*"}, False),
        ({"k": 5}, False),
        ({"k": ["a"]}, False),
    ],
)
def test_what_the_server_cannot_compare_may_be_anything(value: Json, *, comparable: bool) -> None:
    """One such value opens its field, whatever stands beside it."""
    rule = as_server_sees(Rule("p", ("update",), {"f": ("x", value), "g": ("y",)}, ("f",)))
    assert rule == Rule("p", ("update",), {"f": ("x", value) if comparable else (), "g": ("y",)},
                        ("f",))  # fmt: skip


def test_the_order_of_a_mappings_keys_says_nothing() -> None:
    """Two such values are one, and one covers the other."""
    one: Json = {"a": "x", "b": "y"}
    other: Json = {"b": "y", "a": "x"}
    first, second = (Rule("p", ("update",), {"f": (value,)}) for value in (one, other))

    assert merge([first, second]) == (first,)
    assert covers(first, second)


def test_rules_of_one_path_are_joined() -> None:
    """Every right and every value of each; what one leaves open is open, what all ask is asked."""
    first = Rule("p", ("update",), {"a": ("y", "x"), "b": ("x",), "c": ("z",)}, ("b", "a", "c"))
    second = Rule("p", ("delete",), {"a": ("x", "w"), "b": ()}, ("a", "b"))

    assert merge([first, Rule("o", ("read",), {}), second]) == (
        Rule("o", ("read",), {}),
        Rule("p", ("delete", "update"), {"a": ("w", "x", "y"), "b": (), "c": ("z",)}, ("a", "b")),
    )


SERVER_CASES: list[tuple[Json, Json]] = [
    ("plain", "other"),
    ("ends*", "other"),
    ('q"uo\\te\nnew\tline', "other"),
    ("${foo} and ${", "other"),
    ("{{identity.entity.name}}", "other"),
    ("GRANT SELECT ON ALL TABLES;\n-- é 漢 \u2028", "GRANT ALL"),
    ("# no comment", "#"),
    (True, False),
    (["a", "b"], ["a"]),
    ({"a": "b", "c": "d"}, {"a": "b"}),
    ({}, {"a": "b"}),
]


@pytest.mark.real
@pytest.mark.parametrize(("allowed", "refused"), SERVER_CASES, ids=repr)
async def test_the_server_reads_the_text_as_we_mean_it(
    ground: Ground, allowed: Json, refused: Json
) -> None:
    """Each kind of value, written by us, allows itself on the real server and nothing else."""
    rule = Rule("transit-warehouse/encrypt/none", ("create", "update"), {"x": (allowed,)})
    async with ground.admin() as admin:
        text = render(merge([rule]))
        await admin.call("PUT", "sys/policies/acl/written", {"policy": text})
        held = (await admin.call("GET", "sys/policies/acl/written")).data["policy"]
        assert held == text
        asked = {"policies": ["written"], "no_default_policy": True}
        token = (await admin.call("POST", "auth/token/create", asked)).body["auth"]
        headers = {"X-Vault-Token": token["client_token"]}
        for value, denied in ((allowed, False), (refused, True)):
            assert matches(allowed, value) is not denied
            status = await _post(ground.address, rule.path, {"x": value}, headers)
            assert (status == 403) is denied, json.dumps(value)
        await admin.call("POST", "auth/token/revoke-accessor", {"accessor": token["accessor"]})
        await admin.call("DELETE", "sys/policies/acl/written")


async def _post(address: str, path: str, body: dict[str, Json], headers: dict[str, str]) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{address}/v1/{path}", json=body, headers=headers) as answer,
    ):
        return answer.status
