"""
A YAML tree and a pydantic model in; the model's value, or every finding at its place, out.

The scalar types below do what YAML would have guessed: text, numbers, durations, times. Each
refuses what another YAML reader would understand differently, and says what to write instead.
Fields of a model that is read this way use these types and no bare `str`, `int` or `bool`.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final, Generic, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from . import yaml_document
from .errors import Finding
from .yaml_document import Document, Node, Scalar, Sequence, key_path, quoted, yaml_guess

M = TypeVar("M", bound=BaseModel)

DURATION_PATTERN: Final = "^[0-9]{1,9}(ms|s|m|h)$"  # decisions.md; nine digits cannot overflow
LONGEST: Final = timedelta(hours=87_600)  # ten years: added to any date that comes, it is a date
MAX_INTEGER: Final = 2**53 - 1  # what JSON carries exactly (RFC 8785)

_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h)", re.ASCII)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,30})", re.ASCII)
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_MODE = re.compile(r"0[0-7]{3}", re.ASCII)
_LARGER: Final = (("h", 3_600_000), ("m", 60_000), ("s", 1_000))
_MOST_SHOWN: Final = 20  # words listed in a finding
_MOST_COMPARED: Final = 200  # likeness costs some 20 µs a word
_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
}


class YamlModel(BaseModel):
    """The base of everything read from YAML: frozen, no unknown keys, no coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def refusal(problem: str, fix: str) -> PydanticCustomError:
    """Build the error a validator raises: what is wrong, and what to write instead."""
    return PydanticCustomError("refused", "{problem}", {"problem": problem, "fix": fix})


def _scalar(value: object, what: str, example: str) -> Scalar:
    if not isinstance(value, Scalar):
        raise refusal(f"must be {what}", f"write {example}")
    return value


def _text(value: object) -> object:
    if not isinstance(value, Scalar):
        raise refusal("must be text", "write one word or a quoted text")
    if value.plain and not value.text:
        raise refusal("has no value", "write one, or leave the key out")
    if value.plain and (guess := yaml_guess(value.text)):
        raise refusal(
            f"must be text, and YAML reads this as {guess}", f"write {quoted(value.text)}"
        )
    return value.text


def parse_integer(text: str) -> int | None:
    """Read decimal digits, spelled in the one way; None for anything else, or for too many."""
    number = int(text) if _INTEGER.fullmatch(text) else None
    return None if number is None or abs(number) > MAX_INTEGER else number


def _integer(value: object) -> int:
    scalar = _scalar(value, "a whole number", "digits")
    if not scalar.plain or not _INTEGER.fullmatch(scalar.text):
        raise refusal("must be a whole number", "write decimal digits without quotes")
    number = parse_integer(scalar.text)
    if number is None:
        raise refusal("is too large for JSON", f"write at most {MAX_INTEGER}")
    return number


def _boolean(value: object) -> bool:
    scalar = _scalar(value, "true or false", "true or false")
    if not scalar.plain or scalar.text not in {"true", "false"}:
        raise refusal("must be true or false", "write true or false, without quotes")
    return scalar.text == "true"


