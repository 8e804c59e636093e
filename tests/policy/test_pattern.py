"""`who`: whole segments through an index, the most specific pattern first."""

import re
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmint.model.spiffe import SpiffeId
from taskmint.policy.pattern import Match, Pattern, build_index, parse_pattern


def matched(caller: str, *patterns: str) -> Match | None:
    """The match of a caller among patterns."""
    index, clashes = build_index(map(parse_pattern, patterns))
    assert not clashes
    return index.match(SpiffeId.parse(caller))


def matches(caller: str, pattern: str) -> bool:
    """Whether one pattern matches."""
    return matched(caller, pattern) is not None


@pytest.mark.parametrize(
    ("pattern", "caller"),
    [
        ("spiffe://a.b/ci", "spiffe://a.b/ci"),
        ("spiffe://a.b/ci", "SPIFFE://A.B/ci"),
        ("spiffe://a.b/*", "spiffe://a.b/ci"),
        ("spiffe://a.b/*", "spiffe://a.b/c.i"),
        ("spiffe://a.b/*/x", "spiffe://a.b/y/x"),
        ("spiffe://a.b/{job}", "spiffe://a.b/ci"),
        ("spiffe://a.b/{job}", "spiffe://a.b/" + "x" * 64),
        ("spiffe://a.b/**", "spiffe://a.b/ci"),
        ("spiffe://a.b/**", "spiffe://a.b/ci/x/y.z"),
        ("spiffe://a.b/ns/*/**", "spiffe://a.b/ns/a/b/c"),
    ],
)
def test_patterns_match_whom_they_say(pattern: str, caller: str) -> None:
    """A wildcard is one whole segment, `**` one or more; trust domains ignore case."""
    assert matches(caller, pattern)


@pytest.mark.parametrize(
    ("pattern", "caller"),
    [
        ("spiffe://a.b/ci", "spiffe://a.b/cinema"),
        ("spiffe://a.b/ci", "spiffe://a.b/CI"),
        ("spiffe://a.b/ci", "spiffe://a.b/ci/x"),
        ("spiffe://a.b/ci", "spiffe://x.a.b/ci"),
        ("spiffe://a.b/ci", "spiffe://a.b.c/ci"),
        ("spiffe://a.b/ci/x", "spiffe://a.b/ci"),
        ("spiffe://a.b/*", "spiffe://a.b/a/b"),
        ("spiffe://a.b/*", "spiffe://a.b"),
        ("spiffe://a.b/**", "spiffe://a.b"),
        ("spiffe://a.b/ns/**", "spiffe://a.b/ns"),
        ("spiffe://a.b/ns/**", "spiffe://a.b/nsx/y"),
        ("spiffe://a.b/{job}", "spiffe://a.b/c.i"),
        ("spiffe://a.b/{job}", "spiffe://a.b/" + "x" * 65),
        ("spiffe://a.b/{x}/{y}", "spiffe://a.b/a/b.c"),
    ],
)
def test_patterns_match_nobody_else(pattern: str, caller: str) -> None:
    """No prefix, no case folding, no crossing of segments; a capture is a word without dots."""
    assert not matches(caller, pattern)


def test_captures_are_by_name() -> None:
    """Each captured segment under its name."""
    match = matched("spiffe://a.b/ns/x/sa/y", "spiffe://a.b/ns/{space}/sa/{account}")

    assert match is not None
    assert match.captures == {"space": "x", "account": "y"}
    assert match.pattern.names == {"space", "account"}


def test_a_pattern_without_captures_captures_nothing() -> None:
    """An empty mapping, not None."""
    match = matched("spiffe://a.b/ns", "spiffe://a.b/*")

    assert match is not None
    assert match.captures == {}


PATTERNS = (
    "spiffe://a.b/ns/x",
    "spiffe://a.b/ns/{name}",
    "spiffe://a.b/*/x",
    "spiffe://a.b/**",
    "spiffe://a.b/ns/**",
)


@pytest.mark.parametrize(
    ("caller", "winner"),
    [
        ("spiffe://a.b/ns/x", "spiffe://a.b/ns/x"),
        ("spiffe://a.b/ns/y", "spiffe://a.b/ns/{name}"),
        ("spiffe://a.b/other/x", "spiffe://a.b/*/x"),
        ("spiffe://a.b/other/y", "spiffe://a.b/**"),
        ("spiffe://a.b/ns/y.z", "spiffe://a.b/ns/**"),
        ("spiffe://a.b/ns/y/z", "spiffe://a.b/ns/**"),
        ("spiffe://a.b/ns", "spiffe://a.b/**"),
    ],
)
def test_the_most_specific_pattern_wins_in_any_order(caller: str, winner: str) -> None:
    """A literal before a wildcard before `**`, segment by segment; order never matters."""
    for order in permutations(PATTERNS):
        match = matched(caller, *order)
        assert match is not None
        assert match.pattern.text == winner


