"""
Two policies in, what the second gives or takes compared with the first out, in words.

`widened` is said of anything that somebody could not have done before: a wider pattern, another
path, a longer life, a condition less. Where it cannot be told (a condition was reworded), both are
said: it is the reviewer who knows.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from taskmint.canonical import canonical
from taskmint.model.scope import Entitlement, ProofLevel

from .change import Change, Direction, Parts, longer
from .definition import Definition, Policy
from .describe import describe
from .difference_terms import compare_terms
from .enumerate import enumerate_definition
from .parameter import EnumParameter, IntegerParameter, Parameter, SegmentParameter
from .pattern import covers
from .template import ANY_SEGMENT

_W: Final = Direction.WIDENED
_N: Final = Direction.NARROWED
_O: Final = Direction.OTHER


def difference(old: Policy, new: Policy) -> tuple[Change, ...]:
    """List every change, by task; what widened first."""
    changes: list[Change] = []
    for name in sorted({*old.definitions, *new.definitions}):
        before, after = old.definitions.get(name), new.definitions.get(name)
        if before is None and after is not None:
            parts = _whole(after, _W, "gained")
        elif after is None and before is not None:
            parts = _whole(before, _N, "lost")
        elif before is not None and after is not None:
            parts = _compare(before, after)
        else:
            continue
        changes += [Change(direction, name, sentence) for direction, sentence in parts]
    for name in sorted({*old.shadows, *new.shadows}):
        if _described(old, name) != _described(new, name):
            changes.append(
                Change(_O, name, f"the shadow of {name} changed; a shadow grants nothing")
            )
    return tuple(sorted(changes, key=_order))


def _order(change: Change) -> int:
    return list(Direction).index(change.direction)


def _described(policy: Policy, shadow: str) -> object:
    held = policy.shadows.get(shadow)
    return None if held is None else describe(held)


def _whole(definition: Definition, direction: Direction, verb: str) -> Parts:
    paths = ", ".join(map(str, _requests(definition)))
    for pattern in definition.patterns:
        yield direction, f"{pattern.text} {verb} {paths} through {definition.name}"


def _compare(old: Definition, new: Definition) -> Parts:
    yield from _who(old, new)
    yield from _scope(old, new)
    yield from compare_terms(old, new)


def _who(old: Definition, new: Definition) -> Parts:
    paths = ", ".join(map(str, _requests(new)))
    for pattern in new.patterns:
        if not any(covers(held, pattern) for held in old.patterns):
            yield _W, f"{pattern.text} gained {paths} through {new.name}"
    paths = ", ".join(map(str, _requests(old)))
    for pattern in old.patterns:
        if not any(covers(kept, pattern) for kept in new.patterns):
            yield _N, f"{pattern.text} lost {paths} through {old.name}"


@dataclass(frozen=True, slots=True)
class _Request:
    """One request a task may make, as far as the enumeration tells."""

    method: str
    path: tuple[str, ...]
    body: bytes

    def __str__(self) -> str:
        body = f" with {self.body.decode()}" if self.body != b"{}" else ""
        return f"{self.method} {'/'.join(self.path)}{body}"

    def spans(self, other: "_Request") -> bool:
        """Whether the other is among what this allows; `+` is any one segment."""
        return (self.method, self.body, len(self.path)) == (
            other.method,
            other.body,
            len(other.path),
        ) and all(
            have in {ANY_SEGMENT, want} for have, want in zip(self.path, other.path, strict=True)
        )


def _requests(definition: Definition) -> tuple[_Request, ...]:
    """List what a definition may ask of Vault, each once, in order."""
    found = {
        _request(entitlement): None
        for combination in enumerate_definition(definition).combinations
        for entitlement in combination.entitlements
    }
    return tuple(found)


def _request(entitlement: Entitlement) -> _Request:
    path = f"{entitlement.mount}/{entitlement.path}"
    asked = dict(entitlement.body)
    if entitlement.acl is not None:
        asked["acl"] = entitlement.acl
    return _Request(entitlement.method, tuple(path.split("/")), canonical(asked))


def _scope(old: Definition, new: Definition) -> Parts:
    before, after = _requests(old), _requests(new)
    who = ", ".join(pattern.text for pattern in new.patterns)
    for request in after:
        if not any(held.spans(request) for held in before):
            yield _W, f"{who} gained {request} through {new.name}"
    who = ", ".join(pattern.text for pattern in old.patterns)
    for request in before:
        if not any(kept.spans(request) for kept in after):
            yield _N, f"{who} lost {request} through {old.name}"
    yield from _proofs(old, new)
    yield from _parameters(old, new)


def _proofs(old: Definition, new: Definition) -> Parts:
    """Compare what is promised of an entitlement's end, and how long it may outlive it."""
    levels = list(ProofLevel)
    before = {each.name: each for each in old.entitlements}
    for after in new.entitlements:
        held = before.get(after.name)
        if held is None:
            continue
        step = levels.index(after.proof) - levels.index(held.proof)
        if step:
            said = (
                f"{new.name} proves {after.name} revoked to level {after.proof}, was {held.proof}"
            )
            yield (_N if step > 0 else _W), said
        if after.revocable != held.revocable:
            is_or_not = "is" if after.revocable else "is not"
            said = f"{after.name} of {new.name} {is_or_not} taken back when the task ends"
            yield (_N if after.revocable else _W), said
        yield from longer(f"{after.name} of {new.name} lives", held.ceiling, after.ceiling)


