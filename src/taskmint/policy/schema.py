"""
The shape of a policy file, as pydantic models: what may be written where, and nothing about
whether it makes sense together; `compile` finds that out.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from taskmint.model.scope import BindKind, ProofLevel
from taskmint.yaml_model import (
    Boolean,
    Duration,
    FromInteger,
    FromText,
    Integer,
    NonEmpty,
    Text,
    YamlModel,
    fullmatch,
    member,
    refusal,
)

from .parameter import MAX_INTEGER, MAX_LENGTH

DefinitionName = Annotated[
    str,
    AfterValidator(
        fullmatch(
            r"[a-z0-9][a-z0-9-]{0,47}",
            "write at most 48 lower-case letters, digits and dashes, not a dash first",
        )
    ),
]
EntitlementName = Annotated[
    str,
    AfterValidator(
        fullmatch(
            r"[a-z0-9][a-z0-9_-]{0,47}",
            "write at most 48 lower-case letters, digits, dashes and underscores",
        )
    ),
]
ParameterName = Annotated[
    str,
    AfterValidator(
        fullmatch(
            r"[a-z][a-z0-9_]{0,31}", "write at most 32 lower-case letters, digits, underscores"
        )
    ),
]
EnumValue = Annotated[
    Text,
    AfterValidator(
        fullmatch(r"[A-Za-z0-9_-]{1,64}", "write at most 64 letters, digits, dashes, underscores")
    ),
]
MountPath = Annotated[
    Text,
    AfterValidator(
        fullmatch(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*", "write the mount without outer slashes")
    ),
]
VaultName = Annotated[
    Text,
    AfterValidator(
        fullmatch(r"[a-z0-9][a-z0-9._-]{0,127}", "write the name as Vault keeps it: lower-case")
    ),
]
Sentence = Annotated[Text, Field(min_length=1, max_length=500)]
SmallCount = Annotated[Integer, Field(ge=1, le=1_000_000)]


class ParameterSchema(YamlModel):
    """`{enum: [a, b]}`, or `{type: segment | integer | boolean}` with bounds."""

    enum: Annotated[tuple[EnumValue, ...], Field(min_length=1, max_length=1000)] | None = None
    type: Annotated[Literal["segment", "integer", "boolean"], FromText] | None = None
    max_length: Annotated[Integer, Field(ge=1, le=MAX_LENGTH)] | None = None
    min: Annotated[Integer, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)] | None = None
    max: Annotated[Integer, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "ParameterSchema":
        """An enum or a type; bounds only where they mean something."""
        if (self.enum is None) == (self.type is None):
            raise refusal("is an enum or has a type", "write {enum: [a, b]} or {type: segment}")
        if self.max_length is not None and self.type != "segment":
            raise refusal("max_length is for segments", "remove it")
        if (self.min, self.max) != (None, None) and self.type != "integer":
            raise refusal("min and max are for integers", "remove them")
        if self.type == "integer" and (self.min is None or self.max is None or self.max < self.min):
            raise refusal("an integer has bounds", "write min and max, min first")
        return self


class DeadlineSchema(YamlModel):
    """How long a task runs when it does not say, and at most; the class fills in the rest."""

    default: Duration | None = None
    max: Duration | None = None


class EndsSchema(YamlModel):
    """What ends a task besides its deadline."""

    bind: tuple[Annotated[BindKind, member(BindKind)], ...] = ()
    connection: Boolean = False
    heartbeat: Duration | None = None
    reprove: Duration | None = None
    daemon_stop: Annotated[Literal["keep", "revoke"], FromText] = "keep"
    deadline_only: Boolean = False


class LimitsSchema(YamlModel):
    """Bounds of this definition, for each identity."""

    concurrent_per_identity: SmallCount | None = None
    starts_per_minute: SmallCount | None = None


class SecretSchema(YamlModel):
    """Any secrets engine: one GET or POST below a mount."""

    mount: MountPath
    path: Text
    method: Annotated[Literal["GET", "POST"], FromText] = "GET"
    body: dict[str, object] = Field(default_factory=dict)
    proof: Annotated[ProofLevel, member(ProofLevel)] = ProofLevel.LEASE


class TokenSchema(YamlModel):
    """A second Vault token for the caller, with one policy of its own."""

    policy: VaultName
    ttl: Duration | None = None
    num_uses: SmallCount | None = None


class EntitlementSchema(YamlModel):
    """One thing in a scope; exactly one kind."""

    secret: SecretSchema | None = None
    token: TokenSchema | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "EntitlementSchema":
        """More than one kind, or none, is no entitlement."""
        if len(self.model_fields_set) != 1:
            kinds = ", ".join(type(self).model_fields)
            raise refusal("has exactly one kind", f"write one of: {kinds}")
        return self


class DefinitionSchema(YamlModel):
    """An entry under `tasks:`."""

    description: Sentence | None = None
    owner: Sentence
    class_: Annotated[Text, Field(alias="class")]
    who: Annotated[tuple[Text, ...], NonEmpty]
    parameters: dict[ParameterName, ParameterSchema] = Field(default_factory=dict)
    deadline: DeadlineSchema = DeadlineSchema()
    dead_man: Duration | None = None
    ends: EndsSchema
    limits: LimitsSchema = LimitsSchema()
    scope: Annotated[dict[EntitlementName, EntitlementSchema], NonEmpty]


class PolicyFileSchema(YamlModel):
    """A whole file; each definition is read by itself, so that one mistake hides no other."""

    version: Annotated[Literal[1], FromInteger]
    tasks: Annotated[dict[DefinitionName, object], NonEmpty]
