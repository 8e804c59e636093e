"""
Paths to open SQLite connections, and SQLite's errors to what they mean for the ledger.

The only importer of sqlite3.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote

from .files import refusal

Connection: TypeAlias = sqlite3.Connection

OLDEST_SQLITE: Final = (3, 38, 0)  # STRICT tables (3.37) and JSON built in (3.38)
BUSY_SECONDS: Final = 0.5  # how long a commit waits for somebody else's lock on the file

_PRIMARY: Final = 0xFF  # the low byte of an extended result code (sqlite.org/rescode.html)
# The write was refused before anything reached the disk: it may work again later. Everything
# else, above all a failed fsync, leaves unknown what is on the disk; only a restart reads it anew.
_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
    }
)
# SQLITE_ERROR: our statements do not vary, so the tables that they name are not what they were.
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})


@dataclass(frozen=True, slots=True)
class Fault:
    """Why nothing can be appended; a passing one is tried again, a lasting one is not."""

    reason: str
    passing: bool


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise Faulty for what SQLite or a failpoint raises inside."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY
        raise Faulty(
            Fault(f"SQLite says: {error}", passing=code in _PASSING), damaged=code in _DAMAGED
        ) from error
    except UnicodeDecodeError as error:  # SQLite's message quotes a damaged table definition
        raise Faulty(Fault("SQLite says what is no text", passing=False), damaged=True) from error
    except OSError as error:
        raise Faulty(Fault(f"the disk says: {error.strerror}", passing=True)) from error


class Faulty(Exception):
    """Raised inside this package only: an operation on the database failed."""

    def __init__(self, fault: Fault, *, damaged: bool = False) -> None:
        super().__init__(fault.reason)
        self.fault = fault
        self.damaged = damaged


def connect_writer(path: Path) -> Connection:
    """
    Open for appending: WAL, every commit synced, deleted content overwritten.

    Raises Faulty.
    """
    with translated():
        connection = _connect(path, "rw")
        try:
            journal = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA journal_size_limit = 4194304")
        except BaseException:
            connection.close()
            raise
    if journal != "wal":
        connection.close()
        raise refusal(f"{path} cannot have a write-ahead log here; its journal is {journal}")
    return connection


def connect_reader(path: Path) -> Connection:
    """
    Open read-only, beside a running daemon or without one.

    A file on a medium that takes no writes can be read only when its write-ahead log is gone,
    that is after a clean stop. Raises Faulty.
    """
    with translated():
        connection = _connect(path, "ro")
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.OperationalError:
            connection.close()
            if Path(f"{path}-wal").exists():
                raise
            return _connect(path, "ro&immutable=1")
        except BaseException:
            connection.close()
            raise
    return connection


def _connect(path: Path, mode: str) -> Connection:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise refusal(f"SQLite {sqlite3.sqlite_version} is too old; the ledger needs 3.38")
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
    )
    # A damaged file may hold text that is none: it must reach the verifier, not raise.
    connection.text_factory = _text
    return connection


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