def test_a_dead_end_is_left_again() -> None:
    """A literal that leads nowhere does not hide a wildcard that does."""
    assert matches("spiffe://a.b/ns/y", "spiffe://a.b/*/y")
    match = matched("spiffe://a.b/ns/y", "spiffe://a.b/ns/x", "spiffe://a.b/*/y")

    assert match is not None
    assert match.pattern.text == "spiffe://a.b/*/y"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("spiffe://a.b/x", "spiffe://a.b/x"),
        ("spiffe://a.b/*", "spiffe://a.b/{x}"),
        ("spiffe://a.b/{x}/y", "spiffe://a.b/{z}/y"),
        ("spiffe://a.b/{x}/**", "spiffe://a.b/*/**"),
    ],
)
def test_patterns_of_the_same_ids_clash(first: str, second: str) -> None:
    """The later one could never win: its place and the earlier one are told."""
    earlier = parse_pattern(first)
    _, clashes = build_index(
        [parse_pattern("spiffe://a.b/other/z"), earlier, parse_pattern(second)]
    )

    assert clashes == ((2, earlier),)


WHOLE = "* and {name} stand for a whole segment; names are lower-case words"
SEGMENT = (
    "each path segment is one or more of letters, digits, dot, dash, underscore, "
    "and is neither . nor .."
)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("*", "a pattern starts with spiffe://"),
        ("http://a.b/c", "a pattern starts with spiffe://"),
        ("SPIFFE://a.b/c", "a pattern starts with spiffe://"),
        ("spiffe://*/c", "a trust domain is written out; write one pattern for each"),
        ("spiffe://{td}/c", "a trust domain is written out; write one pattern for each"),
        ("spiffe://a.b", "a trust domain's own ID is nobody's; write a path, or ** for all of it"),
        ("spiffe://a.b/", "a trust domain's own ID is nobody's; write a path, or ** for all of it"),
        ("spiffe://A.b/c", "trust domains are lower-case; nobody has this one"),
        ("spiffe:///c", "a trust domain is made of letters, digits, dot, dash, underscore"),
        ("spiffe://a b/c", "a trust domain is made of letters, digits, dot, dash, underscore"),
        ("spiffe://a.b/**/c", "** stands only at the end"),
        ("spiffe://a.b/c*", WHOLE),
        ("spiffe://a.b/***", WHOLE),
        ("spiffe://a.b/{Job}", WHOLE),
        ("spiffe://a.b/x-{job}", WHOLE),
        ("spiffe://a.b/x}", WHOLE),
        ("spiffe://a.b/{x", WHOLE),
        ("spiffe://a.b/c://d", SEGMENT),
        ("spiffe://a.b/{x}/{x}", "a name is captured twice"),
        ("spiffe://a.b/c//d", SEGMENT),
        ("spiffe://a.b/c/", SEGMENT),
        ("spiffe://a.b/../c", SEGMENT),
        ("spiffe://a.b/c\n", SEGMENT),
        ("spiffe://a.b/ä", SEGMENT),
        (
            "spiffe://a.b/" + "x" * 2048,
            "a SPIFFE ID has at most 2048 bytes, so nobody has this one",
        ),
    ],
)
def test_patterns_that_match_nobody_are_refused(text: str, advice: str) -> None:
    """With a sentence that says what to write."""
    with pytest.raises(ValueError, match=f"^{re.escape(advice)}$"):
        parse_pattern(text)


def test_the_longest_id_may_be_written() -> None:
    """In bytes, as SPIFFE counts."""
    text = "spiffe://a.b/" + "x" * (2048 - len("spiffe://a.b/"))
    assert parse_pattern(text).text == text


SEGMENTS = st.sampled_from(["a", "b", "a.b", "aa"])
IDS = st.lists(SEGMENTS, min_size=1, max_size=4)
TEXTS = st.builds(
    lambda body, rest: "spiffe://t/" + "/".join([*body, *rest]),
    st.lists(st.one_of(SEGMENTS, st.just("*")), min_size=1, max_size=4),
    st.sampled_from([[], ["**"]]),
)


def naive(pattern: Pattern, segments: list[str]) -> bool:
    """Matching as the documentation says it, without an index."""
    wanted = list(pattern.segments)
    if wanted[-1] == "**":
        wanted.pop()
        if len(segments) <= len(wanted):
            return False
        segments = segments[: len(wanted)]
    return len(wanted) == len(segments) and all(
        want in {"*", have} for want, have in zip(wanted, segments, strict=True)
    )


@given(st.lists(TEXTS, max_size=6, unique=True), IDS)
def test_the_index_agrees_with_plain_comparison(texts: list[str], segments: list[str]) -> None:
    """It finds a pattern exactly when comparing one after the other finds one, and a true one."""
    patterns = [parse_pattern(text) for text in texts]
    index, _ = build_index(patterns)
    match = index.match(SpiffeId.parse("spiffe://t/" + "/".join(segments)))

    assert (match is not None) == any(naive(pattern, segments) for pattern in patterns)
    assert match is None or naive(match.pattern, segments)


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_a_value_error(text: str) -> None:
    """Nothing else is raised."""
    try:
        parse_pattern("spiffe://" + text)
    except ValueError:
        return
