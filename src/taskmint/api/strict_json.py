"""JSON without its laxities (RFC 8259, I-JSON RFC 7493): one meaning or an error."""

import json
from typing import Final, NoReturn

from taskmint.errors import BadRequest, Code
from taskmint.model.scope import Json

MAX_DEPTH: Final = 16
_OPENING: Final = frozenset(b"[{")
_CLOSING: Final = frozenset(b"]}")


def parse_object(body: bytes) -> dict[str, Json]:
    """
    Parse a JSON object. Raises BadRequest(malformed_request).

    Refused: duplicate keys, NaN and infinities, lone surrogates, NUL, integers beyond 53 bits,
    nesting deeper than sixteen.
    """
    _check_depth(body)
    try:
        text = body.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
            parse_int=_bounded,
        )
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _malformed("the body is not JSON in UTF-8") from error
    if not isinstance(value, dict):
        raise _malformed("the body is not a JSON object")
    _check_text(value)
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


def _without_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _malformed(f"the key {key[:64]!r} stands twice")
            seen.add(key)
    return value


def _no_constant(text: str) -> NoReturn:
    raise _malformed(f"{text} is not a JSON number")


def _bounded(text: str) -> int:
    if len(text) > len("-9007199254740991") or abs(int(text)) > 2**53 - 1:
        raise _malformed("an integer is out of range")
    return int(text)


def _check_text(value: Json) -> None:
    match value:
        case str():
            if "\0" in value or not _encodable(value):
                raise _malformed("a string holds NUL or half a surrogate pair")
        case list():
            for item in value:
                _check_text(item)
        case dict():
            for key, item in value.items():
                _check_text(key)
                _check_text(item)
        case float():
            if value in {float("inf"), float("-inf")}:
                raise _malformed("a number is out of range")
        case _:
            return


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
