"""
ACL rules in, a yes or no for each request out: whether the policy's plan holds it (P3).

The adapter asks before a request leaves the process, with the same rules that the server was
given, each by itself. So a bug of ours, or a value that slipped through, meets two fences. What is
not known to be safe in a URL is refused before anything is compared.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from taskmint.model.scope import Json

from .acl import Capability, Rule

_ONE_OF: Final[Mapping[str, frozenset[Capability]]] = {
    "GET": frozenset({"read"}),
    "LIST": frozenset({"list"}),
    "POST": frozenset({"create", "update"}),
    "PUT": frozenset({"create", "update"}),
    "DELETE": frozenset({"delete"}),
}
_PATH: Final = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*", re.ASCII)
_DOTS: Final = frozenset({".", ".."})


def is_safe_path(path: str) -> bool:
    """
    Say whether a path below /v1/ means in every URL parser what it says.

    Segments of letters, digits, dot, dash and underscore, none of them `.` or `..`; so there is
    nothing to decode, to normalise, or to end the path with.
    """
    if not _PATH.fullmatch(path):
        return False
    return "." not in path or _DOTS.isdisjoint(path.split("/"))


class Predicate:
    """The rules of one token, indexed by path; a question costs the same for any number of them."""

    __slots__ = ("_beginnings", "_exact", "_lengths", "_patterns")

    def __init__(self, rules: Iterable[Rule]) -> None:
        exact: defaultdict[str, list[Rule]] = defaultdict(list)
        beginnings: defaultdict[str, list[Rule]] = defaultdict(list)
        patterns: list[tuple[tuple[str, ...], Rule]] = []
        for rule in rules:
            if "+" in rule.path:
                patterns.append((tuple(rule.path.split("/")), rule))
            elif rule.path.endswith("*"):
                beginnings[rule.path[:-1]].append(rule)
            else:
                exact[rule.path].append(rule)
        self._exact = dict(exact)
        self._beginnings = dict(beginnings)
        self._lengths = tuple(sorted({len(beginning) for beginning in beginnings}))
        self._patterns = tuple(patterns)

    def permits(self, method: str, path: str, body: Mapping[str, Json] | None) -> bool:
        """Say whether some rule allows this request; `path` is below /v1/, without a slash."""
        if not is_safe_path(path):
            return False
        for rule in self._exact.get(path, ()):
            if _allows(rule, method, body):
                return True
        for length in self._lengths:
            # What the `*` stands for stays inside its segment, though the server reads on.
            for rule in self._beginnings.get(path[:length], ()):
                if "/" not in path[length:] and _allows(rule, method, body):
                    return True
        if not self._patterns:
            return False
        segments = path.split("/")
        return any(
            _path_matches(pattern, segments) and _allows(rule, method, body)
            for pattern, rule in self._patterns
        )


def _allows(rule: Rule, method: str, body: Mapping[str, Json] | None) -> bool:
    if _ONE_OF.get(method, frozenset()).isdisjoint(rule.capabilities):
        return False
    given = body or {}
    if method == "DELETE":  # has no fields, for the server either
        return not given
    for name in rule.required:
        if name not in given:
            return False
    for name, value in given.items():
        values = rule.parameters.get(name)
        if values is None:
            return False
        if values and not any(matches(pattern, value) for pattern in values):
            return False
    return True


def _path_matches(pattern: tuple[str, ...], segments: list[str]) -> bool:
    if len(pattern) != len(segments):
        return False
    return all(
        wanted in {"+", given} or (wanted.endswith("*") and given.startswith(wanted[:-1]))
        for wanted, given in zip(pattern, segments, strict=True)
    )


def matches(pattern: Json, value: Json) -> bool:
    """
    Compare one allowed value with one given.

    A text that ends with `*` allows any ending, and `*` alone any text, number or boolean, also
    inside lists and mappings. Otherwise type and value are the same: `1` is not `true`.
    """
    if isinstance(pattern, str) and pattern.endswith("*"):
        if isinstance(value, str):
            return value.startswith(pattern[:-1])
        return pattern == "*" and isinstance(value, int | bool)
    if isinstance(pattern, list):
        return (
            isinstance(value, list)
            and len(pattern) == len(value)
            and all(map(matches, pattern, value))
        )
    if isinstance(pattern, dict):
        return (
            isinstance(value, dict)
            and pattern.keys() == value.keys()
            and all(matches(inner, value[key]) for key, inner in pattern.items())
        )
    return type(pattern) is type(value) and pattern == value
