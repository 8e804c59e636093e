"""What would be decided, to JSON: codes for the caller, the whole trace for an operator."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from taskmint.errors import BadRequest, Code
from taskmint.model.caller import IdentityMethod, TokenBinding
from taskmint.model.scope import CallerFacts, Decision, Denial
from taskmint.model.spiffe import SpiffeId
from taskmint.tasks.deciding import Explanation

from .bodies import Claim, StartBody


class ExplainReply(BaseModel):
    """
    What a start with the same body would be granted by the policy now; else the start's problem.

    With `approval`, everything but that approval is there, and the rest is null. Limits, and
    whether the process to be bound to is there, are found out by starting.
    """

    task: str
    decision: Literal["grant", "approval"]
    lifetime_seconds: float | None = None
    bind: str | None = None
    heartbeat_seconds: float | None = None
    reprove_seconds: float | None = None
    entitlements: dict[str, str] | None = None  # kinds, by name


class ExplainAsBody(StartBody):
    """`POST /v1/admin/explain`: a start's body, and who would be asking."""

    spiffe_id: Claim
    uid: Annotated[int, Field(ge=0, le=2**32 - 2)] = 1000
    method: Literal["jwt-svid", "x509-svid", "delegated"] = "jwt-svid"
    token: Literal["uid", "process"] = "uid"

    def caller(self) -> CallerFacts:
        """Who would be asking. Raises BadRequest(malformed_request)."""
        try:
            spiffe_id = SpiffeId.parse(self.spiffe_id)
        except ValueError as error:
            raise BadRequest(
                Code.MALFORMED_REQUEST,
                f"spiffe_id: {error}",
                fix="write spiffe://TRUST-DOMAIN/PATH",
            ) from error
        method, binding = IdentityMethod(self.method), TokenBinding(self.token)
        return CallerFacts(spiffe_id, self.uid, method, binding)


class DecisionReply(BaseModel):
    """A decision with its trace: clause by clause, the last one refused where it is a refusal."""

    granted: bool
    trace: list[str]
    code: str | None = None
    approval_needed: bool = False
    lifetime_seconds: float | None = None
    lease_seconds: float | None = None
    scope: dict[str, str] | None = None  # requests of Vault, by entitlement


class ExplainAsReply(BaseModel):
    """A decision, what the shadow would change, and what they were made from."""

    decision: DecisionReply
    shadow: DecisionReply | None
    verdict: str | None  # on the shadow
    policy_digest: str
    at: datetime
    host: dict[str, str]
    history: dict[str, int]


def to_caller(task: str, explained: Explanation) -> bytes:
    """Encode what the caller may know."""
    decision = explained.decision
    if isinstance(decision, Denial):  # it lacks nothing but an approval; else it was raised
        reply = ExplainReply(task=task, decision="approval")
    else:
        ends = decision.ends
        reply = ExplainReply(
            task=task,
            decision="grant",
            lifetime_seconds=decision.lifetime.total_seconds(),
            bind=ends.bind[0].value if ends.bind else None,
            heartbeat_seconds=_seconds(ends.heartbeat),
            reprove_seconds=_seconds(ends.reprove),
            entitlements={each.name: each.kind.value for each in decision.entitlements},
        )
    return reply.model_dump_json().encode()


def to_operator(explained: Explanation) -> ExplainAsReply:
    """Tell everything."""
    given, shadow = explained.given, explained.shadow
    return ExplainAsReply(
        decision=_decision(explained.decision),
        shadow=None if shadow is None else _decision(shadow.decision),
        verdict=None if shadow is None else shadow.verdict.value,
        policy_digest=explained.decision.policy_digest,
        at=given.now,
        host=dict(given.host),
        history={
            "grants": given.history.grants,
            "denials": given.history.denials,
            "processes": given.history.processes,
        },
    )


def _decision(decision: Decision) -> DecisionReply:
    trace = list(decision.trace)
    if isinstance(decision, Denial):
        return DecisionReply(
            granted=False,
            code=decision.code,
            approval_needed=decision.approval is not None,
            trace=trace,
        )
    return DecisionReply(
        granted=True,
        trace=trace,
        lifetime_seconds=_seconds(decision.lifetime),
        lease_seconds=_seconds(decision.dead_man),
        scope={
            each.name: f"{each.method} {each.mount}/{each.path}" for each in decision.entitlements
        },
    )


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()
