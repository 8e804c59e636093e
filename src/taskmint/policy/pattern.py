"""
`who` patterns in, an index that finds the one that matches a SPIFFE ID out.

Whole path segments are compared, never text with text: `*` and `{name}` stand for exactly one
segment, `**` for one or more and only at the end. The most specific pattern wins (at each segment
a literal before a wildcard before `**`), so the order in the file never matters.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from taskmint.model.spiffe import MAX_BYTES, SpiffeId

ONE: Final = "*"
REST: Final = "**"

_CAPTURE = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}", re.ASCII)
_CAPTURED = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Pattern:
    """
    One entry of `who`; `segments` hold literals, `*` for a wildcard or capture, `**` at the end.

    `captures` names the captured segments by position. A captured segment has type `segment`:
    a caller whose segment there is longer than 64 or holds a dot does not match.
    """

    text: str
    trust_domain: str
    segments: tuple[str, ...]
    captures: tuple[tuple[int, str], ...]

    @property
    def names(self) -> frozenset[str]:
        """The captured names."""
        return frozenset(name for _, name in self.captures)


@dataclass(frozen=True, slots=True)
class Match:
    """The pattern that matched, and what it captured."""

    pattern: Pattern
    captures: Mapping[str, str]


def parse_pattern(text: str) -> Pattern:
    """Read one pattern. Raises ValueError with a sentence that says what to write."""
    head, separator, rest = text.partition("://")
    trust_domain, _, path = rest.partition("/")
    if head != "spiffe" or not separator:
        raise ValueError("a pattern starts with spiffe://")
    if len(text.encode()) > MAX_BYTES:
        raise ValueError(f"a SPIFFE ID has at most {MAX_BYTES} bytes, so nobody has this one")
    if "*" in trust_domain or "{" in trust_domain:
        raise ValueError("a trust domain is written out; write one pattern for each")
    if not path:
        raise ValueError("a trust domain's own ID is nobody's; write a path, or ** for all of it")
    if SpiffeId.parse(f"spiffe://{trust_domain}").trust_domain != trust_domain:
        raise ValueError("trust domains are lower-case; nobody has this one")
    segments, captures = _read_segments(path.split("/"))
    if len({name for _, name in captures}) != len(captures):
        raise ValueError("a name is captured twice")
    return Pattern(text, trust_domain, segments, captures)


def _read_segments(given: list[str]) -> tuple[tuple[str, ...], tuple[tuple[int, str], ...]]:
    segments: list[str] = []
    captures: list[tuple[int, str]] = []
    for position, segment in enumerate(given):
        if capture := _CAPTURE.fullmatch(segment):
            captures.append((position, capture[1]))
            segments.append(ONE)
            continue
        if segment == REST and position != len(given) - 1:
            raise ValueError("** stands only at the end")
        if segment not in {ONE, REST}:
            _check_literal(segment)
        segments.append(segment)
    return tuple(segments), tuple(captures)


def _check_literal(segment: str) -> None:
    if "*" in segment or "{" in segment or "}" in segment:
        raise ValueError("* and {name} stand for a whole segment; names are lower-case words")
    SpiffeId.parse(f"spiffe://x/{segment}")


@dataclass(slots=True)
class _Branch:
    """A node of the index: what may follow, and the pattern that ends here."""

    literals: dict[str, "_Branch"] | None = None
    one: "_Branch | None" = None
    rest: Pattern | None = None
    end: Pattern | None = None


class WhoIndex:
    """Patterns by trust domain and segment; not changed after it is built."""

    __slots__ = ("_domains",)

    def __init__(self, domains: Mapping[str, _Branch]) -> None:
        self._domains = domains

    def match(self, caller: SpiffeId) -> Match | None:
        """Find the most specific pattern that matches, with its captures."""
        branch = self._domains.get(caller.trust_domain)
        if branch is None:
            return None
        return _walk(branch, caller.segments)


def build_index(patterns: Iterable[Pattern]) -> tuple[WhoIndex, tuple[tuple[int, Pattern], ...]]:
    """
    Index patterns; also return each that matches exactly the IDs of an earlier one, as the pair
    (its place in the sequence, that earlier pattern). It could never win; the loader refuses it.
    """
    domains: dict[str, _Branch] = {}
    clashes: list[tuple[int, Pattern]] = []
    for place, pattern in enumerate(patterns):
        branch = domains.setdefault(pattern.trust_domain, _Branch())
        for segment in pattern.segments:
            if segment == REST:
                break
            branch = _follow(branch, segment)
        held = branch.rest if pattern.segments[-1] == REST else branch.end
        if held is not None:
            clashes.append((place, held))
        elif pattern.segments[-1] == REST:
            branch.rest = pattern
        else:
            branch.end = pattern
    return WhoIndex(domains), tuple(clashes)


def _follow(branch: _Branch, segment: str) -> _Branch:
    if segment != ONE:
        if branch.literals is None:
            branch.literals = {}
        return branch.literals.setdefault(segment, _Branch())
    if branch.one is None:
        branch.one = _Branch()
    return branch.one


def _walk(root: _Branch, segments: tuple[str, ...]) -> Match | None:
    """Try literals before wildcards before `**`, the last one seen first: no recursion."""
    later: list[tuple[_Branch | None, Pattern | None, int]] = []
    branch: _Branch | None = root
    rest: Pattern | None = None
    at = 0
    while True:
        while branch is not None and at < len(segments):
            if branch.rest is not None:
                later.append((None, branch.rest, at))
            literal = branch.literals.get(segments[at]) if branch.literals else None
            at += 1
            if literal is not None:
                later.append((branch.one, None, at))
            branch = literal or branch.one
        ending = rest if branch is None else branch.end
        if ending is not None and (match := _capture(ending, segments)) is not None:
            return match
        if not later:
            return None
        branch, rest, at = later.pop()


def _capture(pattern: Pattern, segments: tuple[str, ...]) -> Match | None:
    if not pattern.captures:
        return Match(pattern, _NOTHING)
    values = {name: segments[position] for position, name in pattern.captures}
    if not all(map(is_word, values.values())):
        return None
    return Match(pattern, values)


def is_word(segment: str) -> bool:
    """Whether a segment can be captured: type `segment`."""
    return _CAPTURED.fullmatch(segment) is not None


def covers(wide: Pattern, narrow: Pattern) -> bool:
    """Whether everybody whom `narrow` matches is matched by `wide`."""
    if wide.trust_domain != narrow.trust_domain:
        return False
    for position, segment in enumerate(wide.segments):
        if segment == REST:
            return len(narrow.segments) > position
        if position >= len(narrow.segments):
            return False
        if not _covers_segment(wide, narrow, position):
            return False
    return len(wide.segments) == len(narrow.segments)


def _covers_segment(wide: Pattern, narrow: Pattern, position: int) -> bool:
    have, want = wide.segments[position], narrow.segments[position]
    if want == REST or have != ONE:
        return have == want and want != REST
    if position not in dict(wide.captures):
        return True  # a wildcard takes every segment, a capture words only
    return position in dict(narrow.captures) if want == ONE else is_word(want)
