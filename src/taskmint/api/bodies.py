"""The shapes of requests and replies; OpenAPI is generated from these."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from taskmint.errors import BadRequest, Code
from taskmint.model.scope import BindKind, Json, RequestFacts
from taskmint.tasks.views import Credential, TaskView

Claim = Annotated[str, StringConstraints(max_length=256)]
ContextKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
ParameterText = Annotated[str, StringConstraints(max_length=256)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StartBody(_Body):
    """`POST /v1/tasks`: which definition, with which parameters, and why."""

    task: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    parameters: dict[ContextKey, ParameterText | int | bool] = Field(
        default_factory=dict, max_length=16
    )
    purpose: Claim = ""
    ticket: Claim | None = None
    context: dict[ContextKey, Claim] = Field(default_factory=dict, max_length=16)
    ttl_seconds: Annotated[int, Field(gt=0, le=10_000_000)] | None = None
    bind: Literal["peer", "parent", "session", "unit"] | None = None

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
        )


def read_start(body: dict[str, Json]) -> StartBody:
    """Validate a start's body. Raises BadRequest(malformed_request) naming every wrong field."""
    try:
        return StartBody.model_validate(body)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])[:80]}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise BadRequest(
            Code.MALFORMED_REQUEST, problems, fix="see StartBody in docs/openapi.json"
        ) from None


class CredentialReply(BaseModel):
    """One entitlement's credential, as Vault gave it."""

    kind: str
    data: dict[str, Any]
    revocable: bool
    expires_at: datetime
    warnings: list[str]


class TaskReply(BaseModel):
    """
    A task as its owner sees it.

    `expires_at` is the deadline; `guaranteed_until` is how long the credentials work if the
    daemon stopped renewing them now. `credentials` is there within the delivery window only.
    """

    id: str
    definition: str
    state: str
    expires_at: datetime
    guaranteed_until: datetime
    heartbeat_seconds: float | None
    reprove_seconds: float | None
    end_cause: str | None
    revocation_seconds: float | None
    credentials: dict[str, CredentialReply] | None = None


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
        heartbeat_seconds=_seconds(view.heartbeat),
        reprove_seconds=_seconds(view.reprove),
        end_cause=view.cause.value if view.cause else None,
        revocation_seconds=view.revocation_seconds,
        credentials=credentials
        and {name: _credential(item) for name, item in credentials.items()},
    ).model_dump_json().encode()  # fmt: skip


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
