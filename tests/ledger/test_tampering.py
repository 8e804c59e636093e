"""A written file, changed behind the daemon's back: our verifier and the independent one see it."""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger import independent_verifier
from ledger.lives import a_task, accessor, active, intent, ledger_at, life, written
from taskmint.errors import Unavailable
from taskmint.ledger.chain import ChainFinding, FindingKind, Head
from taskmint.ledger.export import row_json
from taskmint.ledger.reader import LedgerReader
from taskmint.ports import Event

COLUMNS = ("event", "task", "state", "at", "facts", "handles", "free_text", "previous", "hash")
READ = "SELECT {} FROM entries WHERE position = ?"
WRITE = "UPDATE entries SET {} = CAST(? AS TEXT) WHERE position = ?"
MOST_BITS_PER_FIELD = 24
STARTS = 4
FLIPS_PER_START = 61  # 4 times, each at other offsets


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Return a closed ledger: one finished task, one that is not."""
    going = a_task()
    entries = (*life(a_task()), intent(going), accessor(going), active(going))
    return await written(tmp_path / "ledger", *entries)


def findings(path: Path, *heads: Head) -> list[ChainFinding]:
    """Return what our verifier finds."""
    with LedgerReader.open(path) as reader:
        return list(reader.findings(heads))


def both_find(path: Path, *heads: Head) -> bool:
    """Whether something is wrong; the two verifiers must agree on that."""
    try:
        ours = bool(findings(path, *heads))
    except Unavailable:
        ours = True  # refused outright, with a reason
    theirs = bool(independent_verifier.verify(path, {head.position: head.hash for head in heads}))
    assert ours == theirs
    return ours


def change(path: Path, statement: str, *values: object) -> None:
    """Edit the file with SQLite's own means, as somebody with a shell would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute(statement, values)


def fetch(path: Path, query: str, *values: object) -> tuple[Any, ...]:
    """Return one row of a query."""
    with closing(sqlite3.connect(path)) as database:
        row: tuple[Any, ...] = database.execute(query, values).fetchone()
        return row


def head_of(path: Path) -> Head:
    """Return the newest row's head."""
    with LedgerReader.open(path) as reader:
        head = reader.head()
    assert head is not None
    return head


