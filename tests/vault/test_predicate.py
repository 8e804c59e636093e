"""The fence in the process: what is not in the plan does not leave (P3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from taskmint.model.scope import Json
from taskmint.policy.acl import Rule
from taskmint.policy.predicate import Predicate, is_safe_path, matches

JSON: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.text(max_size=40))
def test_a_safe_path_means_what_it_says(path: str) -> None:
    """What is called safe, yarl sends as it stands, segment by segment, with encoding on or off."""
    if is_safe_path(path):
        for encoded in (True, False):
            url = URL(f"http://vault/v1/{path}", encoded=encoded)
            assert url.raw_path == f"/v1/{path}"
            assert (url.query_string, url.fragment) == ("", "")
            assert url.join(URL("")).raw_path == f"/v1/{path}"


@pytest.mark.parametrize(
    "path",
    ["", "/", "a/", "/a", "a//b", ".", "..", "a/..", "a/./b", "a\n", "a%2e", "a?b", "a#b", "a b",
     "a\\b", "ä", "a;b", "a/\u2024\u2024/b", "a\0", "+", "a/*"],
)  # fmt: skip
def test_unsafe_paths(path: str) -> None:
    """Traversal, decoding, queries, wildcards: refused before anything is compared."""
    assert not is_safe_path(path)
    everything = Predicate([Rule(path, ("read",), {}), Rule("+/*", ("read",), {})])
    assert not everything.permits("GET", path, None)


RULES = [
    Rule("m/creds/a", ("read",), {}),
    Rule("m/creds/+", ("list",), {}),
    Rule("m/probe-*", ("read",), {}),
    Rule("m/issue/x", ("create", "update"), {"name": ("x", "y"), "any": ()}, ("name",)),
    Rule("m/issue/x", ("create", "update"), {"pair": ("z",)}, ("pair",)),
    Rule("m/gone", ("delete",), {}),
    Rule("m/both", ("create", "delete"), {"name": ()}, ("name",)),
    Rule("m/+/role-*", ("read",), {}),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "permitted"),
    [
        ("GET", "m/creds/a", None, True),
        ("GET", "m/creds/b", None, False),
        ("LIST", "m/creds/b", None, True),
        ("LIST", "m/creds/b/c", None, False),
        ("GET", "m/probe-x", None, True),
        ("GET", "m/probe", None, False),
        ("GET", "m/probe-x/y", None, False),
        ("POST", "m/probe-x", None, False),
        ("GET", "m/probe-x", {"ttl": "1h"}, False),
        ("GET", "m/creds/a", {"ttl": "1h"}, False),
        ("POST", "m/creds/a", None, False),
        ("DELETE", "m/creds/a", None, False),
        ("PATCH", "m/creds/a", None, False),
        ("DELETE", "m/gone", None, True),
        ("DELETE", "m/gone", {"name": "x"}, False),
        ("DELETE", "m/both", None, True),
        ("DELETE", "m/both", {"name": "x"}, False),
        ("GET", "m/x/role-a", None, True),
        ("GET", "m/x/role-", None, True),
        ("GET", "m/x/role", None, False),
        ("GET", "m/x/rolex", None, False),
        ("GET", "m/x/r", None, False),
        ("GET", "m/x/other", None, False),
        ("GET", "k/x/role-a", None, False),
        ("GET", "m/x/role-a/b", None, False),
        ("POST", "m/issue/x", {"name": "x"}, True),
        ("PUT", "m/issue/x", {"name": "y", "any": [1, {"deep": None}]}, True),
        ("POST", "m/issue/x", {"name": "z"}, False),
        ("POST", "m/issue/x", {"any": 1}, False),
        ("POST", "m/issue/x", {}, False),
        ("POST", "m/issue/x", {"name": ["x"]}, False),
        ("POST", "m/issue/x", {"pair": "z"}, True),
        ("POST", "m/issue/x", {"pair": "z", "name": "x"}, False),
    ],
)
def test_requests(method: str, path: str, body: dict[str, Json] | None, *, permitted: bool) -> None:
    """Each rule by itself, also where two share a path: their fields do not mix."""
    assert Predicate(RULES).permits(method, path, body) is permitted


@pytest.mark.parametrize(
    ("pattern", "value", "same"),
    [
        ("a*", "a", True),
        ("a*", "ab", True),
        ("a*", "b", False),
        ("ab*", "ax", False),
        ("*", 5, True),
        ("*", True, True),
        ("*", [], False),
        ("a*", 5, False),
        (1, True, False),
        (1, 1.0, False),
        (0, False, False),
        (["x*", 1], ["xy", 1], True),
        (["x*"], ["xy", "z"], False),
        ({"a": "*"}, {"a": 7}, True),
        ({"a": "*"}, {"a": 7, "b": 1}, False),
        (None, None, True),
    ],
)
def test_values(pattern: Json, value: Json, *, same: bool) -> None:
    """Type and value, and `*` only at an end."""
    assert matches(pattern, value) is same


@given(JSON, JSON)
def test_comparing_is_total_and_exact(pattern: Json, value: Json) -> None:
    """Without a wildcard in it a pattern allows itself, and two different ones not each other."""
    if "*" not in repr(pattern):
        assert matches(pattern, pattern)
        if matches(pattern, value):
            assert pattern == value