def _parameters(old: Definition, new: Definition) -> Parts:
    """Compare what the requests do not show: bounds, and enum values that no request names."""
    before = {each.name: each for each in old.parameters}
    after = {each.name: each for each in new.parameters}
    for name in sorted(before.keys() - after.keys()):
        yield _O, f"{new.name} no longer takes the parameter {name}"
    for name in sorted(after.keys() - before.keys()):
        yield _O, f"{new.name} takes the parameter {name}: {after[name]}"
    for name in sorted(before.keys() & after.keys()):
        held, now = before[name], after[name]
        if isinstance(held, EnumParameter) and isinstance(now, EnumParameter):
            for value in _unsaid(new, name, frozenset(now.values) - frozenset(held.values), old):
                yield _W, f"parameter {name} of {new.name} may be {value}"
            for value in _unsaid(old, name, frozenset(held.values) - frozenset(now.values), new):
                yield _N, f"parameter {name} of {new.name} may no longer be {value}"
        elif held != now:
            for direction in _bounds(held, now):
                yield direction, f"parameter {name} of {new.name} takes {now}, was {held}"


def _unsaid(here: Definition, name: str, values: frozenset[str], there: Definition) -> list[str]:
    """Find the values whose requests the other definition spans, so that no path tells of them."""
    spanned = _requests(there)
    by_value: defaultdict[object, list[_Request]] = defaultdict(list)
    for combination in enumerate_definition(here).combinations:
        value = combination.parameters.get(name)
        by_value[value] += (_request(each) for each in combination.entitlements)
    return [
        value
        for value in sorted(values)
        if all(any(held.spans(one) for held in spanned) for one in by_value[value])
    ]


def _bounds(held: Parameter, after: Parameter) -> Iterator[Direction]:
    if isinstance(held, IntegerParameter) and isinstance(after, IntegerParameter):
        lower, upper = held.min - after.min, after.max - held.max
    elif isinstance(held, SegmentParameter) and isinstance(after, SegmentParameter):
        lower, upper = 0, after.max_length - held.max_length
    elif isinstance(held, EnumParameter) and isinstance(after, SegmentParameter):
        lower, upper = 0, 1
    elif isinstance(held, SegmentParameter) and isinstance(after, EnumParameter):
        lower, upper = 0, -1
    else:
        lower, upper = -1, 1  # another type: other values, neither more nor fewer
    if lower > 0 or upper > 0:
        yield _W
    if lower < 0 or upper < 0:
        yield _N
