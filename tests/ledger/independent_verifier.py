"""
A second opinion on a ledger: written from "The format" in docs/ledger.md, with nothing of taskmint.

`python independent_verifier.py LEDGER [POSITION:HASH]...` prints what is wrong and exits 1, or
prints how many rows there are and exits 0.
"""

import hashlib
import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

FINISHED = ("revoked", "denied", "failed", "expired_unused")
AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
# ECMA-262, Number::toString: shortest digits as Python finds them, but other exponents.
SMALLEST_PLAIN, LARGEST_PLAIN = -6, 21
CLEAR = {
    "handles": "SELECT position, salt, value FROM handles",
    "free_text": "SELECT position, salt, value FROM free_text",
}


def number(value: float) -> str:
    """Write a number as RFC 8785, section 3.2.2.3 asks."""
    if isinstance(value, int):
        if abs(value) >= 2**53:
            raise ValueError("beyond what a double holds")
        return str(value)
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= LARGEST_PLAIN:
        return sign + digits + "0" * (point - count)
    if 0 < point <= LARGEST_PLAIN:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if SMALLEST_PLAIN < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if count > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1:+d}"


def canonical(value: Any) -> str:
    """Write RFC 8785."""
    if isinstance(value, dict):
        by_utf16 = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(k)}:{canonical(v)}" for k, v in by_utf16) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    return json.dumps(value, ensure_ascii=False)


def sha256(data: bytes) -> str:
    """Return 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def row_problems(row: dict[str, Any]) -> Iterator[str]:
    """Say what is wrong with a row taken for itself."""
    try:
        facts = json.loads(row["facts"])
        if not isinstance(facts, dict) or canonical(facts) != row["facts"]:
            yield "facts are not canonical"
        body = {name: row[name] for name in row if name not in {"previous", "hash"}}
        text = canonical({**body, "facts": facts})
        if sha256(bytes.fromhex(row["previous"]) + text.encode()) != row["hash"]:
            yield "hash does not fit"
    except (ValueError, TypeError, RecursionError) as error:
        yield f"unreadable: {error}"
    if not isinstance(row["at"], str) or not AT.fullmatch(row["at"]):
        yield "time is not in its form"
    if not isinstance(row["hash"], str) or not DIGEST.fullmatch(row["hash"]):
        yield "hash is not in its form"


def verify(path: Path, heads: dict[int, str] | None = None) -> list[str]:
    """Return everything that is wrong, as sentences."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    database.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        return list(_problems(database, dict(heads or {})))
    except sqlite3.DatabaseError as error:
        return [f"the file is damaged: {error}"]
    finally:
        database.close()


def _problems(database: sqlite3.Connection, heads: dict[int, str]) -> Iterator[str]:
    (check,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if check != "ok":
        yield f"the file is damaged: {check}"
    (application,) = database.execute("PRAGMA application_id").fetchone()
    schema, node, epoch = database.execute("SELECT schema, node, epoch FROM header").fetchone()
    if application != 1953328231 or schema not in {1, 2}:
        yield "not a ledger of schema 1 or 2"
    made_with = 1
    if schema >= 2:
        (made_with,) = database.execute("SELECT first_schema FROM header").fetchone()
    first = {"epoch": epoch, "format": "taskmint-ledger", "node": node, "schema": made_with}
    rows = [dict(row) for row in database.execute("SELECT * FROM entries ORDER BY position")]
    yield from _chain(rows, sha256(canonical(first).encode()))
    there = {row["position"]: row["hash"] for row in rows}
    begins, ends = min(there, default=1), max(there, default=0)
    for position, exported in heads.items():
        if position > ends:
            yield f"row {position} is missing"
        elif position >= begins and there.get(position) != exported:
            yield f"row {position} is not the one that was exported"
    yield from _beside(database, rows)


def _chain(rows: list[dict[str, Any]], genesis: str) -> Iterator[str]:
    for row in rows:
        yield from (f"row {row['position']}: {problem}" for problem in row_problems(row))
    for before, row in pairwise(rows):
        if row["position"] != before["position"] + 1 or row["previous"] != before["hash"]:
            yield f"row {row['position']} does not follow from row {before['position']}"
    if rows and rows[0]["position"] == 1:
        if rows[0]["previous"] != genesis:
            yield "row 1 does not follow from the header"
    elif rows:
        last_removed = {
            "genesis": genesis,
            "hash": rows[0]["previous"],
            "through": rows[0]["position"] - 1,
        }
        told = [json.loads(row["facts"]) for row in rows if row["event"] == "retention"]
        if not any(last_removed.items() <= facts.items() for facts in told):
            yield "the beginning is missing"


def _beside(database: sqlite3.Connection, rows: list[dict[str, Any]]) -> Iterator[str]:
    told = [row for row in rows if row["task"] is not None and row["state"] is not None]
    finished = {row["task"] for row in told if row["state"] in FINISHED}
    unfinished = {
        row["task"]: (row["state"], row["position"]) for row in told if row["task"] not in finished
    }
    projected = {
        task: (state, position)
        for task, state, position in database.execute("SELECT * FROM unfinished")
    }
    if projected != unfinished:
        yield "the projection does not follow from the rows"
    for name, query in CLEAR.items():
        opened = {
            position: sha256(salt + value.encode("utf-8", "surrogateescape"))
            for position, salt, value in database.execute(query)
        }
        committed = {row["position"]: row for row in rows if row[name] is not None}
        for position, found in opened.items():
            if position not in committed or committed[position][name] != found:
                yield f"{name} of row {position} do not fit"
        for position, row in committed.items():
            if row["task"] in unfinished and position not in opened:
                yield f"{name} of row {position} are gone"


def count(path: Path) -> int:
    """Return how many rows there are."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    (rows,) = database.execute("SELECT count(*) FROM entries").fetchone()
    database.close()
    return int(rows)


def main(path: Path, *heads: str) -> int:
    """Print what is wrong, or how many rows are right."""
    exported = (head.split(":") for head in heads)
    wrong = verify(path, {int(position): hashed for position, hashed in exported})
    sys.stdout.writelines(f"{line}\n" for line in wrong or [str(count(path))])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
