"""
Policy test files in, cases out; a case and a policy in, what came out otherwise than expected out.

A case is decided like any request. What it leaves out of `expect` is not checked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from taskmint.errors import Code, ConfigError, Finding
from taskmint.model.scope import (
    CallerFacts,
    Decision,
    DecisionInput,
    Denial,
    HistoryFacts,
    RequestFacts,
    Scope,
)
from taskmint.model.spiffe import SpiffeId
from taskmint.yaml_document import key_path, parse_document
from taskmint.yaml_model import duration_text, place, read_model

from .case_schema import CaseFileSchema, CaseSchema, ExpectSchema, GivenSchema
from .decide import decide, decide_shadow
from .definition import Policy

SOME_NOON: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)  # a Monday; when a case names no time


@dataclass(frozen=True, slots=True)
class Case:
    """One question and its expected answer, and where it stands."""

    name: str
    file: str
    line: int
    given: DecisionInput
    expect: ExpectSchema


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that was expected and came out otherwise."""

    what: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a case; `decisions` are the enforced one and the shadow's, if any."""

    case: Case
    mismatches: tuple[Mismatch, ...]
    decision: Decision
    shadow: Decision | None


def read_cases(file: str, content: bytes) -> tuple[Case, ...]:
    """Read a test file. Raises ConfigError(policy_invalid) with everything that is wrong."""
    document = parse_document(file, content)
    read = read_model(CaseFileSchema, document)
    if read.value is None or document.root is None or read.findings:
        raise ConfigError(Code.POLICY_INVALID, tuple(sorted(read.findings)))
    cases: list[Case] = []
    findings: list[Finding] = []
    for index, case in enumerate(read.value.cases):
        steps = ("cases", index)
        line, column = place(document.root, steps)
        given = _merge(read.value.given, case.given)
        if given.caller is None or given.task is None:
            problem = "says neither itself nor in the file's given who asks for what"
            fix = "write caller and task"
            findings.append(Finding(file, line, column, key_path(steps), problem, fix))
        else:
            cases.append(_case(case, given, given.caller, given.task, (file, line)))
    if findings:
        raise ConfigError(Code.POLICY_INVALID, tuple(findings))
    return tuple(cases)


def _merge(base: GivenSchema, own: GivenSchema) -> GivenSchema:
    return base.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


def _case(
    schema: CaseSchema, given: GivenSchema, caller: str, task: str, at: tuple[str, int]
) -> Case:
    history = given.history
    facts = DecisionInput(
        caller=CallerFacts(SpiffeId.parse(caller), given.uid, given.method, given.token),
        request=RequestFacts(
            task=task,
            parameters=dict(given.parameters),
            purpose=given.purpose,
            ticket=given.ticket,
            context=dict(given.context),
            ttl=given.ttl,
            bind=given.bind,
            public_keys=dict(given.public_keys),
        ),
        now=given.at or SOME_NOON,
        host=dict(given.host),
        history=HistoryFacts(history.grants, history.denials, history.processes),
        approved=given.approved,
    )
    file, line = at
    return Case(schema.name, file, line, facts, schema.expect)


def run_case(policy: Policy, case: Case) -> Verdict:
    """Decide a case and compare."""
    decision = decide(policy, case.given)
    shadow = decide_shadow(policy, case.given)
    return Verdict(case, tuple(_compare(case.expect, decision, shadow)), decision, shadow)


def _compare(
    expect: ExpectSchema, decision: Decision, shadow: Decision | None
) -> Iterator[Mismatch]:
    wanted: tuple[tuple[str, str | None, str], ...] = (
        ("decision", expect.decision, _verdict(decision)),
        ("shadow", expect.shadow, _verdict(shadow)),
        ("code", expect.code, _code(decision)),
        ("because", expect.because, _because(decision)),
        (
            "scope",
            None if expect.scope is None else _lines(expect.scope),
            _lines(_requests(decision)),
        ),
        ("lease", _duration(expect.lease), _lease(decision)),
        ("lifetime", _duration(expect.lifetime), _lifetime(decision)),
        ("bind", expect.bind, _bind(decision)),
    )
    for what, expected, actual in wanted:
        if expected is not None and expected != actual:
            yield Mismatch(what, str(expected), actual)


def _duration(given: timedelta | None) -> str | None:
    return None if given is None else duration_text(given)


def _verdict(decision: Decision | None) -> str:
    if decision is None:
        return "none"
    if isinstance(decision, Scope):
        return "allow"
    return "approval" if decision.approval is not None else "deny"


def _code(decision: Decision) -> str:
    return decision.code if isinstance(decision, Denial) else "none"


def _because(decision: Decision) -> str:
    return decision.trace[-1].partition(":")[0] if isinstance(decision, Denial) else "none"


def _requests(decision: Decision) -> dict[str, str]:
    if isinstance(decision, Denial):
        return {}
    return {each.name: f"{each.method} {each.mount}/{each.path}" for each in decision.entitlements}


def _lines(requests: dict[str, str]) -> str:
    listed = (f"{name}: {request}" for name, request in sorted(requests.items()))
    return "\n".join(listed) or "none"


def _lease(decision: Decision) -> str:
    return duration_text(decision.dead_man) if isinstance(decision, Scope) else "none"


def _lifetime(decision: Decision) -> str:
    return duration_text(decision.lifetime) if isinstance(decision, Scope) else "none"


def _bind(decision: Decision) -> str:
    bind = decision.ends.bind if isinstance(decision, Scope) else ()
    return bind[0] if bind else "none"
