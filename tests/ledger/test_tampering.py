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

COLUMNS = ("event", "task", "state", "at", "facts", "handles", "free_text", "previous", "hash")
READ = "SELECT {} FROM entries WHERE position = ?"
WRITE = "UPDATE entries SET {} = CAST(? AS TEXT) WHERE position = ?"
MOST_BITS_PER_FIELD = 24


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


async def test_the_daemon_refuses_a_ledger_that_does_not_add_up(path: Path) -> None:
    """A bad row near the end: no start, a position, and what to do about it."""
    change(path, "UPDATE entries SET facts = '{}' WHERE position = 6")

    with pytest.raises(Unavailable, match="row 6 of the ledger is edited") as refused:
        async with ledger_at(path.parent):
            pass
    assert "audit verify" in refused.value.fix


def overwrite(path: Path, offset: int, content: bytes) -> None:
    """Put other bytes into the file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


async def test_the_daemon_refuses_a_damaged_file(path: Path) -> None:
    """Zeroes in place of a page: no start, and the reason."""
    overwrite(path, 4096, bytes(4096))

    with pytest.raises(Unavailable, match=r"ledger|SQLite"):
        async with ledger_at(path.parent):
            pass


async def test_a_task_is_not_taken_up_from_a_doubtful_row(path: Path) -> None:
    """A lease id that was changed is not revoked by guess: the restart is told."""
    change(path, 'UPDATE handles SET value = \'{"accessor":"another"}\' WHERE position = 7')

    async with ledger_at(path.parent) as ledger:
        with pytest.raises(Unavailable, match=r"row 7 .* handles do not fit their commitment"):
            await ledger.unfinished()


async def test_a_wrong_projection_is_made_anew_and_said(path: Path) -> None:
    """The rows are the truth: the table of unfinished tasks follows them again, and it is told."""
    change(path, "DELETE FROM unfinished")

    async with ledger_at(path.parent) as ledger:
        (rows,) = await ledger.unfinished()
        assert list(ledger.repaired) == [rows[0].task]
    assert not await asyncio.to_thread(both_find, path)


def rows_of(path: Path) -> list[object]:
    """Return everything that the ledger says, or nothing when it cannot be read."""
    try:
        with LedgerReader.open(path) as reader:
            return [reader.header, *reader.rows()]
    except Unavailable:
        return []