def flips(value: bytes) -> Iterator[bytes]:
    """Yield the value with one bit flipped, at offsets spread over the whole of it."""
    bits = len(value) * 8
    step = max(1, bits // MOST_BITS_PER_FIELD) | 1  # odd: every bit of a byte has its turn
    for bit in range(0, bits, step):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def test_an_untouched_ledger_is_intact(path: Path) -> None:
    """Both verifiers find nothing wrong in what the daemon wrote."""
    assert not both_find(path, head_of(path))


@pytest.mark.parametrize("column", COLUMNS)
def test_a_flipped_bit_in_any_field_shows(path: Path, column: str) -> None:
    """Every text column, at many offsets, in rows of a finished and of a running task."""
    for position in (1, 4, 7):
        (value,) = fetch(path, READ.format(column), position)
        if value is None:
            continue
        for flipped in flips(value.encode()):
            change(path, WRITE.format(column), flipped, position)

            assert both_find(path), (position, flipped)
        change(path, WRITE.format(column), value.encode(), position)
    assert not both_find(path)


@pytest.mark.parametrize("bit", range(0, 63, 3))
def test_a_flipped_bit_in_a_position_shows(path: Path, bit: int) -> None:
    """A row that moves away leaves a hole and lands where it does not fit."""
    moved = 4 ^ 1 << bit
    change(path, "DELETE FROM entries WHERE position = ?", moved)
    change(path, "UPDATE entries SET position = ? WHERE position = 4", moved)

    assert both_find(path)


@pytest.mark.parametrize("position", range(1, 9))
def test_deletion_shows(path: Path, position: int) -> None:
    """Any one row missing is seen; the newest only by whoever kept a head, or the projection."""
    head = head_of(path)
    change(path, "DELETE FROM entries WHERE position = ?", position)

    assert both_find(path, head)


@pytest.mark.parametrize("first", range(1, 8))
def test_reordering_shows(path: Path, first: int) -> None:
    """Two rows that trade places are seen."""
    for old, new in ((first, -1), (first + 1, first), (-1, first + 1)):
        change(path, "UPDATE entries SET position = ? WHERE position = ?", new, old)

    assert both_find(path)


async def test_truncation_shows_against_a_head(tmp_path: Path) -> None:
    """Whole finished tasks cut off the end leave a ledger that is whole; a kept head tells."""
    path = await written(tmp_path / "ledger", *life(a_task()), *life(a_task()))

    def truncate_and_look() -> None:
        head = head_of(path)
        change(path, "DELETE FROM entries WHERE position > 5")
        change(path, "DELETE FROM free_text WHERE position > 5")

        assert not both_find(path)
        assert both_find(path, head)
        assert [finding.kind for finding in findings(path, head)] == [FindingKind.TRUNCATED]

    await asyncio.to_thread(truncate_and_look)


async def test_rollback_shows_against_a_head(tmp_path: Path) -> None:
    """An old copy put back, and written on, is not what was exported."""
    path = await written(tmp_path / "ledger", *life(a_task()))
    old = shutil.copy(path, tmp_path / "old.db")
    await written(tmp_path / "ledger", *life(a_task()))
    head = await asyncio.to_thread(head_of, path)
    shutil.copy(old, path)

    found = await asyncio.to_thread(findings, path, head)
    assert [finding.kind for finding in found] == [FindingKind.TRUNCATED]

    await written(tmp_path / "ledger", *life(a_task()), *life(a_task()))

    assert not await asyncio.to_thread(both_find, path)
    assert await asyncio.to_thread(both_find, path, head)
    found = await asyncio.to_thread(findings, path, head)
    assert [finding.kind for finding in found] == [FindingKind.REWRITTEN]


@pytest.mark.parametrize(
    "statement",
    [
        'UPDATE free_text SET value = \'{"purpose":"another"}\'',
        "UPDATE free_text SET salt = zeroblob(32) WHERE position = 1",
        'UPDATE handles SET value = \'{"accessor":"another"}\'',
        "DELETE FROM handles WHERE position = 7",
        "DELETE FROM free_text WHERE position = 6",
        "INSERT INTO free_text VALUES (2, zeroblob(32), '{}')",
        "DELETE FROM unfinished",
        "UPDATE unfinished SET state = 'revoked'",
        "UPDATE unfinished SET position = 6",
        "INSERT INTO unfinished VALUES ('tm_00000000000000000000000000', 'active', 1)",
        "UPDATE header SET node = 'node-2'",
        "UPDATE header SET epoch = '00'",
    ],
)
def test_what_stands_beside_the_chain_is_checked_too(path: Path, statement: str) -> None:
    """Clear values, the projection and the header: none can be changed unseen."""
    change(path, statement)

    assert both_find(path)


def test_text_that_is_no_text_is_found_and_still_exported(path: Path) -> None:
    """Bytes that are no UTF-8 where text should be: a finding, and a line in the export."""
    change(path, "UPDATE free_text SET value = CAST(x'ff' AS TEXT) WHERE position = 1")
    change(path, "UPDATE entries SET facts = CAST(x'7bff7d' AS TEXT) WHERE position = 8")

    with LedgerReader.open(path) as reader:
        exported = [row_json(stored) for stored in reader.rows()]

    assert both_find(path)
    assert exported[7]["facts"] == "{\udcff}"


def test_a_purged_free_text_is_no_finding(path: Path) -> None:
    """A finished task's clear values may go: that is what retention does."""
    change(path, "DELETE FROM free_text WHERE position = 1")

    assert not both_find(path)


def test_a_damaged_file_is_never_silently_different(path: Path, tmp_path: Path) -> None:
    """A bit flipped anywhere in the file: it is found, or every row still reads the same."""
    original, whole = path.read_bytes(), rows_of(path)
    damaged = tmp_path / "damaged.db"
    found = 0
    for offset in range(0, len(original), max(1, len(original) // 251)):
        flipped = bytearray(original)
        flipped[offset] ^= 1 << offset % 8
        damaged.write_bytes(flipped)
        try:
            wrong = bool(findings(damaged))
        except Unavailable:
            wrong = True
        found += wrong

        assert wrong or rows_of(damaged) == whole, offset
    assert found > 0


async def test_p8_a_ledger_that_does_not_add_up_tells_what_to_take_back_and_takes_no_row(
    path: Path,
) -> None:
    """A bad row near the end: its position, no row behind it, and the running task's handles."""
    change(path, "UPDATE entries SET facts = '{}' WHERE position = 5")

    async with ledger_at(path.parent) as ledger:
        with pytest.raises(Unavailable, match="row 5 of the ledger is edited"):
            await ledger.append(intent(a_task()))
        found = await ledger.unfinished()

    assert "row 5 of the ledger is edited" in (found.doubt or "")
    events = [[entry.event for entry in rows] for rows in found.tasks]
    # Row 5 finished the other task; it is not believed, so what is left of that one comes too.
    assert events == [
        [Event.INTENT, Event.ENDING],
        [Event.INTENT, Event.ACCESSOR, Event.ACTIVE],
    ]
    assert found.tasks[1][1].handles == {"accessor": f"accessor-of-{found.tasks[1][1].task}"}
    assert (await asyncio.to_thread(head_of, path)).position == 8


def overwrite(path: Path, offset: int, content: bytes) -> None:
    """Put other bytes into the file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


async def test_p8_a_damaged_file_is_opened_in_doubt(path: Path) -> None:
    """Zeroes in place of a page: nothing is written, and what it says is in doubt."""
    overwrite(path, 4096, bytes(4096))

    async with ledger_at(path.parent) as ledger:
        assert ledger.ready() is not None
        assert (await ledger.unfinished()).doubt is not None


async def test_a_doubtful_row_stops_the_ledger_and_its_handles_are_not_used(path: Path) -> None:
    """An accessor that was changed is not revoked by guess, the lease beside it is."""
    change(path, 'UPDATE handles SET value = \'{"accessor":"another"}\' WHERE position = 7')

    async with ledger_at(path.parent) as ledger:
        assert ledger.ready() is None  # the chain is whole: what stands beside it is not
        (rows,) = (found := await ledger.unfinished()).tasks
        with pytest.raises(Unavailable, match=r"row 7 .* handles do not fit their commitment"):
            await ledger.append(intent(a_task()))

    assert "row 7" in (found.doubt or "")
    assert [entry.event for entry in rows] == [Event.INTENT, Event.ACTIVE]


async def test_p8_a_damaged_table_definition_that_is_no_text_is_doubt(path: Path) -> None:
    """SQLite quotes it in its error, which Python then cannot decode: damage all the same."""
    whole = await asyncio.to_thread(path.read_bytes)
    offset = whole.index(b"task, state, max(position)")
    await asyncio.to_thread(overwrite, path, offset, b"\xe5ask")

    async with ledger_at(path.parent) as ledger:
        found = await ledger.unfinished()

    assert "no text" in (found.doubt or "")
    assert [entry.event for entry in found.tasks[0]] == [Event.INTENT, Event.ACCESSOR, Event.ACTIVE]


@pytest.mark.parametrize("part", range(STARTS))
async def test_p8_a_flipped_bit_anywhere_never_loses_a_running_task_in_silence(
    path: Path, tmp_path: Path, part: int
) -> None:
    """A bit flipped at any offset: the same tasks, or doubt, or a refused start; never fewer."""
    original = path.read_bytes()
    async with ledger_at(path.parent) as ledger:
        whole = await ledger.unfinished()
    doubted = 0
    for offset in range(part, len(original), len(original) // FLIPS_PER_START):
        flipped = bytearray(original)
        flipped[offset] ^= 1 << offset % 8
        damaged = tmp_path / f"at-{offset}"
        await asyncio.to_thread(_lay, damaged, bytes(flipped))
        try:
            async with ledger_at(damaged) as ledger:
                found = await ledger.unfinished()
        except Unavailable:
            continue
        doubted += found.doubt is not None

        assert found.doubt is not None or found == whole, offset
    assert doubted > 0


def _lay(directory: Path, content: bytes) -> None:
    directory.mkdir(mode=0o700)
    (directory / "ledger.db").write_bytes(content)
    (directory / "ledger.db").chmod(0o600)


async def test_a_wrong_projection_is_made_anew_and_said(path: Path) -> None:
    """The rows are the truth: the table of unfinished tasks follows them again, and it is told."""
    change(path, "DELETE FROM unfinished")

    async with ledger_at(path.parent) as ledger:
        (rows,) = (await ledger.unfinished()).tasks
        assert list(ledger.repaired) == [rows[0].task]
    assert not await asyncio.to_thread(both_find, path)


def rows_of(path: Path) -> list[object]:
    """Return everything that the ledger says, or nothing when it cannot be read."""
    try:
        with LedgerReader.open(path) as reader:
            return [reader.header, *reader.rows()]
    except Unavailable:
        return []
