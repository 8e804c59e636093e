"""A request's body: JSON with one meaning, and no deeper, larger or stranger than is said."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmint.api.json_body import LARGEST_INTEGER, MAX_DEPTH, parse_object
from taskmint.errors import BadRequest, Code

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
    | st.floats(-LARGEST_INTEGER, LARGEST_INTEGER)
    | NAMES
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)


def depth(value: Any) -> int:
    """How deep a value nests, as RFC 8259 counts: each object and each array one more."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def refused(body: bytes) -> str:
    """What is said of a body that is refused."""
    with pytest.raises(BadRequest) as caught:
        parse_object(body)
    assert caught.value.code is Code.MALFORMED_REQUEST
    return caught.value.detail


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_an_honest_body_comes_out_as_it_was_meant(value: dict[str, Any]) -> None:
    """Whatever JSON can say within the bounds, brackets in text included."""
    body = json.dumps(value).encode()
    if depth(value) > MAX_DEPTH:
        assert "nests deeper" in refused(body)
    else:
        assert parse_object(body) == value


@pytest.mark.parametrize("innermost", [b"", b"1", b'"["', b"{}", b"[],1"])
def test_sixteen_levels_are_read_and_one_more_is_not(innermost: bytes) -> None:
    """An empty array is a level, too; what lies in it makes no difference."""
    levels = MAX_DEPTH - 1 - (1 if innermost[:1] in {b"{", b"["} else 0)
    body = b'{"a":%s%s%s}'

    assert parse_object(body % (b"[" * levels, innermost, b"]" * levels))
    assert "nests deeper" in refused(body % (b"[" * (levels + 1), innermost, b"]" * (levels + 1)))


@pytest.mark.parametrize("levels", [MAX_DEPTH, 500, 900, 20_000])
def test_closing_brackets_in_a_text_hide_no_depth(levels: int) -> None:
    """They close nothing: however many stand before it, what nests too deep is refused."""
    closing, deep = b"]" * 30_000, b"[" * levels + b"]" * levels

    assert refused(b'{"a":"%s","b":%s}' % (closing, deep))


def test_opening_brackets_in_a_text_are_a_text() -> None:
    """A purpose may hold as many as it likes."""
    assert parse_object(b'{"purpose":"%s"}' % (b"[{" * 100)) == {"purpose": "[{" * 100}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (b'{"a\\u0000":1}', "NUL"),
        (b'{"a":["\\udfff"]}', "surrogate"),
        (b'{"a":[[9007199254740992]]}', "out of range"),
        (b'{"a":{"b":-9007199254740992}}', "out of range"),
        (b'{"a":1e999}', "out of range"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(value: bytes, sentence: str) -> None:
    """In keys as in values, at whatever level (RFC 7493)."""
    assert sentence in refused(value)
