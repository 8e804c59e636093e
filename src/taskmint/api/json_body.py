"""A body: one JSON object, bounded in depth, numbers and text, or 400 (RFC 8259, RFC 7493)."""

import itertools
from typing import Final

from taskmint.errors import BadRequest, Code
from taskmint.model.scope import Json
from taskmint.strict_json import decode_object

MAX_DEPTH: Final = 16
LARGEST_INTEGER: Final = 2**53 - 1  # RFC 7493, section 2.2


def parse_object(body: bytes) -> dict[str, Json]:
    """
    Parse a JSON object. Raises BadRequest(malformed_request).

    Beyond what strict_json refuses: nesting deeper than sixteen, NUL, half a surrogate pair,
    integers beyond 53 bits and numbers beyond a double.
    """
    try:
        value: dict[str, Json] = decode_object(body)
    except ValueError as error:
        raise _malformed("the body is not one JSON object with one meaning, in UTF-8") from error
    _check(value)
    return value


def _malformed(detail: str) -> BadRequest:
    return BadRequest(
        Code.MALFORMED_REQUEST, detail, fix="send one JSON object as docs/openapi.json describes"
    )


def _check(body: dict[str, Json]) -> None:
    """Look at everything, level by level: at 64 KiB of small values each call would show."""
    level: list[Json] = [body]
    for depth in itertools.count(1):
        below: list[Json] = []
        nests = False
        for value in level:
            if isinstance(value, str):
                if "\0" in value or not _encodable(value):
                    raise _malformed("a string holds NUL or half a surrogate pair")
            elif isinstance(value, dict):
                below += (*value, *value.values())
                nests = True
            elif isinstance(value, list):
                below += value
                nests = True
            elif value is not None and abs(value) > LARGEST_INTEGER:
                raise _malformed("a number is out of range")
        if not nests:
            return
        if depth > MAX_DEPTH:
            raise _malformed(f"the body nests deeper than {MAX_DEPTH}")
        level = below


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
