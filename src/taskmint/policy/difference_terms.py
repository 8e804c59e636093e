"""
The terms of two definitions in, what the second asks more or less than the first out, in words.
"""

from typing import Final

from taskmint.model.caller import IdentityMethod, TokenBinding
from taskmint.yaml_document import quoted

from .change import Direction, Parts, longer
from .definition import ApprovalRule, Definition
from .window import Window

_W: Final = Direction.WIDENED
_N: Final = Direction.NARROWED
_O: Final = Direction.OTHER


def compare_terms(old: Definition, new: Definition) -> Parts:
    """Compare everything but who may ask and what is minted."""
    yield from _identity(old, new)
    yield from _emergency(old, new)
    yield from _windows(old, new)
    yield from _conditions(old, new)
    yield from _approval(old, new)
    yield from _clocks(old, new)
    yield from _ends(old, new)
    yield from _limits(old, new)
    yield from _labels(old, new)


def _identity(old: Definition, new: Definition) -> Parts:
    before, after = old.identity, new.identity
    ways = frozenset(IdentityMethod)
    had, have = before.methods or ways, after.methods or ways
    for method in sorted(have - had):
        yield _W, f"{new.name} accepts identities proven by {method}"
    for method in sorted(had - have):
        yield _N, f"{new.name} no longer accepts identities proven by {method}"
    if before.binding is not after.binding:
        direction = _W if after.binding is TokenBinding.UID else _N
        yield (
            direction,
            f"{new.name} asks for a token bound by {after.binding}, was {before.binding}",
        )


def _emergency(old: Definition, new: Definition) -> Parts:
    if old.break_glass and not new.break_glass:
        yield _W, f"{new.name} no longer needs an emergency with a ticket"
    if new.break_glass and not old.break_glass:
        yield _N, f"{new.name} is for emergencies with a ticket only"


def _windows(old: Definition, new: Definition) -> Parts:
    if old.windows and not new.windows:
        yield _W, f"{new.name} may run at any time, was within {_either(old.windows)}"
    elif new.windows and not old.windows:
        yield _N, f"{new.name} may run within {_either(new.windows)} only"
    else:
        for window in new.windows:
            if window not in old.windows:
                yield _W, f"{new.name} may also run within {window}"
        for window in old.windows:
            if window not in new.windows:
                yield _N, f"{new.name} may no longer run within {window}"


def _either(windows: tuple[Window, ...]) -> str:
    return " or ".join(map(str, windows))


def _conditions(old: Definition, new: Definition) -> Parts:
    before = [condition.text for condition in old.conditions]
    after = [condition.text for condition in new.conditions]
    for text in before:
        if text not in after:
            yield _W, f"{new.name} no longer asks that {text}"
    for text in after:
        if text not in before:
            yield _N, f"{new.name} asks that {text}"


def _approval(old: Definition, new: Definition) -> Parts:
    before, after = old.approval, new.approval
    if before is None and after is not None:
        yield _N, f"{new.name} needs an approval by {after.quorum} of {', '.join(after.approvers)}"
    elif after is None and before is not None:
        yield _W, f"{new.name} no longer needs an approval"
    elif before is not None and after is not None:
        yield from _approval_rules(new.name, before, after)


def _approval_rules(name: str, before: ApprovalRule, after: ApprovalRule) -> Parts:
    for approver in after.approvers:
        if approver not in before.approvers:
            yield _W, f"{approver} may approve {name}"
    for approver in before.approvers:
        if approver not in after.approvers:
            yield _N, f"{approver} may no longer approve {name}"
    if before.quorum != after.quorum:
        direction = _W if after.quorum < before.quorum else _N
        yield direction, f"{name} needs {after.quorum} approvals, were {before.quorum}"
    yield from longer(f"an approval of {name} may come", before.within, after.within)
    had = before.automatic.text if before.automatic else None
    has = after.automatic.text if after.automatic else None
    if has != had and has is not None:
        yield _W, f"{name} needs no approval when {has}"
    if has != had and had is not None:
        yield _N, f"{name} needs an approval also when {had}"


def _clocks(old: Definition, new: Definition) -> Parts:
    yield from longer(f"{new.name} may run", old.deadline_max, new.deadline_max)
    yield from longer(f"{new.name} runs by default", old.deadline_default, new.deadline_default)
    yield from longer(f"{new.name} outlives its daemon", old.dead_man, new.dead_man)


def _ends(old: Definition, new: Definition) -> Parts:
    before, after = old.ends, new.ends
    for kind in after.bind if before.bind else ():
        if kind not in before.bind:
            yield _W, f"{new.name} may be bound to {kind} instead"
    for kind in before.bind:
        if kind not in after.bind:
            direction = _N if after.bind else _W
            yield direction, f"{new.name} can no longer be bound to {kind}"
    if before.bind and after.bind and before.bind[0] is not after.bind[0]:
        was = before.bind[0]
        yield _O, f"{new.name} is bound to {after.bind[0]} unless asked otherwise, was to {was}"
    if not before.bind and after.bind:
        yield _N, f"{new.name} is bound to {after.bind[0]} unless asked otherwise"
    if before.connection is not after.connection:
        yield (
            (_N if after.connection else _W),
            f"{new.name} is bound to its connection: {after.connection}",
        )
    yield from longer(f"{new.name} lives without a heartbeat", before.heartbeat, after.heartbeat)
    yield from longer(f"{new.name} lives without a new proof", before.reprove, after.reprove)
    if before.daemon_stop != after.daemon_stop:
        direction = _N if after.daemon_stop == "revoke" else _W
        yield direction, f"a planned stop of the daemon makes {new.name} {after.daemon_stop}"


def _limits(old: Definition, new: Definition) -> Parts:
    for what, before, after in (
        ("at once", old.limits.concurrent_per_identity, new.limits.concurrent_per_identity),
        ("starts a minute", old.limits.starts_per_minute, new.limits.starts_per_minute),
    ):
        if before == after:
            continue
        more = after is None or (before is not None and after > before)
        yield (
            (_W if more else _N),
            (f"an identity may have {_count(after)} of {new.name} {what}, were {_count(before)}"),
        )


def _count(limit: int | None) -> str:
    return "any number" if limit is None else str(limit)


def _labels(old: Definition, new: Definition) -> Parts:
    for what, before, after in (
        ("owner", old.owner, new.owner),
        ("class", old.class_name, new.class_name),
        ("description", old.description, new.description),
    ):
        if before != after:
            yield _O, f"the {what} of {new.name} is {quoted(after)}, was {quoted(before)}"
