"""
One definition as it was read in, one definition to decide by out, or all that is wrong with it.

Here it is found whether what was written makes sense together: who, placeholders, names; the
terms on which a task runs are compiled in terms.py.
"""

from datetime import timedelta
from math import prod
from typing import Final

from taskmint.model.clocks import ClassClocks
from taskmint.model.scope import EntitlementKind
from taskmint.yaml_document import quoted
from taskmint.yaml_model import closest, duration_text

from .definition import Definition, EntitlementTemplate, IdentityRule, Limits
from .entitlement import compile_entitlement, with_clocks
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
from .template import names_in
from .terms import (
    bound_ends,
    compile_approval,
    compile_clocks,
    compile_conditions,
    compile_ends,
    compile_windows,
    fact_names,
)
from .workbench import Surroundings, Workbench

LONGEST_EMERGENCY: Final = timedelta(hours=4)
MAX_COMBINATIONS: Final = 1000  # each is a policy in Vault


def compile_definition(
    name: str, schema: DefinitionSchema, around: Surroundings, bench: Workbench
) -> Definition | None:
    """Compile one definition; None when the workbench has findings."""
    patterns, who = _compile_who(schema, bench)
    captures = _captured_by_all(patterns)
    parameters = _compile_parameters(schema, patterns, bench)
    entitlements = tuple(
        compile_entitlement(name, entitlement, given, bench.find)
        for entitlement, given in schema.scope.items()
    )
    _check_placeholders(entitlements, parameters, patterns, bench)
    policy_parameters = _policy_parameters(entitlements, parameters, bench)
    clocks = compile_clocks(schema, around, bench)
    windows = compile_windows(schema, bench)
    conditions = compile_conditions(schema, parameters, captures, around, bench)
    approval = compile_approval(schema.approval, parameters, captures, around, bench)
    _check_emergency(schema, clocks, bench)
    if bench.findings or clocks is None:
        return None
    methods = schema.identity.methods
    one = around.commons.one
    ends = one(compile_ends(schema, clocks.heartbeat))
    return Definition(
        name=name,
        description=schema.description or "",
        owner=schema.owner,
        class_name=schema.class_,
        patterns=patterns,
        who=who,
        identity=one(IdentityRule(frozenset(methods) if methods else None, schema.identity.token)),
        parameters=one(parameters),
        policy_parameters=one(policy_parameters),
        windows=windows,
        conditions=conditions,
        approval=approval,
        fact_names=one(fact_names(conditions, approval)),
        token_role=token_role(name),
        entitlements=tuple(with_clocks(each, clocks.dead_man, clocks.max) for each in entitlements),
        dead_man=one(clocks.dead_man),
        deadline_default=one(clocks.default),
        deadline_max=one(clocks.max),
        ends=ends,
        bound=bound_ends(ends),
        limits=one(Limits(schema.limits.concurrent_per_identity, schema.limits.starts_per_minute)),
        break_glass=schema.break_glass,
        file=bench.file,
        line=bench.line,
    )


def _check_emergency(
    schema: DefinitionSchema, clocks: ClassClocks | None, bench: Workbench
) -> None:
    if schema.break_glass and clocks is not None and clocks.max > LONGEST_EMERGENCY:
        problem = f"an emergency may last {duration_text(clocks.max)}"
        fix = f"set deadline.max to at most {duration_text(LONGEST_EMERGENCY)}"
        bench.find(("deadline",), problem, fix)


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


def _captured_by_all(patterns: tuple[Pattern, ...]) -> frozenset[str]:
    if not patterns:
        return frozenset()
    return frozenset.intersection(*(pattern.names for pattern in patterns))


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
            twin = folded.get(value.lower())
            folded[value.lower()] = value
            if twin is not None:
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
    known = declared | _captured_by_all(patterns)
    somewhere = frozenset[str]().union(*(pattern.names for pattern in patterns))
    enums = frozenset(each.name for each in parameters if isinstance(each, EnumParameter))
    for entitlement in entitlements:
        where = ("scope", entitlement.name, entitlement.kind.value)
        for name in sorted(entitlement.names - known):
            if bench.is_full:
                return
            if name in somewhere:
                fix = f"capture {{{name}}} in every pattern of who"
                bench.find(where, f"{{{name}}} is not captured by each pattern of who", fix)
            else:
                fix = closest(name, known)
                bench.find(where, f"{{{name}}} is neither a parameter nor captured", fix)
        if entitlement.kind is EntitlementKind.DATABASE:
            for name in sorted(names_in(entitlement.body) & known - enums):
                problem = f"{{{name}}} is not an enum, and only enums may stand in a statement"
                bench.find(where, problem, f"declare {name} as {{enum: [...]}}")


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
