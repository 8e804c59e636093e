"""
A ledger's file to what was going on when its last row was written, also from a damaged file.

From a whole file: the unfinished tasks, each row as it was written. From a damaged one: what can
still be read of them and fits its own hash, good enough to take things back by and for nothing
else. A row that does not fit is not believed, and no lease is guessed from a handle that does not
open its commitment.
"""

import contextlib
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from taskmint.model.state import TERMINAL
from taskmint.ports import Entry, Unfinished

from .chain import Row, fits_hash, is_intact
from .connection import Faulty, connect_reader
from .files import Damaged, refusal
from .reader import Header, LedgerReader
from .rows import StoredRow, entry_of


@dataclass(frozen=True, slots=True)
class Opened:
    """
    What a writer found: `position` of the newest row then, None while it has written none of its
    own, and the `doubt` about it. Rows behind that position are of tasks that it knows.
    """

    position: int | None
    doubt: str | None


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was unfinished; `astray` are tasks that the table of unfinished tasks has wrong."""

    unfinished: Unfinished
    astray: tuple[str, ...] = ()


def remembered(path: Path, opened: Callable[[], Opened]) -> Remembered:
    """
    Read what was unfinished when the file was opened; `opened` is asked once a snapshot stands.

    The rows decide, and the table that is kept of them is compared with them. Raises
    Unavailable(ledger_unavailable) when the file cannot be read now.
    """
    doubt = opened().doubt
    if doubt is None:
        try:
            with LedgerReader.open(path) as reader:
                rows = reader.unfinished(_through(opened()))
                return Remembered(Unfinished(_entries(path, rows)), reader.astray())
        except Damaged as error:
            doubt = error.detail
    return Remembered(Unfinished(_entries(path, _salvaged(path, opened)), doubt))


def show_newest_first(path: Path, events: Collection[str], look: Callable[[Entry], bool]) -> None:
    """
    Show the rows of these events, without clear values, to `look` until it returns False.

    Raises Damaged at a row whose hash does not fit, Unavailable(ledger_unavailable) when the file
    cannot be read. These may be many: the canonical form of their facts, which costs the most and
    shows only who moved text between fields, is left to `taskmint audit verify`.
    """
    with LedgerReader.open(path) as reader:
        for row in reader.newest_of(events):
            if not fits_hash(row):
                raise Damaged(f"row {row.position} of the ledger is not what was written")
            if not look(_entry(path, StoredRow(row, None, None))):
                return


def _through(opened: Opened) -> int:
    """Whoever has not stood ready when the snapshot began has no row in it."""
    return sys.maxsize if opened.position is None else opened.position


def _entries(path: Path, tasks: Sequence[Sequence[StoredRow]]) -> Sequence[Sequence[Entry]]:
    return [[_entry(path, stored) for stored in rows] for rows in tasks]


def _entry(path: Path, stored: StoredRow) -> Entry:
    try:
        return entry_of(stored)
    except ValueError as error:
        raise refusal(f"a newer version of taskmint wrote the ledger {path}: {error}") from error


def _salvaged(path: Path, opened: Callable[[], Opened]) -> Sequence[Sequence[StoredRow]]:
    """
    Return what can be believed of every task without an intact row that finishes it.

    1. Read the table of rows from both ends: what lies before and behind a damaged page.
    2. Believe rows whose hash fits their fields.
    3. Leave out rows whose handles are gone or do not open their commitment.
    """
    try:
        with contextlib.closing(connect_reader(path)) as connection:
            through = _through(opened())
            reader = LedgerReader(connection, Header(0, "", "", 0))
            finished = {row.body.task for row in _readable(reader) if _finishes(row)}
            tasks: defaultdict[str, dict[int, StoredRow]] = defaultdict(dict)
            for row in _readable(reader):
                task = row.body.task
                if task is None or task in finished or row.position > through:
                    continue
                if not is_intact(row):
                    continue
                if stored := _with_handles(reader, row):
                    tasks[task][row.position] = stored
    except Faulty as error:
        if not error.damaged:
            raise refusal(f"{path} cannot be read: {error.fault.reason}") from error
        return ()  # not a page of it can be read; the doubt says so
    return [[rows[position] for position in sorted(rows)] for rows in tasks.values()]


def _readable(reader: LedgerReader) -> Iterator[Row]:
    """Yield rows from both ends as far as they can be read; a whole table comes twice."""
    return chain(_until_damage(reader, backwards=False), _until_damage(reader, backwards=True))


def _until_damage(reader: LedgerReader, *, backwards: bool) -> Iterator[Row]:
    try:
        yield from reader.scan(backwards=backwards)
    except Faulty as error:
        if error.fault.passing:
            raise


def _finishes(row: Row) -> bool:
    return row.body.state in TERMINAL and is_intact(row)


def _with_handles(reader: LedgerReader, row: Row) -> StoredRow | None:
    if row.body.handles is None:
        return StoredRow(row, None, None)
    try:
        handles = reader.handles_of(row)
    except Faulty:
        return None
    if handles is None or not handles.opens(row.body.handles):
        return None
    return StoredRow(row, handles, None)
