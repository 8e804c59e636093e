"""The shapes of requests and replies; OpenAPI is generated from these."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints, ValidationError

from taskmint.errors import BadRequest, Code
from taskmint.model.scope import BindKind, Json, RequestFacts
from taskmint.policy.caller_key import MAX_LENGTH
from taskmint.tasks.views import ApprovalView, Credential, TaskView

Claim = Annotated[str, StringConstraints(max_length=256)]
ContextKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
ParameterText = Annotated[str, StringConstraints(max_length=256)]
PublicKeys = dict[ContextKey, Annotated[str, StringConstraints(max_length=MAX_LENGTH)]]


class Body(BaseModel):
    """What is common to request bodies: nothing unknown, nothing guessed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StartBody(Body):
    """
    `POST /v1/tasks`: which definition, with which parameters, and why.

    `public_keys` are by entitlement: a certificate request (PEM) for `pki`, a line of an OpenSSH
    public key for `ssh`. They say nothing but the key; names and lifetimes are the policy's.
    """

    task: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    parameters: dict[ContextKey, ParameterText | int | bool] = Field(
        default_factory=dict, max_length=16
    )
    purpose: Claim = ""
    ticket: Claim | None = None
    context: dict[ContextKey, Claim] = Field(default_factory=dict, max_length=16)
    ttl_seconds: Annotated[int, Field(gt=0, le=10_000_000)] | None = None
    bind: Literal["peer", "parent", "session", "unit"] | None = None
    public_keys: PublicKeys = Field(default_factory=dict, max_length=8)

    def facts(self) -> RequestFacts:
        """What the caller claims, for the decision and the ledger."""
        return RequestFacts(
            task=self.task,
            parameters=dict(self.parameters),
            purpose=self.purpose,
            ticket=self.ticket,
            context=dict(self.context),
            ttl=None if self.ttl_seconds is None else timedelta(seconds=self.ttl_seconds),
            bind=None if self.bind is None else BindKind(self.bind),
            public_keys=dict(self.public_keys),
        )


class ChangeBody(Body):
    """
    `PATCH /v1/tasks/{id}`: what is to be different; nothing at all issues new credentials.

    Parameters and public keys are merged into those of before. A lifetime counts from now and
    only shortens.
    """

    parameters: dict[ContextKey, ParameterText | int | bool] = Field(
        default_factory=dict, max_length=16
    )
    purpose: Claim | None = None
    ticket: Claim | None = None
    context: dict[ContextKey, Claim] | None = Field(default=None, max_length=16)
    ttl_seconds: Annotated[int, Field(gt=0, le=10_000_000)] | None = None
    public_keys: PublicKeys = Field(default_factory=dict, max_length=8)

    def applied_to(self, before: RequestFacts) -> RequestFacts:
        """What the caller claims now."""
        return replace(
            before,
            parameters={**before.parameters, **self.parameters},
            purpose=before.purpose if self.purpose is None else self.purpose,
            ticket=before.ticket if self.ticket is None else self.ticket,
            context=before.context if self.context is None else dict(self.context),
            ttl=before.ttl if self.ttl_seconds is None else timedelta(seconds=self.ttl_seconds),
            public_keys={**before.public_keys, **self.public_keys},
        )


class RevokeBody(Body):
    """
    `POST /v1/admin/revoke`: which tasks to end, by exactly one of five, and why.

    `cause` is `external_signal` when an outside event ends them, a closed ticket for instance.
    """

    task: Annotated[str, StringConstraints(pattern=r"^tm_[0-9a-z]{26}$")] | None = None
    spiffe_id: Claim | None = None
    definition: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    ticket: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    all: Literal[True] | None = None
    reason: Claim = ""
    cause: Literal["operator", "external_signal"] = "operator"

    def selected(self) -> tuple[str, str]:
        """The one thing to select by, and its value. Raises BadRequest(malformed_request)."""
        named = self.model_dump(exclude_none=True, exclude={"reason", "cause"})
        if len(named) != 1:
            raise BadRequest(
                Code.MALFORMED_REQUEST,
                f"{len(named)} ways to select tasks are given",
                fix="give exactly one of task, spiffe_id, definition, ticket, all",
            )
        ((name, value),) = named.items()
        return name, str(value)


B = TypeVar("B", bound=Body)


