"""What stands in rows, which may be damaged, to values of the types that a record holds."""

from collections.abc import Mapping
from datetime import datetime

from taskmint.model.scope import Json

from .export import parsed
from .rows import StoredRow


def facts_of(stored: StoredRow) -> Mapping[str, Json]:
    """Return a row's facts; nothing when they are no JSON object any more."""
    return json_object(parsed(stored.row.body.facts))


def json_object(value: Json) -> Mapping[str, Json]:
    """Return an object as it is, anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: Json) -> str | None:
    """Return anything but null as text."""
    return None if value is None else str(value)


def number(value: Json) -> float | None:
    """Return a number, or None."""
    return value if isinstance(value, int | float) else None


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Return the time between two rows' wall-clock times, where both are known."""
    if start is None or end is None:
        return None
    try:
        span = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    except ValueError:
        return None
    return span.total_seconds()
