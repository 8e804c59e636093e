"""Task ids: `tm_` and a lower-case ULID, and the names in Vault that carry it."""

import re
from typing import Final, NewType

TaskId = NewType("TaskId", str)

_TASK_ID = re.compile(r"tm_[0-7][0-9a-hjkmnp-tv-z]{25}", re.ASCII)
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, as the ULID spec asks
_REVISION_NAME: Final = re.compile(r"([a-z0-9-]{1,20})-([0-9a-z]{26})-([1-9][0-9]{0,8})", re.ASCII)
_NODE_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?", re.ASCII)


def new_task_id(milliseconds: int, randomness: bytes) -> TaskId:
    """Build an id from Unix time in milliseconds (48 bits) and ten random bytes (ULID spec)."""
    if len(randomness) != 10 or not 0 <= milliseconds < 1 << 48:  # noqa: PLR2004 - the ULID layout
        raise ValueError("a ULID is 48 bits of time and 80 bits of randomness")
    number = milliseconds << 80 | int.from_bytes(randomness)
    return TaskId("tm_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5)))


def parse_task_id(text: str) -> TaskId | None:
    """Return the id, or None when the text cannot be one."""
    return TaskId(text) if _TASK_ID.fullmatch(text) else None


def is_node_id(text: str) -> bool:
    """At most 20 lower-case letters, digits, inner dashes: it stands in every name of ours."""
    return _NODE_ID.fullmatch(text) is not None


def vault_name(node: str, task: TaskId) -> str:
    """
    `taskmint-<node>-<ulid>`: a task token's display name, at most 56 bytes.

    The plan's user name template appends a dash and six random characters: 63 bytes,
    which is what PostgreSQL keeps of a role name.
    """
    return f"taskmint-{node}-{task.removeprefix('tm_')}"


def revision_name(node: str, task: TaskId, revision: int) -> str:
    """`<node>-<ulid>-<revision>`: how the names of objects end that exist for one revision only."""
    return f"{node}-{task.removeprefix('tm_')}-{revision}"


def parse_revision_name(text: str) -> tuple[str, TaskId] | None:
    """Return the node and the task of such a name, or None when it is none."""
    match = _REVISION_NAME.fullmatch(text)
    task = parse_task_id(f"tm_{match[2]}") if match else None
    return (match[1], task) if match and task and is_node_id(match[1]) else None


def born(task: TaskId) -> float:
    """When an id was made, in Unix time: its first ten letters (ULID spec)."""
    number = 0
    for letter in task.removeprefix("tm_")[:10]:
        number = number << 5 | _ALPHABET.index(letter)
    return number / 1000
