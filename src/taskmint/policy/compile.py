"""
One definition as it was read in, one definition to decide by out, or all that is wrong with it.

Here it is found whether what was written makes sense together: placeholders, clocks, ends, names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Final

from taskmint.errors import Finding
from taskmint.model.clocks import ClassClocks
from taskmint.model.scope import Ends
from taskmint.yaml_document import Node, key_path, quoted
from taskmint.yaml_model import closest, duration_text, place

from .definition import Definition, EntitlementTemplate, Limits
from .entitlement import compile_entitlement
from .names import token_role
from .parameter import (
    MAX_LENGTH,
    BooleanParameter,
    EnumParameter,
    IntegerParameter,
    Parameter,
    SegmentParameter,
)
from .pattern import Pattern, WhoIndex, build_index, parse_pattern
from .schema import DefinitionSchema, ParameterSchema

MAX_COMBINATIONS: Final = 1000  # each is a policy in Vault


@dataclass(slots=True)
class Workbench:
    """Where a definition stands, and what was found wrong with it so far."""

    file: str
    node: Node
    steps: tuple[str | int, ...]
    line: int
    findings: list[Finding] = field(default_factory=list)

    def find(self, where: tuple[str | int, ...], problem: str, fix: str) -> None:
        """Note one thing that is wrong at `where` inside the definition."""
        self.findings.append(self.finding(where, problem, fix))

    def finding(self, where: tuple[str | int, ...], problem: str, fix: str) -> Finding:
        """Build a finding at `where` inside the definition."""
        line, column = place(self.node, where)
        return Finding(self.file, line, column, key_path(self.steps + where), problem, fix)


def compile_definition(
    name: str, schema: DefinitionSchema, bench: Workbench, classes: Mapping[str, ClassClocks]
) -> Definition | None:
    """Compile one definition; None when the workbench has findings."""
    patterns, who = _compile_who(schema, bench)
    parameters = _compile_parameters(schema, patterns, bench)
    entitlements = tuple(
        compiled
        for entitlement, given in schema.scope.items()
        if (compiled := compile_entitlement(name, entitlement, given, bench.find)) is not None
    )
    _check_placeholders(entitlements, parameters, patterns, bench)
    policy_parameters = _policy_parameters(entitlements, parameters, bench)
    clocks = _compile_clocks(schema, bench, classes)
    if bench.findings or clocks is None:
        return None
    return Definition(
        name=name,
        description=schema.description or "",
        owner=schema.owner,
        class_name=schema.class_,
        patterns=patterns,
        who=who,
        parameters=parameters,
        policy_parameters=policy_parameters,
        token_role=token_role(name),
        entitlements=entitlements,
        dead_man=clocks.dead_man,
        deadline_default=clocks.default,
        deadline_max=clocks.max,
        ends=_compile_ends(schema, clocks),
        limits=Limits(schema.limits.concurrent_per_identity, schema.limits.starts_per_minute),
        file=bench.file,
        line=bench.line,
    )


def _compile_who(
    schema: DefinitionSchema, bench: Workbench
) -> tuple[tuple[Pattern, ...], WhoIndex]:
    patterns: list[Pattern] = []
    places: list[int] = []
    for index, text in enumerate(schema.who):
        try:
            pattern = parse_pattern(text)
        except ValueError as error:
            bench.find(("who", index), f"{quoted(text)} matches nobody", str(error))
            continue
        places.append(index)
        patterns.append(pattern)
    who, clashes = build_index(patterns)
    for later, earlier in clashes:
        problem = f"matches exactly whom {quoted(earlier.text)} matches"
        bench.find(("who", places[later]), problem, "keep one of the two")
    return tuple(patterns), who


def _compile_parameters(
    schema: DefinitionSchema, patterns: tuple[Pattern, ...], bench: Workbench
) -> tuple[Parameter, ...]:
    captured = frozenset[str]().union(*(pattern.names for pattern in patterns))
    for name, given in schema.parameters.items():
        if name in captured:
            problem = "has the name of a captured segment"
            bench.find(("parameters", name), problem, "rename one of the two")
        folded: dict[str, str] = {}
        for index, value in enumerate(given.enum or ()):
            twin = folded.setdefault(value.lower(), value)
            if twin is not value:
                problem = (
                    f"differs from {quoted(twin)} by case at most, and Vault would mix them up"
                )
                bench.find(("parameters", name, "enum", index), problem, "rename one of the two")
    return tuple(_parameter(name, given) for name, given in schema.parameters.items())


def _parameter(name: str, given: ParameterSchema) -> Parameter:
    if given.enum is not None:
        return EnumParameter(name, given.enum)
    if given.type == "integer" and given.min is not None and given.max is not None:
        return IntegerParameter(name, given.min, given.max)
    if given.type == "boolean":
        return BooleanParameter(name)
    return SegmentParameter(name, given.max_length or MAX_LENGTH)


def _check_placeholders(
    entitlements: tuple[EntitlementTemplate, ...],
    parameters: tuple[Parameter, ...],
    patterns: tuple[Pattern, ...],
    bench: Workbench,
) -> None:
    declared = frozenset(parameter.name for parameter in parameters)
    captured = [pattern.names for pattern in patterns]
    everywhere = frozenset.intersection(*captured) if captured else frozenset[str]()
    somewhere = frozenset[str]().union(*captured)
    for entitlement in entitlements:
        where = ("scope", entitlement.name, entitlement.kind.value)
        for name in sorted(entitlement.names - declared - everywhere):
            if name in somewhere:
                fix = f"capture {{{name}}} in every pattern of who"
                bench.find(where, f"{{{name}}} is not captured by each pattern of who", fix)
            else:
                fix = closest(name, declared | everywhere)
                bench.find(where, f"{{{name}}} is neither a parameter nor captured", fix)


def _policy_parameters(
    entitlements: tuple[EntitlementTemplate, ...],
    parameters: tuple[Parameter, ...],
    bench: Workbench,
) -> tuple[str, ...]:
    used = frozenset[str]().union(*(entitlement.names for entitlement in entitlements))
    enums = [p for p in parameters if isinstance(p, EnumParameter) and p.name in used]
    combinations = prod(len(parameter.values) for parameter in enums)
    if combinations > MAX_COMBINATIONS:
        problem = f"its enums make {combinations} combinations; each is a policy in Vault"
        bench.find(("parameters",), problem, f"keep to {MAX_COMBINATIONS}, or split the definition")
    return tuple(parameter.name for parameter in enums)


def _compile_clocks(
    schema: DefinitionSchema, bench: Workbench, classes: Mapping[str, ClassClocks]
) -> ClassClocks | None:
    given = classes.get(schema.class_)
    if given is None:
        bench.find(
            ("class",), f"{quoted(schema.class_)} is no class", closest(schema.class_, classes)
        )
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
        bench.find(
            ("ends", "bind"), "names one kind twice", "name each kind once, the default first"
        )
    named = bool(ends.bind or ends.connection or ends.heartbeat or ends.reprove)
    if ends.deadline_only and named:
        bench.find(("ends",), "deadline_only stands beside other ends", "remove one or the other")
    if not ends.deadline_only and not named and clocks.heartbeat is None:
        fix = "write bind, connection, heartbeat or reprove; or deadline_only: true"
        bench.find(("ends",), "nothing ends this task but its deadline", fix)


def _compile_ends(schema: DefinitionSchema, clocks: ClassClocks) -> Ends:
    return Ends(
        bind=schema.ends.bind,
        connection=schema.ends.connection,
        heartbeat=clocks.heartbeat,
        reprove=schema.ends.reprove,
        daemon_stop=schema.ends.daemon_stop,
    )
