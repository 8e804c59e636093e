"""The shape of a policy test file (`tests/*.yaml` beside a policy), as pydantic models."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from taskmint.errors import Code
from taskmint.model.caller import IdentityMethod, TokenBinding
from taskmint.model.scope import BindKind
from taskmint.model.spiffe import SpiffeId
from taskmint.yaml_document import Scalar, quoted, yaml_guess
from taskmint.yaml_model import (
    Boolean,
    Duration,
    FromInteger,
    FromText,
    Integer,
    NonEmpty,
    Text,
    Timestamp,
    YamlModel,
    member,
    parse_integer,
    refusal,
)

from .schema_words import Sentence

Step = Literal[
    "task",
    "who",
    "identity",
    "parameters",
    "deadline",
    "windows",
    "break_glass",
    "when",
    "ends",
    "approval",
    "public_keys",
]
Verdict = Annotated[Literal["allow", "deny", "approval"], FromText]
Count = Annotated[Integer, Field(ge=0)]


def _claimed(value: object) -> object:
    """Read a parameter as a caller sends it: plain digits and booleans as such, else text."""
    if not isinstance(value, Scalar):
        raise refusal("must be a word, a number or a boolean", "write one")
    if value.plain and value.text in {"true", "false"}:
        return value.text == "true"
    if value.plain and (number := parse_integer(value.text)) is not None:
        return number
    if value.plain and (guess := yaml_guess(value.text)):
        raise refusal(f"YAML reads this as {guess}", f"write {quoted(value.text)}")
    return value.text


def _spiffe_id(text: str) -> str:
    try:
        return str(SpiffeId.parse(text))
    except ValueError as error:
        raise refusal("is no SPIFFE ID", str(error)) from None


Claimed = Annotated[str | int | bool, BeforeValidator(_claimed)]


class HistorySchema(YamlModel):
    """The identity's last hour."""

    grants: Count = 0
    denials: Count = 0
    processes: Count = 0


class GivenSchema(YamlModel):
    """What is asked, by whom, when; the file's `given` fills in what a case leaves out."""

    caller: Annotated[Text, AfterValidator(_spiffe_id)] | None = None
    uid: Count = 1000
    method: Annotated[IdentityMethod, member(IdentityMethod)] = IdentityMethod.JWT_SVID
    token: Annotated[TokenBinding, member(TokenBinding)] = TokenBinding.UID
    task: Text | None = None
    parameters: dict[str, Claimed] = Field(default_factory=dict)
    purpose: Text = ""
    ticket: Text | None = None
    context: dict[str, Text] = Field(default_factory=dict)
    ttl: Duration | None = None
    bind: Annotated[BindKind, member(BindKind)] | None = None
    public_keys: dict[str, Text] = Field(default_factory=dict)
    at: Timestamp | None = None
    host: dict[str, Text] = Field(default_factory=dict)
    history: HistorySchema = HistorySchema()
    approved: Boolean = False


class ExpectSchema(YamlModel):
    """What must come out; only what is named is checked."""

    decision: Verdict
    code: Annotated[Code, member(Code)] | None = None
    because: Annotated[Step, FromText] | None = None
    scope: dict[str, Text] | None = None
    lease: Duration | None = None
    lifetime: Duration | None = None
    bind: Annotated[BindKind, member(BindKind)] | None = None
    shadow: Verdict | None = None


class CaseSchema(YamlModel):
    """One question and its answer."""

    name: Sentence
    given: GivenSchema = GivenSchema()
    expect: ExpectSchema


class CaseFileSchema(YamlModel):
    """A whole file of cases."""

    version: Annotated[Literal[1], FromInteger]
    given: GivenSchema = GivenSchema()
    cases: Annotated[tuple[CaseSchema, ...], NonEmpty]
