"""
The database's tables, schema 2 (docs/ledger.md describes them for other readers).

One INSERT into the view `incoming` is one transaction: its trigger writes the row, puts the clear
values beside it, moves the projection and purges the handles of a finished task. One statement
per batch matters: SQLite's Python binding gives up the interpreter's lock at each one, and under
a busy event loop every such hand-over costs up to a switch interval.
"""

from functools import cache
from typing import Final

APPLICATION_ID: Final = 0x746D6C67  # "tmlg"; file(1) and `PRAGMA application_id` show it

HEADER: Final = """
CREATE TABLE header (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  schema INTEGER NOT NULL,
  node TEXT NOT NULL,
  epoch TEXT NOT NULL,
  recoveries INTEGER NOT NULL,
  first_schema INTEGER NOT NULL
) STRICT
"""

ENTRIES: Final = """
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
) STRICT
"""

ENTRIES_BY_TASK: Final = """
CREATE INDEX entries_by_task ON entries (task, position) WHERE task IS NOT NULL
"""

HANDLES: Final = """
CREATE TABLE handles (
  task TEXT NOT NULL,
  position INTEGER NOT NULL,
  salt BLOB NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (task, position)
) STRICT, WITHOUT ROWID
"""

FREE_TEXT: Final = """
CREATE TABLE free_text (
  position INTEGER PRIMARY KEY,
  salt BLOB NOT NULL,
  value TEXT NOT NULL
) STRICT
"""

UNFINISHED: Final = """
CREATE TABLE unfinished (
  task TEXT PRIMARY KEY,
  state TEXT NOT NULL,
  position INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""

# What `unfinished` must hold. A task that was finished once is finished, whatever rows follow.
# max() makes SQLite take the bare column `state` from the same row (sqlite.org/lang_select.html).
PROJECTION: Final = """
CREATE VIEW projection AS
SELECT task, state, max(position) AS position FROM entries
WHERE task IS NOT NULL AND state IS NOT NULL GROUP BY task
HAVING sum(state IN ('denied', 'expired_unused', 'failed', 'revoked')) = 0
"""

INCOMING: Final = """
CREATE VIEW incoming AS
SELECT entries.*,
       NULL AS handles_salt, NULL AS handles_value,
       NULL AS free_text_salt, NULL AS free_text_value,
       0 AS final
FROM entries
"""

APPEND_ROW: Final = """
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
END
"""

CREATE: Final = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    HEADER,
    ENTRIES,
    ENTRIES_BY_TASK,
    HANDLES,
    FREE_TEXT,
    UNFINISHED,
    PROJECTION,
    INCOMING,
    APPEND_ROW,
)

INSERT_HEADER: Final = "INSERT INTO header VALUES (1, :schema, :node, :epoch, 0, :schema)"
SELECT_HEADER: Final = "SELECT schema, node, epoch FROM header"
SELECT_FIRST_SCHEMA: Final = "SELECT first_schema FROM header"  # since schema 2
SET_SCHEMA: Final = "UPDATE header SET schema = ?"
# A write of one page: what tells that the disk takes writes again.
COUNT_RECOVERY: Final = "UPDATE header SET recoveries = recoveries + 1"

# A row and its clear values, in the order that reader.py unpacks.
SELECT_ROWS: Final = """
SELECT e.position, e.event, e.task, e.state, e.at, e.facts, e.handles, e.free_text,
       e.previous, e.hash, h.salt, h.value, f.salt, f.value
FROM entries AS e
LEFT JOIN handles AS h ON h.task = e.task AND h.position = e.position
LEFT JOIN free_text AS f ON f.position = e.position
"""

# For a file whose indexes may be damaged: the rows by the table alone, and one row's handles.
SCAN_ROWS: Final = """
SELECT position, event, task, state, at, facts, handles, free_text, previous, hash
FROM entries NOT INDEXED ORDER BY position
"""
# The rows of some events, a JSON list, from the table's end: what is not asked for is not read.
NEWEST_OF: Final = """
SELECT position, event, task, state, at, facts, handles, free_text, previous, hash
FROM entries NOT INDEXED WHERE event IN (SELECT value FROM json_each(?)) ORDER BY position DESC
"""
SELECT_HANDLES: Final = "SELECT salt, value FROM handles WHERE task = ? AND position = ?"

# What the rows say and the projection does not, and the other way round.
PROJECTION_DIFFERENCES: Final = """
SELECT task, position FROM (SELECT * FROM projection EXCEPT SELECT * FROM unfinished)
UNION
SELECT task, position FROM (SELECT * FROM unfinished EXCEPT SELECT * FROM projection)
"""
CLEAR_PROJECTION: Final = "DELETE FROM unfinished"
REBUILD_PROJECTION: Final = "INSERT INTO unfinished SELECT * FROM projection"

# The second condition holds when a stepped clock put older times behind newer ones.
PURGE_FREE_TEXT: Final = """
DELETE FROM free_text WHERE position IN (
  SELECT f.position FROM free_text AS f JOIN entries AS e USING (position)
  WHERE f.position < :before AND e.at < :at
  AND (e.task IS NULL OR e.task NOT IN (SELECT task FROM unfinished))
  ORDER BY f.position LIMIT :most
)
"""


# The newest row that retention may remove: at most :most rows, none of or behind an unfinished
# task's first, none at or behind the first that is young enough, and never the newest of all.
SELECT_REMOVABLE: Final = """
SELECT min(
  first + :most - 1,
  last - 1,
  :before - 1,
  coalesce(
    (SELECT min(e.position) FROM unfinished AS u JOIN entries AS e ON e.task = u.task) - 1, last
  ),
  coalesce(
    (SELECT min(position) FROM entries WHERE position < first + :most AND at >= :at) - 1, last
  )
), first FROM (SELECT min(position) AS first, max(position) AS last FROM entries)
"""
SELECT_HASH: Final = "SELECT hash FROM entries WHERE position = ?"
REMOVE_ROWS: Final = (
    "DELETE FROM free_text WHERE position <= ?",
    "DELETE FROM entries WHERE position <= ?",
)

# Of the positions: the first, and the one after the last.
SELECT_BOUNDS: Final = """
SELECT coalesce(min(position), 1), coalesce(max(position), 0) + 1 FROM entries
"""
SELECT_TIME: Final = "SELECT at FROM entries WHERE position >= ? ORDER BY position LIMIT 1"

_INSERT: Final = "INSERT INTO incoming VALUES "
_VALUES: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@cache
def insert_rows(count: int) -> str:
    """Return the one statement that appends `count` rows."""
    return _INSERT + ", ".join([_VALUES] * count)
