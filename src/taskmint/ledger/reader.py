"""
A ledger file, read: its header, its rows, what is unfinished, and what is wrong with it.

Opens read-only and takes no lock that a running daemon would notice. It trusts nothing that it
reads: a value of the wrong type becomes a row whose hash does not fit.
"""

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

from taskmint.model.task_id import TaskId

from . import schema
from .chain import SCHEMA, Body, ChainCheck, ChainFinding, FindingKind, Head, Row, genesis
from .connection import Connection, Faulty, connect_reader, translated
from .files import Damaged, refusal
from .rows import ClearValue, StoredRow, clear_damage, damage

_Cell: TypeAlias = str | int | float | bytes | None


@dataclass(frozen=True, slots=True)
class Header:
    """
    Whose ledger this is; the first row follows from it.

    `schema` is that of its tables now, `first_schema` the one that the file was made with.
    """

    schema: int
    node: str
    epoch: str
    first_schema: int

    @property
    def genesis(self) -> str:
        """What the first row follows."""
        return genesis(self.node, self.epoch, self.first_schema)


def read_header(connection: Connection) -> Header:
    """
    Read whose ledger this is; older ones can be read as they are.

    Raises Unavailable(ledger_unavailable) for a schema that this program does not know, and
    Damaged or Faulty for a file that cannot be read as a ledger.
    """
    with translated():
        row = connection.execute(schema.SELECT_HEADER).fetchone()
        if row is None or not isinstance(row[0], int) or row[0] < 1:
            raise Damaged("the ledger has no header that can be read")
        if row[0] > SCHEMA:
            raise refusal(
                f"the ledger has schema {row[0]}; this program knows schemas up to {SCHEMA}",
                "run the version of taskmint that wrote it, or a newer one",
            )
        (first,) = row[:1]
        if first > 1:
            (first,) = connection.execute(schema.SELECT_FIRST_SCHEMA).fetchone()
    return Header(row[0], _text(row[1]) or "", _text(row[2]) or "", first)


