"""
What an administrator has in hand in, the tasks that it tells of out.

A task leaves its id wherever it goes: in the display name and metadata of its token, so in each
line of Vault's audit log that the token wrote, and in the names of its database users. What has no
id in it (another user name, a certificate's serial number, an accessor or a lease while the task
lives, a SPIFFE ID) is looked for in the rows.
"""

import re
from collections.abc import Iterable
from typing import Final

from taskmint.model.scope import Json
from taskmint.model.task_id import TaskId, parse_task_id

from .export import parsed
from .rows import StoredRow

_ULID: Final = "[0-7][0-9a-hjkmnp-tv-z]{25}"
_DIGITS: Final = 20  # of a 64-bit number
_NAME: Final = re.compile(
    rf"taskmint-([a-z0-9](?:[a-z0-9-]{{0,18}}[a-z0-9])?)-({_ULID})(?![0-9a-z])", re.ASCII
)
_ID: Final = re.compile(rf"(?<![0-9a-z_])tm_{_ULID}(?![0-9a-z])", re.ASCII)


def named_tasks(text: str) -> dict[TaskId, str | None]:
    """Find the tasks that a text names, each with its node where the text says that as well."""
    found: dict[TaskId, str | None] = {}
    for match in _NAME.finditer(text):
        if task := parse_task_id(f"tm_{match[2]}"):
            found[task] = match[1]
    for match in _ID.finditer(text):
        if task := parse_task_id(match[0]):
            found.setdefault(task, None)
    return found


def tells_of(stored: StoredRow, wanted: str) -> bool:
    """Say whether a row holds exactly this as a user, a serial, a SPIFFE ID, or a handle."""
    facts = parsed(stored.row.body.facts)
    handles = parsed(stored.handles.text) if stored.handles else {}
    if not isinstance(facts, dict) or not isinstance(handles, dict):
        return False
    if wanted in handles.values() or facts.get("spiffe_id") == wanted:
        return True
    minted = facts.get("entitlements")
    serials = _spellings(wanted)
    return any(
        item.get("user_name") == wanted or item.get("serial") in serials
        for item in (minted.values() if isinstance(minted, dict) else ())
        if isinstance(item, dict)
    )


def traces_left(rows: Iterable[StoredRow]) -> dict[str, list[Json]]:
    """Collect what a task's rows say that others see of it: database users, serial numbers."""
    left: dict[str, list[Json]] = {"user_names": [], "serials": []}
    for stored in rows:
        facts = parsed(stored.row.body.facts)
        minted = facts.get("entitlements") if isinstance(facts, dict) else None
        for item in minted.values() if isinstance(minted, dict) else ():
            for key, field in (("user_names", "user_name"), ("serials", "serial")):
                if isinstance(item, dict) and item.get(field) is not None:
                    left[key].append(item[field])
    return left


def _spellings(serial: str) -> set[str]:
    """A serial number as OpenSSL, Vault and OpenSSH print it, as the ledger has it."""
    plain = serial.lower().replace(":", "-")
    found = {plain}
    if serial.isascii() and serial.isdecimal() and len(serial) <= _DIGITS:
        found.add(f"{int(serial):x}")
    if re.fullmatch("(?:[0-9a-f]{2})+", plain):
        found.add("-".join(re.findall("..", plain)))
    return found
