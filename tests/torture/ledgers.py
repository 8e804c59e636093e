"""
What the ledgers of a run say, asked three ways: `taskmint audit verify`, the independent verifier,
and plain SQL. And what they say after somebody has changed a copy.
"""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ledger import independent_verifier

COLUMNS = ("event", "task", "at", "facts", "previous", "hash")


@dataclass
class Edits:
    """How often each kind of edit was made, and the ones that a verifier did not notice."""

    tried: dict[str, int] = field(default_factory=dict)
    undetected: list[str] = field(default_factory=list)


def head(path: Path) -> tuple[int, str]:
    """Return the newest row's position and hash, as the daemon exports it to its log."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        position, hashed = database.execute(
            "SELECT position, hash FROM entries ORDER BY position DESC LIMIT 1"
        ).fetchone()
    return int(position), str(hashed)


def handed_out(path: Path) -> set[tuple[str, int]]:
    """Name each (task, revision) of which the ledger says that it was handed out."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        rows = database.execute(
            "SELECT task, coalesce(json_extract(facts, '$.revision'), 1) FROM entries"
            " WHERE event IN ('active', 'revision_active')"
        )
        return {(str(task), int(revision)) for task, revision in rows}


def verdicts(path: Path, exported: tuple[int, str]) -> tuple[bool, bool]:
    """Whether our command, and whether the independent verifier, calls the ledger intact."""
    position, hashed = exported
    ours = subprocess.run(
        [
            *(sys.executable, "-m", "taskmint", "audit", "verify"),
            *("--ledger", str(path), "--head", f"{position}:{hashed}"),
        ],
        capture_output=True,
        check=False,
    )
    return ours.returncode == 0, not independent_verifier.verify(path, {position: hashed})


def tamper(path: Path, scratch: Path, chance: random.Random, each: int) -> Edits:
    """Change copies of a ledger in every way there is; no file stays behind."""
    edits, exported = Edits(), head(path)
    for name, edit in _edits().items():
        for _ in range(each):
            with (
                closing(sqlite3.connect(path)) as source,
                closing(sqlite3.connect(scratch)) as copy,
            ):
                source.backup(copy)
                copy.isolation_level = None
                what = edit(copy, exported[0], chance)
            edits.tried[name] = edits.tried.get(name, 0) + 1
            for who, intact in zip(("ours", "theirs"), verdicts(scratch, exported), strict=True):
                if intact:
                    edits.undetected.append(f"{who} did not notice: {name} {what} of {path}")
            for left in (scratch, *_beside(scratch)):
                left.unlink(missing_ok=True)
    return edits


def _edits() -> dict[str, Callable[[sqlite3.Connection, int, random.Random], str]]:
    return {"flip": _flip, "delete": _delete, "reorder": _reorder, "truncate": _truncate}


def _flip(copy: sqlite3.Connection, last: int, chance: random.Random) -> str:
    position, column = chance.randint(1, last), chance.choice(COLUMNS)
    query = f"SELECT {column} FROM entries WHERE position = ? AND {column} <> ''"
    found = copy.execute(query, (position,)).fetchone()
    if found is None:
        return _flip(copy, last, chance)
    value = bytearray(str(found[0]).encode())
    bit = chance.randrange(len(value) * 8)
    value[bit // 8] ^= 1 << bit % 8
    copy.execute(
        f"UPDATE entries SET {column} = CAST(? AS TEXT) WHERE position = ?",
        (bytes(value), position),
    )
    return f"bit {bit} of {column} in row {position}"


def _delete(copy: sqlite3.Connection, last: int, chance: random.Random) -> str:
    position = chance.randint(1, last)
    copy.execute("DELETE FROM entries WHERE position = ?", (position,))
    return f"row {position}"


def _reorder(copy: sqlite3.Connection, last: int, chance: random.Random) -> str:
    one, other = sorted(chance.sample(range(1, last + 1), 2))
    for old, new in ((one, -1), (other, one), (-1, other)):
        copy.execute("UPDATE entries SET position = ? WHERE position = ?", (new, old))
    return f"rows {one} and {other}"


def _truncate(copy: sqlite3.Connection, last: int, chance: random.Random) -> str:
    after = chance.randint(last // 2, last - 1)
    copy.execute("DELETE FROM entries WHERE position > ?", (after,))
    return f"after row {after}"


def _beside(path: Path) -> Iterator[Path]:
    yield from (path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal"))