class LedgerReader:
    """One snapshot of one file, for one thread; `with LedgerReader.open(path) as reader`."""

    def __init__(self, connection: Connection, header: Header) -> None:
        self._connection = connection
        self.header = header

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator["LedgerReader"]:
        """Open a snapshot. Raises Unavailable(ledger_unavailable), of a damaged file Damaged."""
        try:
            with contextlib.closing(connect_reader(path)) as connection:
                with translated():
                    connection.execute("BEGIN")
                yield cls(connection, read_header(connection))
        except Faulty as error:
            problem = f"{path} cannot be read: {error.fault.reason}"
            raise (Damaged(problem) if error.damaged else refusal(problem)) from error

    def rows(self, after: int = 0) -> Iterator[StoredRow]:
        """Yield the rows behind a position, in order."""
        yield from self._select("WHERE e.position > ? ORDER BY e.position", after)

    def rows_of(self, task: TaskId) -> Iterator[StoredRow]:
        """Yield a task's rows, in order."""
        yield from self._select("WHERE e.task = ? ORDER BY e.position", task)

    def newest(self, count: int) -> tuple[StoredRow, ...]:
        """Return the last rows, oldest first."""
        rows = self._select("ORDER BY e.position DESC LIMIT ?", count)
        return tuple(reversed(tuple(rows)))

    def count(self) -> int:
        """Return how many rows there are."""
        ((count,),) = self._fetch("SELECT count(*) FROM entries")
        return int(count)

    def begins(self) -> int:
        """Return the first row's position; 1 of an empty ledger."""
        ((first,),) = self._fetch("SELECT coalesce(min(position), 1) FROM entries")
        return int(first)

    def head(self) -> Head | None:
        """Return the newest row's position and hash; None of an empty ledger."""
        newest = self.newest(1)
        return Head(newest[0].row.position, newest[0].row.hash) if newest else None

    def unfinished(self, through: int) -> Sequence[Sequence[StoredRow]]:
        """
        Return the rows, up to a position, of every unfinished task, the oldest task first.

        Raises Damaged when one is not what was written.
        """
        rows = tuple(
            self._select(
                "WHERE e.task IN (SELECT task FROM projection) AND e.position <= ? "
                "ORDER BY e.task, e.position",
                through,
            )
        )
        for stored in rows:
            if problem := damage(stored):
                raise Damaged(
                    f"row {stored.row.position} of the ledger is not what was written: {problem}"
                )
        tasks = [tuple(group) for _, group in groupby(rows, key=_task)]
        return sorted(tasks, key=lambda task: task[0].row.position)

    def astray(self) -> tuple[str, ...]:
        """
        Return the tasks of which the table of unfinished tasks does not follow from the rows.

        Raises Damaged when the rows themselves are not to be trusted: they are read by an index.
        """
        found = tuple(str(task) for task, _ in self._fetch(schema.PROJECTION_DIFFERENCES))
        if found:
            ((verdict,),) = self._fetch("PRAGMA integrity_check(1)")
            if verdict != "ok":
                raise Damaged(f"the ledger's file is damaged: {verdict}")
        return found

    def scan(self, *, backwards: bool = False) -> Iterator[Row]:
        """Yield every row by the table alone, for a file whose indexes may be damaged."""
        order = "DESC" if backwards else "ASC"
        return self._by_table(f"{schema.SCAN_ROWS} {order}")

    def newest_of(self, events: Collection[str]) -> Iterator[Row]:
        """Yield the rows of these events, the newest first."""
        return self._by_table(schema.NEWEST_OF, json.dumps([*events]))

    def _by_table(self, statement: str, *values: str) -> Iterator[Row]:
        for cells in self._fetch(statement, values):
            yield _stored((*cells, None, None, None, None)).row

    def handles_of(self, row: Row) -> ClearValue | None:
        """Return the clear handles that stand beside a row."""
        key = (row.body.task or "", row.position)
        for cells in self._fetch(schema.SELECT_HANDLES, key):
            return _clear(*cells)
        return None

    def findings(self, heads: Sequence[Head] = ()) -> Iterator[ChainFinding]:
        """
        Yield everything that is wrong.

        1. SQLite's own structure check; a damaged file is not read further.
        2. The chain (chain.ChainCheck), against heads that were exported.
        3. Clear values against their commitments; those of unfinished tasks are all there.
        4. The projection against the rows.
        """
        try:
            yield from self._structure()
            unfinished = {task for (task,) in self._fetch("SELECT task FROM unfinished")}
            check = ChainCheck(self.header.genesis, heads)
            for stored in self.rows():
                yield from check.feed(stored.row)
                if problem := clear_damage(stored, purged=stored.row.body.task not in unfinished):
                    yield ChainFinding(FindingKind.CLEAR_VALUE, stored.row.position, problem)
            yield from check.finish()
            yield from self._projection()
        except Faulty as error:
            if not error.damaged:
                raise
            yield ChainFinding(FindingKind.UNREADABLE, 0, error.fault.reason)

    def _structure(self) -> Iterator[ChainFinding]:
        for (line,) in self._fetch("PRAGMA quick_check(1)"):
            if line != "ok":
                yield ChainFinding(FindingKind.UNREADABLE, 0, str(line))

    def _projection(self) -> Iterator[ChainFinding]:
        for task, position in self._fetch(schema.PROJECTION_DIFFERENCES):
            detail = f"what stands there of {task} as unfinished does not follow from its rows"
            shown = position if isinstance(position, int) else 0
            yield ChainFinding(FindingKind.PROJECTION, shown, detail)

    def _select(self, tail: str, *values: str | int) -> Iterator[StoredRow]:
        for cells in self._fetch(f"{schema.SELECT_ROWS} {tail}", values):
            yield _stored(cells)

    def _fetch(self, statement: str, values: Sequence[str | int] = ()) -> Iterator[tuple[Any, ...]]:
        with translated():
            yield from self._connection.execute(statement, values)


def _task(stored: StoredRow) -> str:
    return stored.row.body.task or ""


def _stored(cells: tuple[_Cell, ...]) -> StoredRow:
    position, event, task, state, at, facts, handles, free_text, previous, hashed = cells[:10]
    body = Body(
        position if isinstance(position, int) else 0,
        _text(event) or "",
        _text(task),
        _text(state),
        _text(at) or "",
        _text(facts) or "",
        _text(handles),
        _text(free_text),
    )
    row = Row(body, _text(previous) or "", _text(hashed) or "")
    return StoredRow(row, _clear(*cells[10:12]), _clear(*cells[12:14]))


def _text(cell: _Cell) -> str | None:
    return cell if cell is None or isinstance(cell, str) else repr(cell)


def _clear(salt: _Cell, value: _Cell) -> ClearValue | None:
    if salt is None and value is None:
        return None
    return ClearValue(salt if isinstance(salt, bytes) else b"", _text(value) or "")
