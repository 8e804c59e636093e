"""
The shape of a policy file, as pydantic models: what may be written where, and nothing about
whether it makes sense together; `compile` finds that out.

What a scope may hold is in scope_schema.py, the words and names in schema_words.py.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from taskmint.model.caller import IdentityMethod, TokenBinding
from taskmint.model.scope import BindKind
from taskmint.yaml_model import (
    MAX_INTEGER,
    Boolean,
    Duration,
    FromInteger,
    FromText,
    Integer,
    NonEmpty,
    Seconds,
    Text,
    Timestamp,
    YamlModel,
    member,
    refusal,
)

from .parameter import MAX_LENGTH
from .schema_words import (
    Approver,
    ClockTime,
    Conditions,
    ConditionText,
    Day,
    DefinitionName,
    EntitlementName,
    EnumValue,
    FirstMoment,
    Label,
    ParameterName,
    Sentence,
    SmallCount,
    Tag,
    Zone,
)
from .scope_schema import EntitlementSchema


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


class IdentitySchema(YamlModel):
    """How the caller must have proven itself; all ways and a token bound by uid when left out."""

    methods: (
        Annotated[tuple[Annotated[IdentityMethod, member(IdentityMethod)], ...], NonEmpty] | None
    ) = None
    token: Annotated[TokenBinding, member(TokenBinding)] = TokenBinding.UID


class WindowSchema(YamlModel):
    """`{days, from, to, zone}`, recurring, or `{starts, ends, tag}`, a release."""

    days: Annotated[tuple[Day, ...], NonEmpty] | None = None
    from_: Annotated[FirstMoment | None, Field(alias="from")] = None
    to: ClockTime | None = None
    zone: Zone | None = None
    starts: Timestamp | None = None
    ends: Timestamp | None = None
    tag: Tag | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "WindowSchema":
        """A window recurs or is a release, whole either way."""
        recurring = self.model_fields_set & {"days", "from_", "to", "zone"}
        release = self.model_fields_set & {"starts", "ends", "tag"}
        if bool(recurring) == bool(release):
            raise refusal("recurs or is a release", "write from and to, or starts and ends")
        if recurring and (self.from_ is None or self.to is None):
            raise refusal(
                "a recurring window has from and to", 'write {from: "22:00", to: "06:00"}'
            )
        if release and (self.starts is None or self.ends is None):
            raise refusal("a release has starts and ends", "write both, in RFC 3339")
        return self


class ApprovalSchema(YamlModel):
    """Whose yes is needed before anything is minted."""

    from_: Annotated[tuple[Approver, ...], NonEmpty, Field(alias="from")]
    quorum: Annotated[Integer, Field(ge=1, le=10)] = 1
    within: Duration
    automatic: ConditionText | None = None


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


class DefinitionSchema(YamlModel):
    """An entry under `tasks:`."""

    description: Sentence | None = None
    owner: Sentence
    class_: Annotated[Text, Field(alias="class")]
    shadow: Boolean = False
    break_glass: Boolean = False
    who: Annotated[tuple[Text, ...], NonEmpty]
    identity: IdentitySchema = IdentitySchema()
    parameters: dict[ParameterName, ParameterSchema] = Field(default_factory=dict)
    windows: Annotated[tuple[WindowSchema, ...], NonEmpty] | None = None
    when: Conditions = ()
    approval: ApprovalSchema | None = None
    deadline: DeadlineSchema = DeadlineSchema()
    dead_man: Seconds | None = None
    ends: EndsSchema
    limits: LimitsSchema = LimitsSchema()
    scope: Annotated[dict[EntitlementName, EntitlementSchema], NonEmpty]


class PolicyFileSchema(YamlModel):
    """A whole file; each definition is read by itself, so that one mistake hides no other."""

    version: Annotated[Literal[1], FromInteger]
    owners: tuple[Sentence, ...] = ()
    host_labels: tuple[Label, ...] = ()
    tasks: Annotated[dict[DefinitionName, object], NonEmpty]