def read(model: type[B], body: dict[str, Json]) -> B:
    """Validate a body. Raises BadRequest(malformed_request) naming every wrong field."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])[:80]}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise BadRequest(
            Code.MALFORMED_REQUEST, problems, fix=f"see {model.__name__} in docs/openapi.json"
        ) from None


class CredentialReply(BaseModel):
    """
    One entitlement's credential, as Vault gave it.

    `revocable` is false for what nothing takes back: it works until its own `expires_at`, which is
    null when Vault did not say.
    """

    kind: str
    data: dict[str, Any]
    revocable: bool
    expires_at: datetime | None
    warnings: list[str]


class ApprovalReply(BaseModel):
    """
    What a request waits for: `quorum` different ones of `approvers`, of whom `given` have approved.

    `plan` is what is to be approved, and `scope_digest` the SHA-256 of its canonical form
    (RFC 8785). By `until` it must be approved and, once it is, collected; `why` it is over.
    """

    approvers: list[str]
    quorum: int
    given: int
    until: datetime
    plan: dict[str, Any]
    scope_digest: str
    policy_digest: str
    why: str


class TaskReply(BaseModel):
    """
    A task as its owner sees it.

    `expires_at` is the deadline; `guaranteed_until` is how long the credentials work if the
    daemon stopped renewing them now, and `guarantee` whether that is as it should be (`kept`), less
    than half (`half`), or nothing (`lost`). `credentials` is there within the delivery window only,
    and belongs to `revision`: 1 from the start, one more with each change, 0 while nothing is
    minted because it waits for an approval. Then `approval` is there.
    """

    id: str
    definition: str
    state: str
    expires_at: datetime
    guaranteed_until: datetime
    guarantee: Literal["kept", "half", "lost"]
    revision: int
    heartbeat_seconds: float | None
    reprove_seconds: float | None
    end_cause: str | None
    revocation_seconds: float | None
    credentials: dict[str, CredentialReply] | None = None
    approval: ApprovalReply | None = None


class TaskEvents(RootModel[str]):
    """
    Server-sent events `state`, `guarantee` and `revision`, named after what has changed.

    The `data` of each is a TaskReply without credentials. The first, `state`, comes at once;
    a comment comes when nothing has changed for 15 seconds. The stream ends when the task is over.
    """


class ComponentReply(BaseModel):
    """One dependency: `ok`, or why not."""

    status: Literal["ok", "not_ready"]
    reason: str | None


class ReadyReply(BaseModel):
    """Whether tasks can be started now."""

    status: Literal["ready", "not_ready"]
    components: dict[str, ComponentReply]


class HealthReply(BaseModel):
    """The process answers."""

    status: Literal["live"]


class ProblemReply(BaseModel):
    """RFC 9457 with a stable `code`, a `fix`, and Vault's `errors`."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    fix: str
    errors: list[str]


def task_reply(view: TaskView) -> bytes:
    """Encode a view; this is the one place where a credential leaves the daemon."""
    credentials = view.credentials
    return TaskReply.model_construct(
        id=view.id,
        definition=view.definition,
        state=view.state.value,
        expires_at=view.expires_at,
        guaranteed_until=view.guaranteed_until,
        guarantee=view.guarantee.value,
        revision=view.revision,
        heartbeat_seconds=_seconds(view.heartbeat),
        reprove_seconds=_seconds(view.reprove),
        end_cause=view.cause.value if view.cause else None,
        revocation_seconds=view.revocation_seconds,
        credentials=credentials
        and {name: _credential(item) for name, item in credentials.items()},
        approval=view.approval and approval_reply(view.approval),
    ).model_dump_json().encode()  # fmt: skip


def approval_reply(view: ApprovalView) -> ApprovalReply:
    """Encode what a request waits for."""
    return ApprovalReply.model_construct(
        approvers=list(view.approvers),
        quorum=view.quorum,
        given=view.given,
        until=view.until,
        plan=dict(view.plan),
        scope_digest=view.scope_digest,
        policy_digest=view.policy_digest,
        why=view.why,
    )


def _credential(item: Credential) -> CredentialReply:
    return CredentialReply.model_construct(
        kind=item.kind,
        data=item.minted.data.reveal(),
        revocable=item.revocable,
        expires_at=item.expires_at,
        warnings=list(item.minted.warnings),
    )


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()
