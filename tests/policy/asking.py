"""What the policy tests share: a policy from text, findings from text, a request to decide."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from taskmint.config import DEFAULT_CLASSES
from taskmint.errors import Code, ConfigError
from taskmint.model.caller import IdentityMethod
from taskmint.model.scope import (
    BindKind,
    CallerFacts,
    DecisionInput,
    Denial,
    ParameterValue,
    RequestFacts,
    Scope,
)
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.decide import decide
from taskmint.policy.load import Policy, load_policy

REPOSITORY = Path(__file__).parents[2]
NOON = datetime(2026, 12, 2, 12, tzinfo=UTC)  # a Wednesday
JOB = "spiffe://example.org/ns/orders/sa/nightly"

REPORT = """\
version: 1
tasks:
  report:
    owner: team-orders@example.org
    class: batch
    who: ["spiffe://example.org/ns/orders/sa/{job}"]
    parameters: {region: {enum: [eu, us]}}
    deadline: {default: 5m, max: 30m}
    ends: {bind: [peer, parent], heartbeat: 60s}
    limits: {concurrent_per_identity: 2}
    scope:
      warehouse:
        secret: {mount: database, path: "creds/ro-{region}", proof: login}
"""


def load(*texts: str) -> Policy:
    """Load texts as files a.yaml, b.yaml and so on, with the built-in classes."""
    files = [
        (f"{letter}.yaml", text.encode()) for letter, text in zip("abcdef", texts, strict=False)
    ]
    return load_policy(files, DEFAULT_CLASSES)


def findings(*texts: str) -> list[str]:
    """Load texts that must not load; return the findings, as a person reads them."""
    with pytest.raises(ConfigError) as caught:
        load(*texts)
    assert caught.value.code is Code.POLICY_INVALID
    return [str(finding) for finding in caught.value.findings]


def asked(
    task: str = "report",
    parameters: Mapping[str, ParameterValue] | None = None,
    *,
    who: str = JOB,
    ttl: timedelta | None = None,
    bind: BindKind | None = None,
) -> DecisionInput:
    """A request by the nightly job for the EU report, unless told otherwise."""
    given = {"region": "eu"} if parameters is None else dict(parameters)
    return DecisionInput(
        CallerFacts(SpiffeId.parse(who), 1000, IdentityMethod.JWT_SVID),
        RequestFacts(task=task, parameters=given, ttl=ttl, bind=bind),
        NOON,
    )


def granted(policy: Policy, given: DecisionInput) -> Scope:
    """Decide what must be granted."""
    decision = decide(policy, given)
    assert isinstance(decision, Scope), decision
    return decision


def denied(policy: Policy, given: DecisionInput, code: Code) -> Denial:
    """Decide what must be refused with this code."""
    decision = decide(policy, given)
    assert isinstance(decision, Denial), decision
    assert decision.code == code
    assert decision.policy_digest == policy.digest
    return decision
