"""
Two policies in, what the second gives or takes compared with the first out, in words.

`widened` is said of anything that somebody could not have done before: a wider pattern, another
path, a longer life, a condition less. Where it cannot be told (a condition was reworded), both are
said: it is the reviewer who knows.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, TypeAlias

from taskmint.model.scope import ParameterValue, ProofLevel

from .change import Change, Direction, Parts, longer
from .definition import Definition, EntitlementTemplate, Policy
from .describe import describe
from .difference_terms import compare_terms
from .parameter import EnumParameter, IntegerParameter, Parameter, Refused, SegmentParameter
from .pattern import covers
from .reach import Reach, reaches, written
from .template import Values

_W: Final = Direction.WIDENED
_N: Final = Direction.NARROWED
_O: Final = Direction.OTHER

# A request, and the entitlements of the other definition that allow it as well.
_Match: TypeAlias = tuple[Reach, list[EntitlementTemplate]]


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
    paths = ", ".join(_requests(definition))
    for pattern in definition.patterns:
        yield direction, f"{pattern.text} {verb} {paths} through {definition.name}"


def _compare(old: Definition, new: Definition) -> Parts:
    parts = [*_who(old, new), *_scope(old, new), *compare_terms(old, new)]
    if not parts and describe(old) != describe(new):
        yield _O, f"{new.name} is written otherwise, and gives and takes the same"
    yield from parts


def _who(old: Definition, new: Definition) -> Parts:
    paths = ", ".join(_requests(new))
    for pattern in new.patterns:
        if not any(covers(held, pattern) for held in old.patterns):
            yield _W, f"{pattern.text} gained {paths} through {new.name}"
    paths = ", ".join(_requests(old))
    for pattern in old.patterns:
        if not any(covers(kept, pattern) for kept in new.patterns):
            yield _N, f"{pattern.text} lost {paths} through {old.name}"
    used = _used(new)  # what only the old one used, requests and conditions tell of
    before, after = _placed(old, used), _placed(new, used)
    if before != after and len({*before.values(), *after.values()}) > 1:
        said = f"what {new.name} captures may be another part of an identity, or claimed"
        yield _W, said
        yield _N, said


def _placed(definition: Definition, used: frozenset[str]) -> dict[object, frozenset[object]]:
    """Tell by whom a pattern matches which of the used names it captures, and where."""
    return {
        (
            pattern.trust_domain,
            pattern.segments,
            tuple(at for at, _ in pattern.captures),
        ): frozenset((at, name) for at, name in pattern.captures if name in used)
        for pattern in definition.patterns
    }


def _used(definition: Definition) -> frozenset[str]:
    """Name what the scope and the conditions use, be it captured or claimed."""
    read = (name.rpartition(".")[2] for name in definition.fact_names)
    return frozenset(read).union(*(each.names for each in definition.entitlements))


def _requests(definition: Definition) -> tuple[str, ...]:
    """List what a definition may ask of Vault, each once, in order."""
    return tuple(dict.fromkeys(written(*each) for each in reaches(definition)))


def _scope(old: Definition, new: Definition) -> Parts:
    lost, gained = _matched(old, new), _matched(new, old)
    who = ", ".join(pattern.text for pattern in new.patterns)
    for request in dict.fromkeys(written(*each) for each, held in gained if not held):
        yield _W, f"{who} gained {request} through {new.name}"
    who = ", ".join(pattern.text for pattern in old.patterns)
    for request in dict.fromkeys(written(*each) for each, kept in lost if not kept):
        yield _N, f"{who} lost {request} through {old.name}"
    pairs = {
        (held.name, template.name): (held, template)
        for (template, _), covering in gained
        for held in covering
    }
    names = frozenset(each.name for each in old.entitlements)
    for before, after in pairs.values():
        if after.name not in names:
            yield _O, f"{new.name} gives as {after.name} what it gave as {before.name}"
        yield from _promises(new.name, before, after)
    yield from _parameters(old, new, gained, lost)


def _matched(these: Definition, others: Definition) -> tuple[_Match, ...]:
    """
    Pair each request of these with the entitlements of the others that allow it; none is a gain.

    Two requests are the same when their texts are: an enum's values put in, unless the others take
    any word of that name; every other name left as it is. That the name stands for the same is for
    `_who` and `_bounds` to tell. A condition may refuse what another value gives, so a value that a
    condition of the others reads must come again.
    """
    held: defaultdict[str, list[Reach]] = defaultdict(list)
    for reach in reaches(others):
        held[written(*reach)].append(reach)
    takes = {each.name: each for each in others.parameters if not isinstance(each, EnumParameter)}
    matches: list[_Match] = []
    for template, values in reaches(these):
        closed = {
            name: value
            for name, value in values.items()
            if name not in takes or isinstance(takes[name].accept(value), Refused)
        }
        same = held[written(template, closed)]
        matches.append(((template, values), _allowing(template, values, same, others)))
    return tuple(matches)


def _allowing(
    template: EntitlementTemplate, values: Values, same: list[Reach], others: Definition
) -> list[EntitlementTemplate]:
    """Choose the entitlement of the same name where there is one."""
    found = [
        held
        for held, needed in same
        if all(
            values.get(name) == value or f"request.parameters.{name}" not in others.fact_names
            for name, value in needed.items()
        )
    ]
    return [held for held in found if held.name == template.name] or found


def _promises(task: str, before: EntitlementTemplate, after: EntitlementTemplate) -> Parts:
    """Compare what is promised of an entitlement's end, and how long it may outlive it."""
    levels = list(ProofLevel)
    step = levels.index(after.proof) - levels.index(before.proof)
    if step:
        said = f"{task} proves {after.name} revoked to level {after.proof}, was {before.proof}"
        yield (_N if step > 0 else _W), said
    if after.revocable != before.revocable:
        is_or_not = "is" if after.revocable else "is not"
        said = f"{after.name} of {task} {is_or_not} taken back when the task ends"
        yield (_N if after.revocable else _W), said
    yield from longer(f"{after.name} of {task} lives", before.ceiling, after.ceiling)


