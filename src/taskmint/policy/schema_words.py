"""The words, names and times of a policy file: what each kind of text must look like."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from taskmint.model.spiffe import SpiffeId
from taskmint.yaml_document import Scalar, quoted
from taskmint.yaml_model import FromText, FullMatch, Integer, Text, refusal

from .condition import MAX_TEXT


def _as_list(value: object) -> object:
    """Let one text stand for a list of one."""
    return (value,) if isinstance(value, Scalar) else value


def _clock_time(value: str) -> str:
    return FullMatch(
        r"(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00", 'write a time of day in quotes: "22:00"'
    )(value)


def _first_moment(value: str) -> str:
    if value == "24:00":
        raise refusal("is the end of a day", 'write "00:00", and the day on which it begins')
    return value


def _approver(text: str) -> str:
    kind, _, name = text.partition(":")
    if kind == "spiffe":
        try:
            return str(SpiffeId.parse(text))
        except ValueError as error:
            raise refusal(f"{quoted(text)} is no SPIFFE ID", str(error)) from None
    advice = "write group:NAME, user:NAME or a SPIFFE ID"
    if kind not in {"group", "user"}:
        raise refusal(f"{quoted(text)} is no approver", advice)
    FullMatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}", advice)(name)
    return text


DefinitionName = Annotated[
    str,
    FullMatch(
        r"[a-z0-9][a-z0-9-]{0,47}(?:\.shadow)?",
        "write at most 48 lower-case letters, digits and dashes, not a dash first",
    ),
]
EntitlementName = Annotated[
    str,
    FullMatch(
        r"[a-z0-9][a-z0-9_-]{0,47}",
        "write at most 48 lower-case letters, digits, dashes and underscores",
    ),
]
ParameterName = Annotated[
    str,
    FullMatch(r"[a-z][a-z0-9_]{0,31}", "write at most 32 lower-case letters, digits, underscores"),
]
EnumValue = Annotated[
    Text,
    FullMatch(r"[A-Za-z0-9_-]{1,64}", "write at most 64 letters, digits, dashes, underscores"),
]
MountPath = Annotated[
    Text,
    FullMatch(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*", "write the mount without outer slashes"),
]
ConnectionName = Annotated[
    Text,
    FullMatch(r"[A-Za-z0-9_-]{1,64}", "write the connection's name alone"),
]
Capability = Annotated[Literal["create", "read", "update", "delete", "list"], FromText]
# The server's ACL takes the name `*` for any field, and cannot read every other text as a name.
FieldName = Annotated[
    str,
    FullMatch(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
        "write the field as Vault names it: letters, digits, dots, dashes, underscores",
    ),
]
VaultName = Annotated[
    Text,
    FullMatch(r"[a-z0-9][a-z0-9._-]{0,127}", "write the name as Vault keeps it: lower-case"),
]
Label = Annotated[
    Text,
    FullMatch(r"[a-z][a-z0-9_]{0,31}", "write lower-case letters, digits, underscores"),
]
Zone = Annotated[
    Text,
    FullMatch(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}", "write a zone's name, such as Europe/Berlin"),
]
Tag = Annotated[
    Text,
    FullMatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "write for example v2.14.0"),
]
Day = Annotated[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], FromText]
ClockTime = Annotated[Text, AfterValidator(_clock_time)]
FirstMoment = Annotated[ClockTime, AfterValidator(_first_moment)]
Approver = Annotated[Text, AfterValidator(_approver)]
Sentence = Annotated[Text, Field(min_length=1, max_length=500)]
ConditionText = Annotated[Text, Field(min_length=1, max_length=MAX_TEXT)]
Conditions = Annotated[
    tuple[ConditionText, ...],
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
SmallCount = Annotated[Integer, Field(ge=1, le=1_000_000)]
