"""
JSON text in, one object out, with everything refused that two readers could read differently.

Duplicate keys, NaN and infinity, a byte order mark, nesting that exhausts the parser: ValueError.
Numbers keep their kind: what must be an integer is checked by whoever reads the member.
"""

import json
from typing import Any, Final, NoReturn

Object = dict[str, Any]


def decode_object(text: bytes) -> Object:
    """Return the object that the UTF-8 text holds. Raises ValueError, and nothing else."""
    try:
        value = _DECODER.decode(text.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of refusal for one kind of input
    return value


def _object(pairs: list[tuple[str, Any]]) -> Object:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)
