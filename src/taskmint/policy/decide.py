"""
The decision: a policy and everything known about a request in, Scope or Denial out.

Pure and total: no clock, no I/O, no exception for any input. A recorded input decides the same
again (P11).
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from taskmint.errors import Code
from taskmint.model.scope import (
    BindKind,
    CallerFacts,
    Decision,
    DecisionInput,
    Denial,
    Ends,
    ParameterValue,
    Scope,
)
from taskmint.yaml_document import quoted
from taskmint.yaml_model import closest, duration_text

from .definition import Definition, Policy
from .names import token_policy
from .parameter import Refused
from .pattern import Match
from .template import Misplaced

_FORBIDDEN: Final = "this identity may not run this task, or there is no such task"


class _No(Exception):
    """Raised inside this module by the step that refuses."""

    def __init__(self, code: Code, detail: str, reason: str) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.reason = reason


def decide(policy: Policy, given: DecisionInput) -> Decision:
    """
    Decide one request.

    1. The named definition exists.
    2. A pattern of its `who` matches the caller's SPIFFE ID.
    3. Every parameter is declared, given, and of its type.
    4. The lifetime asked for is within the deadline.
    5. The end asked for is one that the definition allows.

    Steps 1 and 2 fail alike, so that nobody learns which tasks exist. `Denial.code` is one of
    not_permitted, parameter_invalid, ttl_exceeds_policy, bind_refused.
    """
    trace: list[str] = []
    try:
        return _decide(policy, given, trace)
    except _No as no:
        trace.append(no.reason)
        return Denial(no.code.value, no.detail, policy.digest, tuple(trace))


def _decide(policy: Policy, given: DecisionInput, trace: list[str]) -> Scope:
    request = given.request
    definition = _definition(policy, request.task, trace)  # 1
    match = _who(definition, given.caller, trace)  # 2
    parameters = _parameters(definition, request.parameters, trace)  # 3
    lifetime = _lifetime(definition, request.ttl, trace)  # 4
    ends = _ends(definition, request.bind, trace)  # 5
    values: Mapping[str, ParameterValue] = {**match.captures, **parameters}
    try:
        entitlements = tuple(each.render(values) for each in definition.entitlements)
    except Misplaced as error:
        raise _No(Code.PARAMETER_INVALID, "a parameter will not do", f"scope: {error}") from error
    used = (str(values[name]) for name in definition.policy_parameters)
    return Scope(
        definition=definition.name,
        policy_digest=policy.digest,
        token_role=definition.token_role,
        token_policy=token_policy(definition.name, used),
        entitlements=entitlements,
        dead_man=definition.dead_man,
        lifetime=lifetime,
        ends=ends,
        trace=tuple(trace),
    )


def _definition(policy: Policy, name: str, trace: list[str]) -> Definition:
    definition = policy.definitions.get(name)
    if definition is None:
        reason = f"task: no definition is named {quoted(name)}"
        raise _No(Code.NOT_PERMITTED, _FORBIDDEN, reason)
    trace.append(f"task: {name}, {definition.file}:{definition.line}")
    return definition


def _who(definition: Definition, caller: CallerFacts, trace: list[str]) -> Match:
    match = definition.who.match(caller.spiffe_id)
    if match is None:
        raise _No(Code.NOT_PERMITTED, _FORBIDDEN, f"who: no pattern matches {caller.spiffe_id}")
    trace.append(f"who: {match.pattern.text} matches {caller.spiffe_id}")
    return match


def _parameters(
    definition: Definition, claimed: Mapping[str, ParameterValue], trace: list[str]
) -> dict[str, ParameterValue]:
    accepted: dict[str, ParameterValue] = {}
    for parameter in definition.parameters:
        if parameter.name not in claimed:
            raise _bad_parameter(parameter.name, "is missing")
        value = parameter.accept(claimed[parameter.name])
        if isinstance(value, Refused):
            raise _bad_parameter(parameter.name, value.reason)
        accepted[parameter.name] = value
        trace.append(f"parameters: {parameter.name} = {value}")
    if len(claimed) > len(accepted):
        unknown = next(name for name in claimed if name not in accepted)
        advice = closest(unknown, accepted)
        raise _bad_parameter(unknown, f"is not a parameter of this task; {advice}")
    return accepted


def _bad_parameter(name: str, reason: str) -> _No:
    detail = f"parameter {quoted(name)} {reason}"
    return _No(Code.PARAMETER_INVALID, detail, f"parameters: {detail}")


def _lifetime(definition: Definition, asked: timedelta | None, trace: list[str]) -> timedelta:
    longest = definition.deadline_max
    lifetime = definition.deadline_default if asked is None else asked
    if lifetime > longest:
        detail = f"the longest lifetime of this task is {duration_text(longest)}"
        reason = f"deadline: {lifetime} was asked for, above max {duration_text(longest)}"
        raise _No(Code.TTL_EXCEEDS_POLICY, detail, reason)
    if lifetime <= timedelta():
        reason = f"deadline: {lifetime} was asked for"
        raise _No(Code.TTL_EXCEEDS_POLICY, "a lifetime is longer than nothing", reason)
    trace.append(f"deadline: {duration_text(lifetime)}, at most {duration_text(longest)}")
    return lifetime


def _ends(definition: Definition, asked: BindKind | None, trace: list[str]) -> Ends:
    """Narrow `bind` to the one kind that holds: the one asked for, else the first."""
    allowed = definition.ends.bind
    if asked is None:
        chosen = allowed[:1]
    elif asked in allowed:
        chosen = (asked,)
    else:
        kinds = ", ".join(allowed) or "nothing"
        detail = f"this task can be bound to: {kinds}"
        raise _No(Code.BIND_REFUSED, detail, f"ends: bind {asked} was asked for, not in: {kinds}")
    trace.append(f"ends: bound to {chosen[0]}" if chosen else "ends: bound to no process")
    return replace(definition.ends, bind=chosen)
