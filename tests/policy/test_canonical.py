"""RFC 8785: one form of bytes for one meaning."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmint.canonical import canonical, digest
from taskmint.model.scope import Json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_keys_are_ordered_by_utf_16() -> None:
    """RFC 8785, section 3.2.3: by code unit, so that an astral key stands before U+FB33."""
    value: Json = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\xf6": 6}

    assert list(json.loads(canonical(value))) == [
        "\r",
        "1",
        "\xf6",
        "\u20ac",
        "\U0001f600",
        "\ufb33",
    ]


def test_no_byte_is_wasted() -> None:
    """No white space, the shortest escapes, everything else as UTF-8."""
    assert canonical({"b": ['</\x1f\n"', 1.0, 1e21]}) == b'{"b":["</\\u001f\\n\\"",1,1e+21]}'


@given(JSON)
def test_nothing_is_lost(value: Json) -> None:
    """What is written parses to the same value, and key order does not matter."""
    written = canonical(value)

    assert json.loads(written) == value
    if isinstance(value, dict):
        assert canonical(dict(reversed(value.items()))) == written


@pytest.mark.parametrize("value", [2**53, float("nan"), float("inf"), "\ud800", {"\ud800": 1}])
def test_what_json_cannot_hold_is_a_value_error(value: Json) -> None:
    """Large integers, non-numbers, lone surrogates."""
    with pytest.raises(ValueError, match=r"."):
        canonical(value)


def test_the_digest_is_sha256_in_hex() -> None:
    """Of the canonical form."""
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
