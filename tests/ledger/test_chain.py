"""The chain: rows to hashes, and what is wrong with rows."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from ledger import independent_verifier
from ledger.lives import START, a_task, life
from taskmint.canonical import canonical
from taskmint.ledger.chain import (
    Body,
    ChainFinding,
    FindingKind,
    Head,
    Row,
    body_bytes,
    genesis,
    is_intact,
    link,
    verify,
)
from taskmint.ledger.rows import instant, prepare
from taskmint.ports import Entry, Event

GENESIS = genesis("node-1", "00" * 16)
SALTS = bytes(range(64))

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | text
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(text, values, max_size=4)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)


def chain(*entries: Entry, start: str = GENESIS) -> tuple[Row, ...]:
    """Return the rows that a new ledger would hold."""
    rows: list[Row] = []
    for position, entry in enumerate(entries, 1):
        previous = rows[-1].hash if rows else start
        rows.append(link(previous, prepare(entry, SALTS).at_position(position)))
    return tuple(rows)


def kinds(rows: Sequence[Row], *heads: Head) -> set[FindingKind]:
    """Return the kinds of what is wrong."""
    return {finding.kind for finding in verify(rows, GENESIS, heads)}


def head_of(row: Row) -> Head:
    """Return the head that was exported when this row was the newest."""
    return Head(row.position, row.hash)


def relinked(rows: Sequence[Row], start: str) -> tuple[Row, ...]:
    """Return the rows as a forger leaves them who recomputes every hash."""
    forged: list[Row] = []
    for row in rows:
        forged.append(link(forged[-1].hash if forged else start, row.body))
    return tuple(forged)


@given(text, text | st.none(), text | st.none(), objects, digests | st.none(), digests | st.none())
def test_a_body_is_the_canonical_form_of_its_object(
    event: str,
    task: str | None,
    state: str | None,
    facts: dict[str, Any],
    handles: str | None,
    free_text: str | None,
) -> None:
    """What is hashed is RFC 8785 of the documented object, whatever stands in the fields."""
    at = instant(START)
    canonical_facts = rfc8785.dumps(facts).decode()
    body = Body(7, event, task, state, at, canonical_facts, handles, free_text)

    assert body_bytes(body) == rfc8785.dumps(
        {
            "at": at,
            "event": event,
            "facts": facts,
            "free_text": free_text,
            "handles": handles,
            "position": 7,
            "state": state,
            "task": task,
        }
    )


@given(values)
def test_the_independent_verifier_writes_the_same_canonical_form(value: Any) -> None:
    """Two writings of RFC 8785, one of them by hand from the RFC, agree on any JSON value."""
    assert independent_verifier.canonical(value).encode() == rfc8785.dumps(value)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (333333333.33333329, "333333333.3333333"),
        (math.nextafter(1, 2), "1.0000000000000002"),
    ],
)
def test_numbers_follow_the_examples_of_the_rfc(value: float, written: str) -> None:
    """Numbers are written as ECMAScript does (RFC 8785, appendix B)."""
    assert canonical(value) == written.encode()
    assert independent_verifier.number(value) == written


def test_a_whole_ledger_is_intact() -> None:
    """Rows as the writer makes them have nothing wrong, with their own heads at hand."""
    rows = chain(*life(a_task()), *life(a_task()))

    assert kinds(rows, head_of(rows[3]), head_of(rows[-1])) == set()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Body)])
def test_an_edited_field_shows_at_its_row(field: str) -> None:
    """Whatever field of whatever row is changed, that row's hash no longer fits."""
    rows = list(chain(*life(a_task())))
    for index, row in enumerate(rows):
        old = getattr(row.body, field)
        new: dict[str, Any] = {field: old + 1 if isinstance(old, int) else f"{old or ''}x"}
        edited = dataclasses.replace(row.body, **new)
        changed = [*rows[:index], Row(edited, row.previous, row.hash), *rows[index + 1 :]]

        assert FindingKind.EDITED in kinds(changed)


def test_an_edit_with_its_hash_recomputed_shows_at_the_next_row() -> None:
    """A forger who recomputes one hash breaks the link behind it."""
    rows = list(chain(*life(a_task())))
    rows[1] = link(rows[1].previous, dataclasses.replace(rows[1].body, state="active"))

    assert [(f.kind, f.position) for f in verify(rows, GENESIS)] == [(FindingKind.UNLINKED, 3)]


def test_a_recomputed_chain_shows_against_an_exported_head() -> None:
    """A forger who recomputes everything is consistent, but is not what was exported."""
    rows = chain(*life(a_task()))
    forged = relinked(
        [rows[0], link("", dataclasses.replace(rows[1].body, at="x")), *rows[2:]], GENESIS
    )

    assert kinds(forged) == set()
    assert kinds(forged, head_of(rows[2])) == {FindingKind.REWRITTEN}


def test_every_exported_head_counts() -> None:
    """Two heads of one position that differ prove a rewriting, whichever of them fits now."""
    row = chain(*life(a_task()))[0]
    other = Head(1, "00" * 32)

    for heads in ((head_of(row), other), (other, head_of(row))):
        assert kinds((row,), *heads) == {FindingKind.REWRITTEN}


