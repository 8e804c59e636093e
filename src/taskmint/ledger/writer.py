"""
The one writer of a ledger file: everything here runs on the one thread that GroupCommit owns.

A failed commit is never tried again on the same connection: after a failed fsync the kernel may
have dropped what it could not write, and a second fsync would succeed over the hole.
"""

import os
import secrets
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from taskmint.errors import Unavailable
from taskmint.failpoints import Failpoint, Failpoints
from taskmint.ports import Entry, Event

from . import migrations, schema
from .chain import SCHEMA, ChainCheck, Head, Row, link
from .connection import Connection, Fault, Faulty, connect_reader, connect_writer, translated
from .files import Damaged, claim, refusal
from .reader import Header, LedgerReader, read_header
from .rows import Prepared, prepare

CHECKED_ROWS: Final = 1000  # at the end of the chain, at each opening


class LedgerWriter:
    """
    Appends prepared entries to the file at `path`, for the node `node`.

    `head`, `fault` and `doubt` may be read from other threads; each is replaced, never changed.
    `fault` says why rows cannot be written now, `doubt` why this file is not written to any more:
    rows behind damage would vouch for what nobody can check. `opened_at` is the newest position
    when it first stood ready: what stands behind it is our own. `migrated_from` is the schema that
    an older file had.
    """

    def __init__(self, path: Path, node: str, failpoints: Failpoints) -> None:
        self._path = path
        self._node = node
        self._failpoints = failpoints
        self._lock: int | None = None
        self._connection: Connection | None = None
        self.head = Head(0, "")
        self.genesis = ""
        self.fault: Fault | None = None
        self.doubt: str | None = None
        self.created = False
        self.migrated_from: int | None = None
        self.opened_at: int | None = None

    def open(self) -> None:
        """
        Take the file, check it, and stand ready to append.

        1. The place is safe and no other process writes there (files.claim).
        2. A new file gets its header; an old one is a ledger of ours, of a schema that we know,
           of this node. Until that is seen it is only read.
        3. Its last rows follow from each other, and the first from the header.
        4. The tables of an older schema are brought to ours.

        Raises Unavailable(ledger_unavailable) when 1 or 2 say that this is not ours to write to.
        When it is ours and 3, 4 or the disk say no, `doubt` or `fault` tell why afterwards: what it
        lists as unfinished must be taken back, not left alone.
        """
        self._lock = claim(self._path)
        try:
            self._stand()
        except Damaged as error:
            self.doubt = error.detail
            self._disconnect()
        except Faulty as error:
            self._fail(error)
            self._disconnect()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file and let go of the lock."""
        self._disconnect()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def append(self, batch: Sequence[Prepared]) -> None:
        """
        Commit the batch as one transaction; return when it is on stable storage.

        Raises Unavailable(ledger_unavailable); then the rows may or may not be there.
        """
        connection = self._usable()
        head = self.head
        values: list[str | int | bytes | None] = []
        for prepared in batch:
            row = link(head.hash, prepared.at_position(head.position + 1))
            head = Head(row.position, row.hash)
            values += _cells(row, prepared)
        try:
            with translated():
                self._failpoints.reach(Failpoint.LEDGER_BEFORE_COMMIT)
                connection.execute(schema.insert_rows(len(batch)), values)
                self._failpoints.reach(Failpoint.LEDGER_AFTER_COMMIT)
        except Faulty as error:
            raise self._fail(error) from error
        self.head = head

    def recover(self) -> None:
        """
        After a passing fault: open anew, check the end of the chain, and make one durable write.

        Raises Unavailable(ledger_unavailable) while that does not work.
        """
        if self.doubt or self.fault is None or not self.fault.passing:
            return
        self._disconnect()
        try:
            connection = self._stand()
            with translated():
                connection.execute(schema.COUNT_RECOVERY)
        except Damaged as error:
            self.doubt = error.detail
            raise
        except Faulty as error:
            raise self._fail(error) from error
        self.fault = None

    def rebuild_projection(self) -> None:
        """
        Make the table of unfinished tasks anew from the rows.

        Raises Unavailable(ledger_unavailable).
        """
        connection = self._usable()
        try:
            with translated():
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(schema.CLEAR_PROJECTION)
                connection.execute(schema.REBUILD_PROJECTION)
                connection.execute("COMMIT")
        except Faulty as error:
            raise self._fail(error) from error

    def purge_free_text(self, at: str, most: int) -> int:
        """
        Purge up to `most` free texts of finished tasks whose row is older; say how many.

        Raises Unavailable(ledger_unavailable).
        """
        connection = self._usable()
        try:
            with translated():
                values = {"at": at, "before": _first_not_before(connection, at), "most": most}
                return connection.execute(schema.PURGE_FREE_TEXT, values).rowcount
        except Faulty as error:
            raise self._fail(error) from error

    def remove_rows(self, at: str, most: int, now: datetime) -> int:
        """
        Remove up to `most` of the oldest rows, older than `at`; return how many are gone.

        In one transaction a row RETENTION is appended that vouches for them. What an unfinished
        task wrote, and whatever stands behind it, stays. Raises Unavailable(ledger_unavailable).
        """
        connection = self._usable()
        try:
            with translated():
                bounds = {"at": at, "before": _first_not_before(connection, at), "most": most}
                through, first = connection.execute(schema.SELECT_REMOVABLE, bounds).fetchone()
                if first is None or through < first:
                    return 0
                (hashed,) = connection.execute(schema.SELECT_HASH, (through,)).fetchone()
                facts = {"genesis": self.genesis, "hash": hashed, "through": through}
                prepared = prepare(Entry(Event.RETENTION, now, facts=facts), b"")
                row = link(self.head.hash, prepared.at_position(self.head.position + 1))
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(schema.insert_rows(1), _cells(row, prepared))
                for statement in schema.REMOVE_ROWS:
                    connection.execute(statement, (through,))
                connection.execute("COMMIT")
        except Faulty as error:
            raise self._fail(error) from error
        self.head = Head(row.position, row.hash)
        return int(through - first + 1)

    # --- steps ---------------------------------------------------------------------------------

    def _stand(self) -> Connection:
        """Connect and do steps 2 to 4 of `open`. Raises Faulty, Damaged, Unavailable."""
        with closing(connect_reader(self._path)) as looking:
            known = self._recognised(looking)
        connection = self._connection = connect_writer(self._path)
        header = known or self._create(connection)
        self.genesis = header.genesis
        self.head = self._checked_head(connection, header)
        if header.schema < SCHEMA:
            self._migrate(connection, header.schema)
        if self.opened_at is None:
            self.opened_at = self.head.position
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _usable(self) -> Connection:
        if self.doubt is not None:
            raise refusal(self.doubt)
        if self.fault is not None:
            raise refusal(self.fault.reason)
        if self._connection is None:
            raise refusal("the ledger is not open")
        return self._connection

    def _fail(self, error: Faulty) -> Unavailable:
        self.fault = error.fault
        if error.damaged:
            self.doubt = error.fault.reason
        return refusal(error.fault.reason)

    def _recognised(self, connection: Connection) -> Header | None:
        """Return whose ledger this is, None of a new file. Raises Unavailable for another's."""
        with translated():
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            (application,) = connection.execute("PRAGMA application_id").fetchone()
        if not tables and not application:
            return None
        if application != schema.APPLICATION_ID:
            raise refusal(f"{self._path} is a database, but not a ledger of taskmint")
        header = read_header(connection)
        if header.node != self._node:
            raise refusal(
                f"the ledger {self._path} belongs to node {header.node!r}, not to {self._node!r}",
                "a ledger is not copied between nodes; set node.id back, or move the file away",
            )
        return header

    def _create(self, connection: Connection) -> Header:
        header = Header(SCHEMA, self._node, secrets.token_hex(16), SCHEMA)
        with translated():
            connection.execute("BEGIN IMMEDIATE")
            for statement in schema.CREATE:
                connection.execute(statement)
            values = {"schema": SCHEMA, "node": header.node, "epoch": header.epoch}
            connection.execute(schema.INSERT_HEADER, values)
            connection.execute("COMMIT")
        self.created = True
        return header

    def _migrate(self, connection: Connection, old: int) -> None:
        """In one transaction: every step that is due, a row that says so, the new schema."""
        facts = {"from": old, "to": SCHEMA}
        prepared = prepare(Entry(Event.LEDGER_MIGRATED, datetime.now(UTC), facts=facts), b"")
        row = link(self.head.hash, prepared.at_position(self.head.position + 1))
        with translated():
            connection.execute("BEGIN IMMEDIATE")
            for statement in migrations.statements_from(old):
                connection.execute(statement)
            connection.execute(schema.insert_rows(1), _cells(row, prepared))
            connection.execute(schema.SET_SCHEMA, (SCHEMA,))
            self._failpoints.reach(Failpoint.LEDGER_BEFORE_COMMIT)
            connection.execute("COMMIT")
            self._failpoints.reach(Failpoint.LEDGER_AFTER_COMMIT)
        self.head = Head(row.position, row.hash)
        self.migrated_from = old

    def _checked_head(self, connection: Connection, header: Header) -> Head:
        check = ChainCheck(header.genesis)
        head = Head(0, header.genesis)
        for stored in LedgerReader(connection, header).newest(CHECKED_ROWS):
            for finding in check.feed(stored.row):
                raise Damaged(
                    f"row {finding.position} of the ledger is {finding.kind}: {finding.detail}"
                )
            head = Head(stored.row.position, stored.row.hash)
        return head


def _cells(row: Row, prepared: Prepared) -> tuple[str | int | bytes | None, ...]:
    body, handles, free_text = row.body, prepared.handles, prepared.free_text
    return (
        body.position,
        body.event,
        body.task,
        body.state,
        body.at,
        body.facts,
        body.handles,
        body.free_text,
        row.previous,
        row.hash,
        handles.salt if handles else None,
        handles.text if handles else None,
        free_text.salt if free_text else None,
        free_text.text if free_text else None,
        prepared.final,
    )


def _first_not_before(connection: Connection, at: str) -> int:
    """Return the first position, as far as times rise with positions, that is not before `at`."""
    low, high = connection.execute(schema.SELECT_BOUNDS).fetchone()
    while low < high:
        middle = (low + high) // 2
        (found,) = connection.execute(schema.SELECT_TIME, (middle,)).fetchone()
        low, high = (low, middle) if found >= at else (middle + 1, high)
    return int(low)
