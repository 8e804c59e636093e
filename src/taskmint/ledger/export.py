"""
Stored rows to JSON for readers elsewhere: an exported row can be verified without the database.

Lease ids and accessors never leave: of them an export holds the commitment alone.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Final

from taskmint.model.scope import Json

from .chain import FORMAT, Head
from .reader import Header
from .rows import StoredRow

HEAD_EVENT: Final = "ledger_head"  # the log event that exports a head


def header_json(header: Header) -> dict[str, Json]:
    """Return what the first row follows from."""
    return {
        "format": FORMAT,
        "schema": header.schema,
        "first_schema": header.first_schema,
        "node": header.node,
        "epoch": header.epoch,
        "genesis": header.genesis,
    }


def row_json(stored: StoredRow) -> dict[str, Json]:
    """
    Return a row: the members of its body, its link, and what opens its free text.

    Facts that are no JSON any more (a damaged row) are shown as the text that stands there.
    """
    row, body = stored.row, stored.row.body
    exported: dict[str, Json] = {
        "position": body.position,
        "at": body.at,
        "event": body.event,
        "task": body.task,
        "state": body.state,
        "facts": parsed(body.facts),
        "handles": body.handles,
        "free_text": body.free_text,
        "previous": row.previous,
        "hash": row.hash,
    }
    if clear := stored.free_text:
        exported["free_text_clear"] = {"salt": clear.salt.hex(), "value": parsed(clear.text)}
    return exported


def exported_heads(lines: Iterable[str], genesis: str) -> Iterator[Head]:
    """Yield the heads of one ledger from a daemon's log; other lines are passed over."""
    for line in lines:
        event = parsed(line[max(line.find("{"), 0) :])
        if isinstance(event, dict) and (event.get("event"), event.get("ledger")) == (
            HEAD_EVENT,
            genesis,
        ):
            yield Head.parse(str(event.get("head")))


def parsed(text: str) -> Json:
    """Return the JSON value, or the text itself when it is none."""
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value