def parse_duration(text: str) -> timedelta:
    """Read digits and a unit. Raises ValueError with a sentence that says what to write."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError("write digits and one of ms, s, m, h: 500ms, 90s, 15m")
    duration = int(match[1]) * _UNITS[match[2]]
    if duration > LONGEST:
        raise ValueError(f"write at most {duration_text(LONGEST)}")
    return duration


def _duration(value: object) -> timedelta:
    text = _scalar(value, "a duration", "for example 90s").text
    try:
        return parse_duration(text)
    except ValueError as error:
        raise refusal("must be a duration", str(error)) from None


def _timestamp(value: object) -> datetime:
    text = _scalar(value, "a time", "for example 2027-01-31T08:00:00Z").text
    try:
        if _RFC_3339.fullmatch(text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # the 31st of February, or a year that leaves the calendar
    raise refusal("must be a time with a zone", "write RFC 3339: 2027-01-31T08:00:00Z")


def _mode(value: object) -> int:
    text = _text(value)
    if not isinstance(text, str) or not _MODE.fullmatch(text):
        raise refusal("must be a file mode", 'write four octal digits in quotes: "0660"')
    return int(text, 8)


def duration_text(value: timedelta) -> str:
    """Write a duration in the largest unit that holds it exactly."""
    milliseconds = value // _UNITS["ms"]
    for unit, size in _LARGER:
        if milliseconds and not milliseconds % size:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def positive(value: timedelta) -> timedelta:
    """Refuse a duration of nothing."""
    if not value:
        raise refusal("must be longer than nothing", "write for example 30s")
    return value


def whole_seconds(value: timedelta) -> timedelta:
    """Refuse a duration that Vault would cut, to nothing if it is short: it counts in seconds."""
    if value % _UNITS["s"]:
        raise refusal(
            f"{duration_text(value)} is no whole number of seconds", "write for example 30s"
        )
    return value


@dataclass(frozen=True, slots=True)
class FullMatch:
    """A check for `Annotated`: text matches a pattern (ASCII) from end to end; else the advice."""

    pattern: str
    advice: str

    def __call__(self, value: str) -> str:
        """Return the text. Raises a refusal."""
        if not re.fullmatch(self.pattern, value, re.ASCII):
            raise refusal(f"{quoted(value)} will not do", self.advice)
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check after the type."""
        return core_schema.no_info_after_validator_function(self, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Tell editors the pattern."""
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}


def member(kind: type[StrEnum]) -> BeforeValidator:
    """Return the reader of a field whose type is `kind`: one of its words."""

    def read(value: object) -> StrEnum:
        text = _text(value)
        for known in kind:
            if known.value == text:
                return known
        raise refusal("is not one of the known words", f"write one of: {', '.join(kind)}")

    return BeforeValidator(read)


def _mode_text(mode: int) -> str:
    return f"{mode:04o}"


FromText: Final = BeforeValidator(_text)
FromInteger: Final = BeforeValidator(_integer)
Text = Annotated[str, FromText]
Integer = Annotated[int, FromInteger]
Boolean = Annotated[bool, BeforeValidator(_boolean)]
AnyDuration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
Duration = Annotated[AnyDuration, AfterValidator(positive)]
Seconds = Annotated[Duration, AfterValidator(whole_seconds)]
Timestamp = Annotated[
    datetime,
    BeforeValidator(_timestamp),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Mode = Annotated[
    int,
    BeforeValidator(_mode),
    PlainSerializer(_mode_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^0[0-7]{3}$"}),
]
NonEmpty: Final = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Read(Generic[M]):
    """A model's value, None when there are findings."""

    value: M | None
    findings: tuple[Finding, ...]


def read_model(
    model: type[M], document: Document, steps: tuple[str | int, ...] = (), node: Node | None = None
) -> Read[M]:
    """
    Validate a document, or its `node` found at `steps`, as `model`.

    The document's own findings come first; a place that has one gets no second.
    """
    target = document.root if node is None else node
    if target is None:
        return Read(None, document.findings)
    try:
        value = model.model_validate(_plain(target))
    except ValidationError as error:
        taken = {(finding.line, finding.column) for finding in document.findings}
        details = _without_echoes(error.errors(include_url=False, include_input=False))
        found = (_finding(model, document.file, target, steps, detail) for detail in details)
        fresh = (finding for finding in found if (finding.line, finding.column) not in taken)
        kept = itertools.islice(fresh, yaml_document.MAX_FINDINGS)
        return Read(None, (*document.findings, *kept))
    return Read(value, document.findings)


def _without_echoes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Drop `too short` of a list whose entries were refused: refused ones are not counted."""
    inside = {detail["loc"][:depth] for detail in details for depth in range(1, len(detail["loc"]))}
    return [each for each in details if each["type"] != "too_short" or each["loc"] not in inside]


def place(node: Node, steps: tuple[str | int, ...]) -> tuple[int, int]:
    """Find line and column of what stands at `steps`, as far as the tree goes."""
    for step in steps:
        if isinstance(node, yaml_document.Mapping) and isinstance(step, str):
            if step not in node.entries:
                return node.keys.get(step, (node.line, node.column))
            node = node.entries[step]
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
        else:
            break
    return node.line, node.column


def closest(word: str, known: Mapping[str, object] | frozenset[str]) -> str:
    """Say which known word was probably meant, or list them when they are few."""
    names = sorted(known)
    compared = names if len(names) <= _MOST_COMPARED else ()
    if near := get_close_matches(word[:60], compared, n=1, cutoff=0.6):
        return f"did you mean {near[0]}?"
    if not names:
        return "nothing can stand here"
    shown = ", ".join(names[:_MOST_SHOWN])
    return f"known: {shown}{', …' if len(names) > _MOST_SHOWN else ''}"


def _plain(node: Node) -> object:
    """Turn collections into what pydantic reads; scalars stay, the field types read them."""
    if isinstance(node, yaml_document.Mapping):
        return {key: _plain(value) for key, value in node.entries.items()}
    if isinstance(node, Sequence):
        return tuple(_plain(item) for item in node.items)
    return node


_MUST_BE: Final = MappingProxyType(
    {
        "model_type": ("must be a mapping", "write key: value pairs"),
        "dict_type": ("must be a mapping", "write key: value pairs"),
        "tuple_type": ("must be a list", "write [one, two]"),
        "missing": ("is missing", "add it"),
    }
)

# What pydantic calls it: what is wrong, the name of the bound, and what to write.
_BOUNDS: Final = MappingProxyType(
    {
        "literal_error": ("is not one of the known words", "expected", "write {}"),
        "greater_than_equal": ("is too small", "ge", "write at least {}"),
        "less_than_equal": ("is too large", "le", "write at most {}"),
        "too_short": ("is too short", "min_length", "write at least {}"),
        "too_long": ("is too long", "max_length", "write at most {}"),
    }
)


def _finding(
    model: type[BaseModel],
    file: str,
    node: Node,
    steps: tuple[str | int, ...],
    detail: ErrorDetails,
) -> Finding:
    of_key = detail["loc"][-1:] == ("[key]",)
    where = detail["loc"][:-1] if of_key else detail["loc"]
    line, column = _key_place(node, where) if of_key else place(node, where)
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind == "extra_forbidden":
        line, column = _key_place(node, where)
        problem, fix = "is not a known key", closest(str(where[-1]), _known_keys(model, where[:-1]))
    elif kind in _MUST_BE:
        problem, fix = _MUST_BE[kind]
    elif kind == "refused":
        problem, fix = str(context["problem"]), str(context["fix"])
    elif kind in _BOUNDS:
        problem, bound, advice = _BOUNDS[kind]
        fix = advice.format(context[bound])
    else:
        problem, fix = "will not do", detail["msg"]
    return Finding(file, line, column, key_path(steps + where), problem, fix)


def _key_place(node: Node, where: tuple[str | int, ...]) -> tuple[int, int]:
    """Find where the key itself stands, not its value."""
    for step in where[:-1]:
        if isinstance(node, yaml_document.Mapping):
            node = node.entries[str(step)]
        elif isinstance(node, Sequence) and isinstance(step, int):
            node = node.items[step]
    last = where[-1]
    if isinstance(node, yaml_document.Mapping) and isinstance(last, str):
        return node.keys.get(last, (node.line, node.column))
    return node.line, node.column


def _known_keys(model: type[BaseModel], where: tuple[str | int, ...]) -> frozenset[str]:
    """Name the keys of the model that stands at `where` below `model`."""
    found = _model_at(model, where)
    if found is None:
        return frozenset()
    return frozenset(field.alias or name for name, field in found.model_fields.items())


def _model_at(annotation: Any, where: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Follow keys and indexes through models, mappings, lists and Optional."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not where:
            return annotation
        fields = annotation.model_fields
        by_key = {field.alias or name: field.annotation for name, field in fields.items()}
        return _model_at(by_key.get(str(where[0])), where[1:])
    arguments = get_args(annotation)
    if get_origin(annotation) in {dict, tuple}:
        return _model_at(arguments[-1] if arguments[-1] is not ... else arguments[0], where[1:])
    inner = (_model_at(argument, where) for argument in arguments)
    return next((model for model in inner if model is not None), None)
