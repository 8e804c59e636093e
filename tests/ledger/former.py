"""
Ledgers as schema 1 had them, before migrations: its statements as they stood then, never changed.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from ledger.lives import NODE
from taskmint.ledger.chain import Head, Row, genesis, link
from taskmint.ledger.rows import SALT_BYTES, Prepared, prepare
from taskmint.ports import Entry

EPOCH: Final = "0123456789abcdef" * 2
CREATE: Final = """
PRAGMA application_id = 1953328231;
CREATE TABLE header (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  schema INTEGER NOT NULL,
  node TEXT NOT NULL,
  epoch TEXT NOT NULL,
  recoveries INTEGER NOT NULL
) STRICT;
CREATE TABLE entries (
  position INTEGER PRIMARY KEY,
  event TEXT NOT NULL,
  task TEXT,
  state TEXT,
  at TEXT NOT NULL,
  facts TEXT NOT NULL,
  handles TEXT,
  free_text TEXT,
  previous TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT;
CREATE INDEX entries_by_task ON entries (task, position) WHERE task IS NOT NULL;
CREATE TABLE handles (
  task TEXT NOT NULL,
  position INTEGER NOT NULL,
  salt BLOB NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (task, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE free_text (
  position INTEGER PRIMARY KEY,
  salt BLOB NOT NULL,
  value TEXT NOT NULL
) STRICT;
CREATE TABLE unfinished (
  task TEXT PRIMARY KEY,
  state TEXT NOT NULL,
  position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE VIEW projection AS
SELECT task, state, max(position) AS position FROM entries
WHERE task IS NOT NULL AND state IS NOT NULL GROUP BY task
HAVING sum(state IN ('denied', 'expired_unused', 'failed', 'revoked')) = 0;
CREATE VIEW incoming AS
SELECT entries.*,
       NULL AS handles_salt, NULL AS handles_value,
       NULL AS free_text_salt, NULL AS free_text_value,
       0 AS final
FROM entries;
CREATE TRIGGER append_row INSTEAD OF INSERT ON incoming BEGIN
  INSERT INTO entries VALUES (
    NEW.position, NEW.event, NEW.task, NEW.state, NEW.at, NEW.facts,
    NEW.handles, NEW.free_text, NEW.previous, NEW.hash
  );
  INSERT INTO unfinished
    SELECT NEW.task, NEW.state, NEW.position
    WHERE NEW.task IS NOT NULL AND NEW.state IS NOT NULL AND NOT NEW.final AND NOT EXISTS (
      SELECT 1 FROM entries WHERE task = NEW.task
      AND state IN ('denied', 'expired_unused', 'failed', 'revoked')
    )
    ON CONFLICT (task) DO UPDATE SET state = excluded.state, position = excluded.position;
  INSERT INTO handles
    SELECT NEW.task, NEW.position, NEW.handles_salt, NEW.handles_value
    WHERE NEW.handles_value IS NOT NULL AND NOT NEW.final
    AND EXISTS (SELECT 1 FROM unfinished WHERE task = NEW.task);
  INSERT INTO free_text
    SELECT NEW.position, NEW.free_text_salt, NEW.free_text_value
    WHERE NEW.free_text_value IS NOT NULL;
  DELETE FROM unfinished WHERE NEW.final AND task = NEW.task;
  DELETE FROM handles WHERE NEW.final AND task = NEW.task;
END;
"""


def written_in_schema_1(path: Path, entries: Sequence[Entry]) -> Head:
    """Write a ledger as a daemon of schema 1 did, and stopped; return its head."""
    path.parent.mkdir(mode=0o700)
    path.touch(0o600)
    head = Head(0, genesis(NODE, EPOCH, schema=1))
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(CREATE)
        database.execute("INSERT INTO header VALUES (1, 1, ?, ?, 0)", (NODE, EPOCH))
        for number, entry in enumerate(entries):
            prepared = prepare(entry, bytes([number]) * 2 * SALT_BYTES)
            row = link(head.hash, prepared.at_position(head.position + 1))
            database.execute(
                f"INSERT INTO incoming VALUES ({', '.join('?' * 15)})", _cells(row, prepared)
            )
            head = Head(row.position, row.hash)
    return head


def _cells(row: Row, prepared: Prepared) -> tuple[str | int | bytes | None, ...]:
    body, handles, free_text = row.body, prepared.handles, prepared.free_text
    return (
        *(body.position, body.event, body.task, body.state, body.at),
        *(body.facts, body.handles, body.free_text, row.previous, row.hash),
        *((handles.salt, handles.text) if handles else (None, None)),
        *((free_text.salt, free_text.text) if free_text else (None, None)),
        prepared.final,
    )
