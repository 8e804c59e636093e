"""
The decision: a policy and everything known about a request in, Scope or Denial out.

Pure and total: no clock, no I/O, no exception for any input. A recorded input decides the same
again (P11).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from operator import itemgetter
from typing import Final

from taskmint.errors import Code
from taskmint.model.caller import IdentityMethod, TokenBinding
from taskmint.model.scope import (
    Approval,
    BindKind,
    Decision,
    DecisionInput,
    Denial,
    Ends,
    Entitlement,
    ParameterValue,
    Scope,
)
from taskmint.yaml_document import quoted
from taskmint.yaml_model import closest, duration_text

from .caller_key import accept_key
from .condition import Outcome
from .definition import Definition, Policy
from .facts import aware, read_facts
from .names import token_policy
from .parameter import Refused
from .pattern import Match
from .template import Misplaced
from .window import Release

AWAITED: Final = "approval: needed"  # how the trace of what lacks nothing else ends
_FORBIDDEN: Final = "this identity may not run this task, or there is no such task"


class _No(Exception):
    """Raised inside this module by the step that refuses."""

    def __init__(
        self,
        code: Code,
        detail: str,
        reason: str,
        *,
        clause: str = "",
        approval: Approval | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.reason = reason
        self.clause = clause
        self.approval = approval


@dataclass(slots=True)
class _Case:
    """One request on its way through one definition."""

    definition: Definition
    given: DecisionInput
    match: Match
    trace: list[str]
    clauses: list[str]

    def tell(self, clause: str, rest: str = "") -> None:
        """Note a clause that was reached, and in the trace with what it was reached."""
        self.clauses.append(clause)
        self.trace.append(clause + rest)


def decide(policy: Policy, given: DecisionInput) -> Decision:
    """
    Decide one request.

    1. The named definition exists.
    2. A pattern of its `who` matches the caller's SPIFFE ID.
    3. The identity was proven in a way that the definition accepts.
    4. Every parameter is declared, given, and of its type.
    5. The lifetime asked for is within the deadline.
    6. A window is open, if there are any; what is left of it bounds the lifetime. An emergency
       comes with a purpose and a ticket.
    7. Every condition holds; an error does not.
    8. The end asked for is one that the definition allows.
    9. Each entitlement that signs a key of the caller's has one that will do; no other has one.
    10. What needs approval has it, or its automatic condition holds. It is the last step: where an
        approval is asked for, nothing else is missing.

    Steps 1 and 2 fail alike, so that nobody learns which tasks exist. `Denial.code` is one of
    not_permitted, parameter_invalid, ttl_exceeds_policy, bind_refused, public_key_invalid.
    """
    definition = policy.definitions.get(given.request.task)
    if definition is None:
        reason = f"task: no definition is named {quoted(given.request.task)}"
        return Denial(Code.NOT_PERMITTED.value, _FORBIDDEN, policy.digest, (reason,))
    return _decide_by(definition, policy.digest, given)


def decide_shadow(policy: Policy, given: DecisionInput) -> Decision | None:
    """
    Decide by the shadow of the named definition, None when it has none.

    For the record only: whatever comes of it, it grants nothing and refuses nothing.
    """
    shadow = policy.shadows.get(given.request.task)
    return None if shadow is None else _decide_by(shadow, policy.digest, given)


def _decide_by(definition: Definition, policy_digest: str, given: DecisionInput) -> Decision:
    trace = [f"task: {definition.name}, {definition.file}:{definition.line}"]
    clauses: list[str] = []
    try:
        return _grant(_who(definition, given, trace, clauses), policy_digest)
    except _No as no:
        trace.append(no.reason)
        told = tuple(filter(None, (*clauses, no.clause)))
        return Denial(no.code.value, no.detail, policy_digest, tuple(trace), no.approval, told)


def _grant(case: _Case, policy_digest: str) -> Scope:
    definition, request = case.definition, case.given.request
    _identity(case)  # 3
    parameters = _parameters(case, request.parameters)  # 4
    asked = _lifetime(case, request.ttl)  # 5
    lifetime = _windows(case, asked)  # 6
    _emergency(case)
    facts = _facts(case, parameters, asked)
    _conditions(case, facts)  # 7
    ends = _ends(case, request.bind)  # 8
    values: Mapping[str, ParameterValue] = {**case.match.captures, **parameters}
    try:
        entitlements = tuple(each.render(values) for each in definition.entitlements)
    except Misplaced as error:
        raise _No(Code.PARAMETER_INVALID, "a parameter will not do", f"scope: {error}") from error
    entitlements = tuple(_with_keys(case, entitlements))  # 9
    _approval(case, facts)  # 10
    used = (str(values[name]) for name in definition.policy_parameters)
    return Scope(
        definition=definition.name,
        policy_digest=policy_digest,
        token_role=definition.token_role,
        token_policy=token_policy(definition.name, used),
        entitlements=entitlements,
        dead_man=definition.dead_man,
        lifetime=lifetime,
        ends=ends,
        break_glass=definition.break_glass,
        trace=tuple(case.trace),
        clauses=("granted", *case.clauses),
    )


def _who(
    definition: Definition, given: DecisionInput, trace: list[str], clauses: list[str]
) -> _Case:
    caller = given.caller.spiffe_id
    match = definition.who.match(caller)
    if match is None:
        raise _No(Code.NOT_PERMITTED, _FORBIDDEN, f"who: no pattern matches {caller}")
    case = _Case(definition, given, match, trace, clauses)
    case.tell(f"who: {match.pattern.text}", f" matches {caller}")
    return case


def _emergency(case: _Case) -> None:
    request = case.given.request
    if not case.definition.break_glass:
        return
    ticket = request.ticket or ""
    if not request.purpose.strip() or not ticket.strip():
        detail = "an emergency needs a purpose and a ticket"
        raise _No(
            Code.NOT_PERMITTED, detail, f"break_glass: {detail}", clause="break_glass: refused"
        )
    case.tell("break_glass: under", f" ticket {quoted(ticket)}")


def _identity(case: _Case) -> None:
    rule, caller = case.definition.identity, case.given.caller
    detail = "this task asks for another proof of identity"
    if rule.methods is not None and caller.method not in rule.methods:
        accepted = ", ".join(sorted(rule.methods))
        reason = f"identity: refused, proven by {caller.method} and not by {accepted}"
        raise _No(Code.NOT_PERMITTED, detail, reason, clause="identity: refused")
    # A certificate's key and an attested process cannot be passed on as a token can.
    if caller.method is IdentityMethod.JWT_SVID and rule.binding is TokenBinding.PROCESS:
        if caller.binding is TokenBinding.UID:
            reason = f"identity: refused, the token is bound by {caller.binding} and not by process"
            raise _No(Code.NOT_PERMITTED, detail, reason, clause="identity: token refused")
        case.tell("identity: token accepted", f", bound by {caller.binding}")
    if rule.methods is not None:
        case.tell("identity: accepted", f", proven by {caller.method}")


def _parameters(case: _Case, claimed: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    accepted: dict[str, ParameterValue] = {}
    for parameter in case.definition.parameters:
        if parameter.name not in claimed:
            raise _bad_parameter(parameter.name, "is missing")
        value = parameter.accept(claimed[parameter.name])
        if isinstance(value, Refused):
            raise _bad_parameter(parameter.name, value.reason)
        accepted[parameter.name] = value
        case.trace.append(f"parameters: {parameter.name} = {value}")
    if len(claimed) > len(accepted):
        unknown = next(name for name in claimed if name not in accepted)
        advice = closest(unknown, accepted)
        raise _bad_parameter(unknown, f"is not a parameter of this task; {advice}")
    return accepted


def _bad_parameter(name: str, reason: str) -> _No:
    detail = f"parameter {quoted(name)} {reason}"
    return _No(Code.PARAMETER_INVALID, detail, f"parameters: {detail}")


def _lifetime(case: _Case, asked: timedelta | None) -> timedelta:
    longest = case.definition.deadline_max
    lifetime = case.definition.deadline_default if asked is None else asked
    if lifetime > longest:
        detail = f"the longest lifetime of this task is {duration_text(longest)}"
        reason = f"deadline: {lifetime} was asked for, above max {duration_text(longest)}"
        raise _No(Code.TTL_EXCEEDS_POLICY, detail, reason)
    if lifetime <= timedelta():
        reason = f"deadline: {lifetime} was asked for"
        raise _No(Code.TTL_EXCEEDS_POLICY, "a lifetime is longer than nothing", reason)
    case.trace.append(f"deadline: {duration_text(lifetime)}, at most {duration_text(longest)}")
    return lifetime


def _windows(case: _Case, lifetime: timedelta) -> timedelta:
    """Bound the lifetime by the open window that is open longest."""
    if not case.definition.windows:
        return lifetime
    now = aware(case.given.now)
    tag = case.given.request.context.get("tag")
    opened = [
        (until, window)
        for window in case.definition.windows
        if not (isinstance(window, Release) and window.tag not in {None, tag})
        and (until := window.open_until(now)) is not None
    ]
    if not opened:
        detail = "this task may not run at this time, or not for this tag"
        none = "windows: none is open"
        raise _No(Code.NOT_PERMITTED, detail, f"{none} at {now.isoformat()}", clause=none)
    until, window = max(opened, key=itemgetter(0))
    case.tell(f"windows: {window} is open", f", until {until.isoformat()}")
    return min(lifetime, until - now)


def _facts(
    case: _Case, parameters: Mapping[str, ParameterValue], lifetime: timedelta
) -> dict[str, object]:
    groups: Mapping[str, Mapping[str, object]] = {
        "request.parameters": parameters,
        "caller.captures": case.match.captures,
        "host": case.given.host,
    }
    return read_facts(case.definition.fact_names, case.given, lifetime, groups)


def _conditions(case: _Case, facts: Mapping[str, object]) -> None:
    for condition in case.definition.conditions:
        outcome = condition.outcome(facts)
        line = f"when: {outcome.value}, {condition.text}"
        if outcome is not Outcome.HOLDS:
            absent = ", ".join(name for name in condition.names if name not in facts)
            hint = f"; unknown here: {absent}" if absent else ""
            detail = "a condition of this task is not met"
            raise _No(Code.NOT_PERMITTED, detail, line + hint, clause=line)
        case.tell(line)


def _ends(case: _Case, asked: BindKind | None) -> Ends:
    """Narrow `bind` to the one kind that holds: the one asked for, else the first."""
    ends = case.definition.bound.get(asked)
    if ends is None:
        kinds = ", ".join(case.definition.ends.bind) or "nothing"
        detail = f"this task can be bound to: {kinds}"
        raise _No(Code.BIND_REFUSED, detail, f"ends: bind {asked} was asked for, not in: {kinds}")
    case.trace.append(f"ends: bound to {ends.bind[0]}" if ends.bind else "ends: bound to nothing")
    return ends


def _with_keys(case: _Case, entitlements: tuple[Entitlement, ...]) -> Iterator[Entitlement]:
    """Put the caller's own keys in; what is refused is told without a word of the key itself."""
    claimed = case.given.request.public_keys
    signing = frozenset(each.name for each in entitlements if each.key_field is not None)
    if surplus := next((name for name in claimed if name not in signing), None):
        advice = closest(surplus, signing)
        raise _bad_key(surplus, f"belongs to no entitlement that signs a key; {advice}")
    for each in entitlements:
        if each.key_field is None:
            yield each
            continue
        if each.name not in claimed:
            raise _bad_key(each.name, "is missing")
        common_name = each.body.get("common_name")
        name = common_name if isinstance(common_name, str) else None
        key = accept_key(each.key_field, claimed[each.name], name)
        if isinstance(key, Refused):
            raise _bad_key(each.name, key.reason)
        case.tell(f"public_keys: {each.name} will do")
        yield replace(each, body={**each.body, each.key_field.value: key})


def _bad_key(name: str, reason: str) -> _No:
    detail = f"the public key for {quoted(name)} {reason}"
    return _No(Code.PUBLIC_KEY_INVALID, detail, f"public_keys: {detail}")


def _approval(case: _Case, facts: Mapping[str, object]) -> None:
    rule = case.definition.approval
    if rule is None:
        return
    if case.given.approved:
        case.tell("approval: given")
        return
    if rule.automatic is not None:
        outcome = rule.automatic.outcome(facts)
        if outcome is Outcome.HOLDS:
            case.tell("approval: automatic", f", {rule.automatic.text}")
            return
        case.trace.append(f"approval: not automatic: {outcome.value}, {rule.automatic.text}")
    reason = f"{AWAITED}, {rule.quorum} of {', '.join(rule.approvers)}"
    detail = "this task needs an approval"
    raise _No(Code.NOT_PERMITTED, detail, reason, clause=AWAITED, approval=rule.needed)
