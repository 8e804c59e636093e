"""
Rows to hashes, and a run of rows to what is wrong with it (docs/ledger.md describes the format).

Pure: no file, no clock, no database. It cannot tell who changed a row, and without a head that
was exported elsewhere it cannot tell that the newest rows are missing.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final, Self

from taskmint.canonical import canonical, digest

SCHEMA: Final = 2
FORMAT: Final = "taskmint-ledger"
RETENTION: Final = "retention"  # the event of rows that vouch for what retention removed

_HEAD = re.compile(r"([1-9][0-9]{0,15}):([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Body:
    """
    What a row says: the object that is hashed.

    `at` is RFC 3339 in UTC with Z and microseconds; `facts` is the RFC 8785 text of an object;
    `handles` and `free_text` are commitments (see `commitment`) or None when there was nothing.
    """

    position: int
    event: str
    task: str | None
    state: str | None
    at: str
    facts: str
    handles: str | None
    free_text: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """A body and its link; `previous` and `hash` are SHA-256, hex, lower-case."""

    body: Body
    previous: str
    hash: str

    @property
    def position(self) -> int:
        """Its place in the chain, counted from 1."""
        return self.body.position


@dataclass(frozen=True, slots=True)
class Head:
    """The newest row's position and hash; kept elsewhere, it dates the ledger."""

    position: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `POSITION:HASH`. Raises ValueError."""
        if not (match := _HEAD.fullmatch(text)):
            raise ValueError("a head is POSITION:HASH, the hash in 64 lower-case hex digits")
        return cls(int(match[1]), match[2])

    def __str__(self) -> str:
        return f"{self.position}:{self.hash}"


class FindingKind(StrEnum):
    """What can be wrong with a ledger."""

    EDITED = "edited"  # a row's own hash does not fit its fields
    UNLINKED = "unlinked"  # a row does not follow from the row before it
    MISSING = "missing"  # positions that are not there, and no retention row says why
    OUT_OF_ORDER = "out_of_order"
    TRUNCATED = "truncated"  # an exported head is newer than the newest row
    REWRITTEN = "rewritten"  # the row at an exported head's position is another one
    CLEAR_VALUE = "clear_value"  # a clear value does not fit its commitment
    PROJECTION = "projection"  # the table of unfinished tasks does not follow from the rows
    UNREADABLE = "unreadable"  # the database file itself is damaged


@dataclass(frozen=True, slots=True)
class ChainFinding:
    """One thing wrong, and the position at which it shows (0: the whole file)."""

    kind: FindingKind
    position: int
    detail: str


def genesis(node: str, epoch: str, schema: int = SCHEMA) -> str:
    """
    Return what the first row follows: it ties the chain to one node, one file, and the schema that
    the file was made with.
    """
    return digest({"epoch": epoch, "format": FORMAT, "node": node, "schema": schema})


def commitment(salt: bytes, text: str) -> str:
    """
    Return SHA-256(salt ‖ RFC 8785 text).

    Once salt and text are purged, the commitment tells nothing, not even of a guessable value.
    """
    return sha256(salt + text.encode()).hexdigest()


def body_bytes(body: Body) -> bytes:
    """
    Return the RFC 8785 form of a body; `facts` is put in as it stands.

    Raises ValueError when a field holds what JSON cannot carry.
    """
    return b"".join(
        (  # RFC 8785 sorts the members by name
            b'{"at":',
            canonical(body.at),
            b',"event":',
            canonical(body.event),
            b',"facts":',
            body.facts.encode(),
            b',"free_text":',
            canonical(body.free_text),
            b',"handles":',
            canonical(body.handles),
            b',"position":',
            canonical(body.position),
            b',"state":',
            canonical(body.state),
            b',"task":',
            canonical(body.task),
            b"}",
        )
    )


def row_hash(previous: str, body: Body) -> str:
    """Return SHA-256(previous ‖ body); `previous` counts as 32 bytes. Raises ValueError."""
    return sha256(bytes.fromhex(previous) + body_bytes(body)).hexdigest()


def link(previous: str, body: Body) -> Row:
    """Give a body its place behind `previous`."""
    return Row(body, previous, row_hash(previous, body))


def fits_hash(row: Row) -> bool:
    """Whether the row's hash fits the text of its fields, wherever one ends and another begins."""
    try:
        return row_hash(row.previous, row.body) == row.hash
    except ValueError:
        return False


