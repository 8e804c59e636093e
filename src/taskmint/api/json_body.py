"""A body: one JSON object, bounded in depth, numbers and text, or 400 (RFC 8259, RFC 7493)."""

from typing import Final

from taskmint.errors import BadRequest, Code
from taskmint.model.scope import Json
from taskmint.strict_json import decode_object

MAX_DEPTH: Final = 16
LARGEST_INTEGER: Final = 2**53 - 1  # RFC 7493, section 2.2
_OPENING: Final = frozenset(b"[{")
_CLOSING: Final = frozenset(b"]}")


def parse_object(body: bytes) -> dict[str, Json]:
    """
    Parse a JSON object. Raises BadRequest(malformed_request).

    Beyond what strict_json refuses: nesting deeper than sixteen, NUL, half a surrogate pair,
    integers beyond 53 bits and numbers beyond a double.
    """
    _check_depth(body)
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


def _check_depth(body: bytes) -> None:
    # Brackets within strings count as well: an over-estimate that no honest body comes near.
    depth = 0
    for byte in body:
        if byte in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                raise _malformed(f"the body nests deeper than {MAX_DEPTH}")
        elif byte in _CLOSING:
            depth -= 1


def _check(value: Json) -> None:
    match value:
        case str():
            if "\0" in value or not _encodable(value):
                raise _malformed("a string holds NUL or half a surrogate pair")
        case list():
            for item in value:
                _check(item)
        case dict():
            for key, item in value.items():
                _check(key)
                _check(item)
        case int() | float():
            if abs(value) > LARGEST_INTEGER:
                raise _malformed("a number is out of range")
        case None:
            return


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