def test_deletion_in_the_middle_shows() -> None:
    """Missing positions are a finding, with or without recomputed hashes."""
    rows = chain(*life(a_task()))
    without = (*rows[:2], *rows[3:])

    assert kinds(without) == {FindingKind.MISSING}
    assert kinds(relinked(without, GENESIS)) == {FindingKind.MISSING}


def test_reordered_rows_show() -> None:
    """Rows in another order are out of order; rows that traded positions are edited."""
    rows = chain(*life(a_task()))
    traded = [
        Row(dataclasses.replace(rows[2].body, position=2), rows[1].previous, rows[2].hash),
        Row(dataclasses.replace(rows[1].body, position=3), rows[2].previous, rows[1].hash),
    ]

    assert FindingKind.OUT_OF_ORDER in kinds((rows[1], rows[0], *rows[2:]))
    assert FindingKind.EDITED in kinds((rows[0], *traded, *rows[3:]))


def test_truncation_shows_only_against_an_exported_head() -> None:
    """Missing newest rows leave a chain that is whole; the head that was exported tells."""
    rows = chain(*life(a_task()))

    assert kinds(rows[:-1]) == set()
    assert kinds(rows[:-1], head_of(rows[-1])) == {FindingKind.TRUNCATED}
    assert kinds((), head_of(rows[0])) == {FindingKind.TRUNCATED}


def test_rollback_and_new_rows_show_against_an_exported_head() -> None:
    """A ledger set back and continued has another row where the head was."""
    rows = chain(*life(a_task()))
    entries = (*list(life(a_task()))[:2],)
    continued = list(rows[:3])
    for entry in entries:
        last = continued[-1]
        continued.append(link(last.hash, prepare(entry, SALTS).at_position(last.position + 1)))

    assert kinds(continued) == set()
    assert kinds(continued, head_of(rows[-1])) == {FindingKind.REWRITTEN}


def test_another_nodes_rows_do_not_follow_from_this_header() -> None:
    """The first row is tied to node, file and schema."""
    rows = chain(*life(a_task()), start=genesis("node-2", "00" * 16))

    assert kinds(rows) == {FindingKind.UNLINKED}


def test_a_missing_beginning_needs_a_retention_row() -> None:
    """Rows may be missing in front only when a later row of this ledger vouches for them."""
    removed: dict[str, Any] = {"through": 2, "hash": "", "genesis": GENESIS}
    rows = chain(*life(a_task()))
    vouching = Entry(Event.RETENTION, START, facts={**removed, "hash": rows[1].hash})
    foreign = Entry(
        Event.RETENTION, START, facts={**removed, "hash": rows[1].hash, "genesis": "00" * 32}
    )

    def continued(entry: Entry) -> tuple[Row, ...]:
        return (*rows[2:], link(rows[-1].hash, prepare(entry, SALTS).at_position(6)))

    assert kinds(rows[2:]) == {FindingKind.MISSING}
    assert kinds(continued(foreign)) == {FindingKind.MISSING}
    assert kinds(continued(vouching)) == set()
    assert kinds(continued(vouching), head_of(rows[0])) == set()


@pytest.mark.parametrize(
    "facts",
    [
        '{"a": 1}',
        '{"b":1,"a":2}',
        '{"a":1,"a":1}',
        '{"a":1.0}',
        '{"a":NaN}',
        '{"a":"\\u00e9"}',
        "[]",
        "7",
        "",
        "{",
        "[" * 100_000,
        '{"a":"\ud800"}',
    ],
)
def test_facts_that_are_not_canonical_are_an_edit(facts: str) -> None:
    """Text that means the same is not the same: nothing can hide behind a second spelling."""
    body = dataclasses.replace(chain(*life(a_task()))[0].body, facts=facts)
    try:
        row = link(GENESIS, body)
    except ValueError:
        row = Row(body, GENESIS, "00" * 32)

    assert not is_intact(row)


def test_text_cannot_move_between_columns() -> None:
    """Two sets of columns that are hashed as the same bytes are not both intact."""
    honest = chain(*life(a_task()))[0]
    free = json.dumps(honest.body.free_text)
    moved = dataclasses.replace(honest.body, facts=f'{honest.body.facts},"free_text":{free}')

    assert not is_intact(Row(moved, honest.previous, honest.hash))


@pytest.mark.parametrize(
    "junk", ["", "1", "1:ab", "0:" + "a" * 64, "-1:" + "a" * 64, "1:" + "A" * 64]
)
def test_a_head_is_read_strictly(junk: str) -> None:
    """Junk is no head; what a head prints is read as the same head."""
    head = Head(12, "ab" * 32)

    assert Head.parse(str(head)) == head
    with pytest.raises(ValueError, match="POSITION:HASH"):
        Head.parse(junk)


def test_findings_say_where() -> None:
    """A finding names the position at which it shows."""
    rows = chain(*life(a_task()))

    assert list(verify(rows[:2], GENESIS, [head_of(rows[4])])) == [
        ChainFinding(FindingKind.TRUNCATED, 5, "it was exported as head, but the newest row is 2")
    ]