def is_intact(row: Row) -> bool:
    """Whether the row's hash fits its fields and its facts stand in their canonical form."""
    try:
        facts = json.loads(row.body.facts)
        # Without this, text could move between `facts` and its neighbours and hash the same.
        return (
            isinstance(facts, dict)
            and canonical(facts) == row.body.facts.encode()
            and fits_hash(row)
        )
    except (ValueError, RecursionError):
        return False


class ChainCheck:
    """
    Tells what is wrong with rows that are fed to it in the order in which they were found.

    1. Every row's hash fits its fields.
    2. Positions rise by one.
    3. Every row's `previous` is the hash of the row before it; the first row's is `start`.
    4. Rows that are missing at the beginning are vouched for by a retention row.
    5. Every exported head is still there. One that retention removed is covered by 4.
    """

    def __init__(self, start: str, heads: Sequence[Head] = ()) -> None:
        self._start = start
        self._heads: dict[int, set[str]] = {}
        for head in heads:
            self._heads.setdefault(head.position, set()).add(head.hash)
        self._first: Row | None = None
        self._last: Row | None = None
        self._vouched: set[tuple[int, str]] = set()

    def feed(self, row: Row) -> Iterator[ChainFinding]:
        """Yield what shows at this row: steps 1, 2, 3 and 5."""
        if is_intact(row):
            self._vouched |= _vouches(row, self._start)
        else:
            yield ChainFinding(FindingKind.EDITED, row.position, "its hash does not fit its fields")
        yield from self._order(row)
        for exported in self._heads.pop(row.position, set()) - {row.hash}:
            detail = f"the exported head has the hash {exported}"
            yield ChainFinding(FindingKind.REWRITTEN, row.position, detail)
        self._first = self._first or row
        self._last = row

    def finish(self) -> Iterator[ChainFinding]:
        """Yield what shows when no more rows come: steps 4 and 5."""
        first = self._first
        newest = self._last.position if self._last else 0
        if first and first.position != 1 and not self._is_vouched(first):
            detail = f"the first row is {first.position} and no retention row says why"
            yield ChainFinding(FindingKind.MISSING, 1, detail)
        for position in sorted(self._heads):
            if position > newest:
                detail = f"it was exported as head, but the newest row is {newest}"
                yield ChainFinding(FindingKind.TRUNCATED, position, detail)

    def _is_vouched(self, first: Row) -> bool:
        return (first.position - 1, first.previous) in self._vouched

    def _order(self, row: Row) -> Iterator[ChainFinding]:
        last = self._last
        if last is None:
            if row.position == 1 and row.previous != self._start:
                yield ChainFinding(
                    FindingKind.UNLINKED, 1, "it does not follow from the file's header"
                )
        elif row.position <= last.position:
            detail = f"it stands after row {last.position}"
            yield ChainFinding(FindingKind.OUT_OF_ORDER, row.position, detail)
        elif row.position > last.position + 1:
            detail = f"nothing stands between rows {last.position} and {row.position}"
            yield ChainFinding(FindingKind.MISSING, last.position + 1, detail)
        elif row.previous != last.hash:
            detail = f"it does not follow from row {last.position}"
            yield ChainFinding(FindingKind.UNLINKED, row.position, detail)


def verify(rows: Iterable[Row], start: str, heads: Sequence[Head] = ()) -> Iterator[ChainFinding]:
    """Yield what is wrong with rows that should be a whole ledger (ChainCheck)."""
    check = ChainCheck(start, heads)
    for row in rows:
        yield from check.feed(row)
    yield from check.finish()


def _vouches(row: Row, start: str) -> set[tuple[int, str]]:
    """Return the (position, hash) of the last row removed, when this is a retention row of ours."""
    if row.body.event != RETENTION:
        return set()
    facts = json.loads(row.body.facts)
    through, hashed = facts.get("through"), facts.get("hash")
    if facts.get("genesis") != start or not isinstance(through, int) or not isinstance(hashed, str):
        return set()
    return {(through, hashed)}
