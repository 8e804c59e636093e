"""
Values to what a log line may show of them.

A closed list of kinds passes; a `Secret`, bytes and objects of any other class show what they
are, never what they hold. Long texts and large containers are cut.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import PurePath
from typing import Final

from taskmint.model.secret import Secret

from .tracebacks import said

LONGEST_TEXT: Final = 2048
_DEEPEST: Final = 6
_MOST_ITEMS: Final = 100


def shown(value: object, depth: int = 0) -> object:
    """Return plain JSON for a value."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _container(value, depth)
    text = _text(value)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "[cut]"


def _text(value: object) -> str:
    match value:
        case str() | PurePath() | Secret():  # a Secret's text is its placeholder
            return str(value)
        case datetime():
            return value.isoformat()
        case timedelta():
            return f"{value.total_seconds():g} s"
        case BaseException():
            return said(value)
        case _:
            return f"[{type(value).__name__}]"


def _container(value: Mapping[object, object] | Iterable[object], depth: int) -> object:
    if depth == _DEEPEST:
        return "[deeper]"
    if isinstance(value, Mapping):
        items = list(value.items())[:_MOST_ITEMS]
        return {_text(key): shown(item, depth + 1) for key, item in items}
    return [shown(item, depth + 1) for item in list(value)[:_MOST_ITEMS]]
