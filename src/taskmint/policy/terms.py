"""
The terms on which a task runs, as written in, as decided by out: clocks, ends, windows,
conditions, approval.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from types import MappingProxyType
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from taskmint.model.clocks import ClassClocks
from taskmint.model.scope import BindKind, Ends
from taskmint.yaml_document import quoted
from taskmint.yaml_model import closest, duration_text

from .condition import BadCondition, Condition, variables
from .definition import ApprovalRule
from .parameter import Parameter
from .schema import ApprovalSchema, DefinitionSchema, WindowSchema
from .window import DAYS, Recurring, Release, Window
from .workbench import Surroundings, Workbench


def compile_clocks(
    schema: DefinitionSchema, around: Surroundings, bench: Workbench
) -> ClassClocks | None:
    """Take from the class what the definition leaves out, and check that it fits together."""
    given = around.classes.get(schema.class_)
    if given is None:
        fix = closest(schema.class_, around.classes)
        bench.find(("class",), f"{quoted(schema.class_)} is no class", fix)
        return None
    longest = schema.deadline.max or given.max
    default = schema.deadline.default or min(given.default, longest)
    dead_man = schema.dead_man or given.dead_man
    heartbeat = None if schema.ends.deadline_only else schema.ends.heartbeat or given.heartbeat
    clocks = ClassClocks(dead_man, default, longest, heartbeat)
    _check_clocks(schema, clocks, bench)
    _check_ends(schema, clocks, bench)
    return clocks


def _check_clocks(schema: DefinitionSchema, clocks: ClassClocks, bench: Workbench) -> None:
    longest = f"deadline.max, {duration_text(clocks.max)}"
    if clocks.default > clocks.max:
        bench.find(("deadline",), f"default is above {longest}", "lower default or raise max")
    if clocks.dead_man >= clocks.max:
        where = ("dead_man",) if schema.dead_man else ("deadline",)
        problem = f"the dead-man interval, {duration_text(clocks.dead_man)}, is not below {longest}"
        bench.find(where, problem, "set dead_man lower, or max higher")
    for name, interval in (("heartbeat", clocks.heartbeat), ("reprove", schema.ends.reprove)):
        if interval is not None and interval >= clocks.max:
            problem = f"{duration_text(interval)} is not below {longest}: it would never be due"
            bench.find(("ends", name), problem, "choose a shorter interval")


def _check_ends(schema: DefinitionSchema, clocks: ClassClocks, bench: Workbench) -> None:
    ends = schema.ends
    if len(set(ends.bind)) != len(ends.bind):
        fix = "name each kind once, the default first"
        bench.find(("ends", "bind"), "names one kind twice", fix)
    named = bool(ends.bind or ends.connection or ends.heartbeat or ends.reprove)
    if ends.deadline_only and named:
        bench.find(("ends",), "deadline_only stands beside other ends", "remove one or the other")
    if not ends.deadline_only and not named and clocks.heartbeat is None:
        fix = "write bind, connection, heartbeat or reprove; or deadline_only: true"
        bench.find(("ends",), "nothing ends this task but its deadline", fix)


def compile_ends(schema: DefinitionSchema, heartbeat: timedelta | None) -> Ends:
    """State the ends; the heartbeat may be the class's."""
    return Ends(
        bind=schema.ends.bind,
        connection=schema.ends.connection,
        heartbeat=heartbeat,
        reprove=schema.ends.reprove,
        daemon_stop=schema.ends.daemon_stop,
    )


@lru_cache(maxsize=1024)
def bound_ends(ends: Ends) -> Mapping[BindKind | None, Ends]:
    """Narrow `bind` to one kind for each that may be asked for; silence takes the first."""
    asked: dict[BindKind | None, Ends] = {kind: replace(ends, bind=(kind,)) for kind in ends.bind}
    return MappingProxyType({**asked, None: replace(ends, bind=ends.bind[:1])})


def compile_windows(schema: DefinitionSchema, bench: Workbench) -> tuple[Window, ...]:
    """Compile each window; one that is never open is a finding."""
    windows = []
    for index, given in enumerate(schema.windows or ()):
        where = ("windows", index)
        window = _release(given, where, bench) or _recurring(given, where, bench)
        if window is not None:
            windows.append(window)
    return tuple(windows)


def _release(given: WindowSchema, where: tuple[str | int, ...], bench: Workbench) -> Release | None:
    if given.starts is None or given.ends is None:
        return None
    if given.ends <= given.starts:
        bench.find(where, "ends before it starts, so it is never open", "write starts before ends")
    return Release(given.starts, given.ends, given.tag)


def _recurring(
    given: WindowSchema, where: tuple[str | int, ...], bench: Workbench
) -> Recurring | None:
    if given.from_ is None or given.to is None:
        return None
    zone = given.zone or "UTC"
    try:
        info = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a directory of zones is an OSError
        fix = "write an IANA name, such as Europe/Berlin; without tzdata only UTC is known"
        bench.find((*where, "zone"), f"{quoted(zone)} is no time zone here", fix)
        return None
    start, end = _minutes(given.from_), _minutes(given.to)
    if start == end:
        bench.find(where, "from and to are the same", 'for a whole day write "00:00" to "24:00"')
    days = frozenset(DAYS.index(day) for day in given.days or DAYS)
    return Recurring(days, start, end, info)


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def compile_conditions(
    schema: DefinitionSchema,
    parameters: tuple[Parameter, ...],
    captures: frozenset[str],
    around: Surroundings,
    bench: Workbench,
) -> tuple[Condition, ...]:
    """Compile the clauses of `when`."""
    types = variables(parameters, captures, around.host_labels)
    conditions = []
    for index, text in enumerate(schema.when):
        if bench.is_full:
            break
        try:
            conditions.append(around.conditions.compile(text, types))
        except BadCondition as error:
            bench.find(("when", index), error.problem, error.fix)
    return tuple(conditions)


def compile_approval(
    given: ApprovalSchema | None,
    parameters: tuple[Parameter, ...],
    captures: frozenset[str],
    around: Surroundings,
    bench: Workbench,
) -> ApprovalRule | None:
    """Compile the approval, with its automatic condition."""
    if given is None:
        return None
    if len(set(given.from_)) != len(given.from_):
        bench.find(("approval", "from"), "names one approver twice", "name each once")
    people = [approver for approver in given.from_ if not approver.startswith("group:")]
    if len(people) == len(given.from_) and given.quorum > len(set(people)):
        problem = f"{given.quorum} different approvers are needed and {len(set(people))} named"
        bench.find(("approval", "quorum"), problem, "lower quorum, or name more")
    automatic = None
    if given.automatic is not None:
        types = variables(parameters, captures, around.host_labels)
        try:
            automatic = around.conditions.compile(given.automatic, types)
        except BadCondition as error:
            bench.find(("approval", "automatic"), error.problem, error.fix)
    return ApprovalRule(given.from_, given.quorum, given.within, automatic)


def fact_names(conditions: tuple[Condition, ...], approval: ApprovalRule | None) -> tuple[str, ...]:
    """Collect the variables that any condition may read, each once."""
    automatic = approval.automatic if approval is not None else None
    every = (*conditions, automatic) if automatic is not None else conditions
    return tuple(dict.fromkeys(name for condition in every for name in condition.names))
