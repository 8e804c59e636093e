"""
Definitions in, the Vault roles that two of them share with different dead-man intervals out.

A Vault role has one `default_ttl`, which must be the dead-man interval of everything that mints
through it; so two definitions that may reach the same mount and path must agree.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from taskmint.model.scope import EntitlementKind

from .definition import Definition
from .enumerate import enumerate_definition
from .template import ANY_SEGMENT

_LEASED: Final = frozenset({EntitlementKind.SECRET, EntitlementKind.DATABASE})


@dataclass(frozen=True, slots=True)
class Reach:
    """An entitlement of a definition, and one Vault path that it may reach."""

    definition: Definition
    entitlement: str
    path: str


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two that may reach the same role with different intervals."""

    here: Reach
    other: Definition


@dataclass(slots=True)
class _Branch:
    """A node of the paths that hold wildcards; `intervals` are those of every path below it."""

    children: dict[str, "_Branch"] = field(default_factory=dict)
    intervals: set[timedelta] = field(default_factory=set)
    ends: dict[timedelta, Definition] = field(default_factory=dict)


def disagreements(definitions: Iterable[Definition]) -> Iterator[Disagreement]:
    """Find who disagrees: plain paths among themselves, wildcards with all."""
    plain: dict[str, Reach] = {}
    wild: list[Reach] = []
    for reach in _reaches(definitions):
        if ANY_SEGMENT in reach.path:
            wild.append(reach)
            continue
        held = plain.setdefault(reach.path, reach)
        if held.definition.dead_man != reach.definition.dead_man:
            yield Disagreement(reach, held.definition)
    root = _Branch()
    for reach in (*wild, *plain.values()):
        segments = reach.path.split("/")
        clash = _other(root, segments, 0, reach.definition.dead_man)
        if clash is not None:
            yield Disagreement(reach, clash)
        if ANY_SEGMENT in reach.path:
            _insert(root, segments, reach.definition)


def _reaches(definitions: Iterable[Definition]) -> Iterator[Reach]:
    for definition in definitions:
        for combination in enumerate_definition(definition).combinations:
            for entitlement in combination.entitlements:
                if entitlement.kind in _LEASED and entitlement.revocable:
                    path = f"{entitlement.mount}/{entitlement.path}"
                    yield Reach(definition, entitlement.name, path)


def _insert(branch: _Branch, segments: list[str], definition: Definition) -> None:
    branch.intervals.add(definition.dead_man)
    for segment in segments:
        branch = branch.children.setdefault(segment, _Branch())
        branch.intervals.add(definition.dead_man)
    branch.ends.setdefault(definition.dead_man, definition)


def _other(branch: _Branch, segments: list[str], at: int, dead_man: timedelta) -> Definition | None:
    """Find a definition with another interval whose path may equal this one."""
    if not branch.intervals - {dead_man}:
        return None
    if at == len(segments):
        others = (held for interval, held in branch.ends.items() if interval != dead_man)
        return next(others, None)
    onward: Iterable[_Branch]
    if segments[at] == ANY_SEGMENT:
        onward = branch.children.values()
    else:
        candidates = (branch.children.get(segments[at]), branch.children.get(ANY_SEGMENT))
        onward = [child for child in candidates if child is not None]
    found = (_other(child, segments, at + 1, dead_man) for child in onward)
    return next((definition for definition in found if definition is not None), None)
