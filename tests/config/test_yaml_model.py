"""The bridge from a YAML tree to a model: types without guessing, findings at their place."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from taskmint.yaml_document import MAX_FINDINGS, parse_document
from taskmint.yaml_model import (
    AnyDuration,
    Boolean,
    Duration,
    FromText,
    Integer,
    Mode,
    Read,
    Text,
    Timestamp,
    YamlModel,
    closest,
    duration_text,
    member,
    read_model,
)


class Colour(StrEnum):
    """Two words."""

    RED = "red"
    BLUE = "blue"


class Inner(YamlModel):
    """A nested mapping."""

    size: Integer
    from_: Annotated[Text, Field(alias="from")] = "here"


class Everything(YamlModel):
    """One field of each type."""

    text: Text | None = None
    number: Annotated[Integer, Field(ge=0, le=10)] | None = None
    flag: Boolean | None = None
    wait: Duration | None = None
    grace: AnyDuration | None = None
    at: Timestamp | None = None
    mode: Mode | None = None
    colour: Annotated[Colour, member(Colour)] | None = None
    word: Annotated[Literal["on-stop", "never"], FromText] | None = None
    inner: Inner | None = None
    many: dict[str, Inner] = Field(default_factory=dict)
    row: tuple[Inner, ...] = ()
    texts: tuple[Text, ...] = ()


def read(text: str) -> Read[Everything]:
    """Read text as Everything."""
    return read_model(Everything, parse_document("f.yaml", text.encode()))


def found(text: str) -> list[str]:
    """The findings of a text; there is no value beside them."""
    result = read(text)
    assert result.value is None
    return [str(finding) for finding in result.findings]


def test_each_type_reads_its_own_form() -> None:
    """Text, numbers, booleans, durations, times, modes and words."""
    value = read(
        "text: 'no'\nnumber: 7\nflag: true\nwait: 90s\ngrace: 0s\nat: 2027-01-31T10:00:00+02:00\n"
        'mode: "0660"\ncolour: red\nword: never\ninner: {size: 1, from: there}\n'
        "many: {size: {size: 2}}\nrow: [{size: 3}]\ntexts: [a, b]\n"
    ).value

    assert value == Everything.model_construct(
        text="no",
        number=7,
        flag=True,
        wait=timedelta(seconds=90),
        grace=timedelta(),
        at=datetime(2027, 1, 31, 8, tzinfo=UTC),
        mode=0o660,
        colour=Colour.RED,
        word="never",
        inner=Inner.model_construct(size=1, from_="there"),
        many={"size": Inner.model_construct(size=2, from_="here")},
        row=(Inner.model_construct(size=3, from_="here"),),
        texts=("a", "b"),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("text: no", 'must be text, and YAML reads this as true or false; write "no"'),
        ("text: 12:30:45", 'must be text, and YAML reads this as a number; write "12:30:45"'),
        ("text: 2027-01-31", 'must be text, and YAML reads this as a date; write "2027-01-31"'),
        ("text:", "has no value; write one, or leave the key out"),
        ("text: [a]", "must be text; write one word or a quoted text"),
        ("number: 1.5", "must be a whole number; write decimal digits without quotes"),
        ("number: '1'", "must be a whole number; write decimal digits without quotes"),
        ("number: 0x10", "must be a whole number; write decimal digits without quotes"),
        ("number: 010", "must be a whole number; write decimal digits without quotes"),
        ("number: 1_000", "must be a whole number; write decimal digits without quotes"),
        ("number: " + "9" * 5000, "must be a whole number; write decimal digits without quotes"),
        (f"number: {2**53}", f"is too large for JSON; write at most {2**53 - 1}"),
        (f"number: -{2**53}", f"is too large for JSON; write at most {2**53 - 1}"),
        ("number: [1]", "must be a whole number; write digits"),
        ("number: 11", "is too large; write at most 10"),
        ("flag: yes", "must be true or false; write true or false, without quotes"),
        ("flag: 'true'", "must be true or false; write true or false, without quotes"),
        ("flag: True", "must be true or false; write true or false, without quotes"),
        ("wait: 90", "must be a duration; write digits and one of ms, s, m, h: 500ms, 90s, 15m"),
        ("wait: 1.5h", "must be a duration; write digits and one of ms, s, m, h: 500ms, 90s, 15m"),
        ("wait: -1s", "must be a duration; write digits and one of ms, s, m, h: 500ms, 90s, 15m"),
        ("wait: 1d", "must be a duration; write digits and one of ms, s, m, h: 500ms, 90s, 15m"),
        ("wait: 87601h", "must be a duration; write at most 87600h"),
        ("wait: {}", "must be a duration; write for example 90s"),
        ("wait: 0s", "must be longer than nothing; write for example 30s"),
        ("at: 2027-01-31", "must be a time with a zone; write RFC 3339: 2027-01-31T08:00:00Z"),
        (
            "at: 2027-01-31T08:00:00",
            "must be a time with a zone; write RFC 3339: 2027-01-31T08:00:00Z",
        ),
        (
            "at: 2027-02-31T08:00:00Z",
            "must be a time with a zone; write RFC 3339: 2027-01-31T08:00:00Z",
        ),
        (
            "at: 0001-01-01T00:00:00+23:00",
            "must be a time with a zone; write RFC 3339: 2027-01-31T08:00:00Z",
        ),
        ("mode: 0660", 'must be text, and YAML reads this as a number; write "0660"'),
        ('mode: "660"', 'must be a file mode; write four octal digits in quotes: "0660"'),
        ('mode: "0680"', 'must be a file mode; write four octal digits in quotes: "0660"'),
        ("colour: green", "is not one of the known words; write one of: red, blue"),
        ("word: on-stp", "is not one of the known words; write 'on-stop' or 'never'"),
        ("inner: x", "must be a mapping; write key: value pairs"),
        ("many: [x]", "must be a mapping; write key: value pairs"),
        ("row: x", "must be a list; write [one, two]"),
        ("inner: {}", "is missing; add it"),
    ],
)
def test_each_type_refuses_the_rest(text: str, expected: str) -> None:
    """The finding says what it must be and what to write instead."""
    (only,) = found(text)

    assert only.split(": ", 2)[2] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("txt: a", "f.yaml:1:1: txt: is not a known key; did you mean text?"),
        ("a: 1\nzzz: 2", "f.yaml:2:1: zzz: is not a known key; known: "),
        (
            "inner: {size: 1, form: x}",
            "f.yaml:1:18: inner.form: is not a known key; did you mean f",
        ),
        ("many: {size: {sise: 1}}", "f.yaml:1:15: many.size.sise: is not a known key; did you me"),
        ("row: [{size: 1}, {siz: 2}]", "f.yaml:1:19: row[1].siz: is not a known key; did you mea"),
        ("inner: {from: x}", "f.yaml:1:8: inner.size: is missing; add it"),
        ("row: [{size: 1}, {size: x}]", "f.yaml:1:25: row[1].size: must be a whole number; write"),
    ],
)
def test_findings_stand_at_the_key_or_value_they_mean(text: str, expected: str) -> None:
    """Unknown keys point at the key, wrong values at the value, missing keys at the mapping."""
    assert any(finding.startswith(expected) for finding in found(text)), found(text)


def test_the_documents_own_findings_are_kept_and_win_their_place() -> None:
    """An alias is one finding, not also a value of the wrong type at the same place."""
    assert found("zzz: &x 1\nnumber: *x\n") == [
        "f.yaml:1:6: zzz: anchors are not allowed; remove &x",
        "f.yaml:2:9: number: aliases are not allowed; write the value out",
        "f.yaml:1:1: zzz: is not a known key; known: " + ", ".join(sorted(Everything.model_fields)),
    ]


def test_an_unreadable_document_has_only_its_own_findings() -> None:
    """Nothing is validated that is not there."""
    (only,) = found("text: [")

    assert "is not YAML" in only


def test_a_document_may_be_valid_and_still_have_findings() -> None:
    """Whoever reads must look at the findings, not only at the value."""
    result = read("text: &x a\n")

    assert result.value is not None
    assert len(result.findings) == 1


def test_findings_are_bounded() -> None:
    """A file of nothing but mistakes does not fill the terminal."""
    assert len(found("\n".join(f"k{n}: 1" for n in range(5000)))) == MAX_FINDINGS


@given(st.integers(0, 87_600), st.sampled_from(["ms", "s", "m", "h"]))
def test_durations_survive_being_written(number: int, unit: str) -> None:
    """What is read and written again is the same duration."""
    value = read(f"grace: {number}{unit}").value
    assert value is not None
    assert value.grace is not None
    again = read(f"grace: {duration_text(value.grace)}").value

    assert again == value


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(), "0ms"),
        (timedelta(milliseconds=1500), "1500ms"),
        (timedelta(seconds=90), "90s"),
        (timedelta(minutes=90), "90m"),
        (timedelta(hours=48), "48h"),
    ],
)
def test_durations_are_written_in_the_largest_whole_unit(duration: timedelta, text: str) -> None:
    """So that a person recognises them."""
    assert duration_text(duration) == text


def test_a_model_writes_json_that_a_person_can_read() -> None:
    """Durations and modes are written as they are read."""
    value = read('wait: 90s\nmode: "0600"\n').value
    assert value is not None

    assert value.model_dump(mode="json", include={"wait", "mode"}) == {
        "wait": "90s",
        "mode": "0600",
    }


@given(st.text(alphabet="abc:{}[],'\"\n -x0", max_size=60))
def test_any_text_is_a_value_or_findings(text: str) -> None:
    """Whatever is written, nothing else is raised."""
    result = read(text)

    assert result.value is not None or result.findings


def test_likeness_is_not_looked_for_among_very_many() -> None:
    """It is slow; then the first words are listed, as for a word like no other."""
    few = frozenset(f"word{number:03}" for number in range(200))

    assert closest("wurd007", few) == "did you mean word007?"
    assert closest("wurd007", few | {"word200"}).startswith("known: word000, word001, ")