def _parameters(
    old: Definition, new: Definition, gained: tuple[_Match, ...], lost: tuple[_Match, ...]
) -> Parts:
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
            for value in sorted({*now.values} - {*held.values} - _said(name, gained)):
                yield _W, f"parameter {name} of {new.name} may be {value}"
            for value in sorted({*held.values} - {*now.values} - _said(name, lost)):
                yield _N, f"parameter {name} of {new.name} may no longer be {value}"
        elif held != now:
            for direction in _bounds(held, now):
                yield direction, f"parameter {name} of {new.name} takes {now}, was {held}"


def _said(name: str, matches: tuple[_Match, ...]) -> frozenset[ParameterValue]:
    """Collect the values of a parameter with which something is asked that is new."""
    return frozenset(values[name] for (_, values), same in matches if not same and name in values)


def _refuses(words: SegmentParameter, listed: EnumParameter) -> bool:
    return any(isinstance(words.accept(value), Refused) for value in listed.values)


def _bounds(held: Parameter, after: Parameter) -> Iterator[Direction]:
    if isinstance(held, IntegerParameter) and isinstance(after, IntegerParameter):
        lower, upper = held.min - after.min, after.max - held.max
    elif isinstance(held, SegmentParameter) and isinstance(after, SegmentParameter):
        lower, upper = 0, after.max_length - held.max_length
    elif isinstance(held, EnumParameter) and isinstance(after, SegmentParameter):
        lower, upper = -_refuses(after, held), 1
    elif isinstance(held, SegmentParameter) and isinstance(after, EnumParameter):
        lower, upper = _refuses(held, after), -1
    else:
        lower, upper = -1, 1  # another type: other values, neither more nor fewer
    if lower > 0 or upper > 0:
        yield _W
    if lower < 0 or upper < 0:
        yield _N
