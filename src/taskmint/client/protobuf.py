"""
The two messages of FetchJWTSVID in protobuf's encoding: pure, and without protobuf's imports.

    JWTSVIDRequest  { repeated string audience = 1; string spiffe_id = 2 }
    JWTSVIDResponse { repeated JWTSVID svids = 1 }
    JWTSVID         { string spiffe_id = 1; string svid = 2; string hint = 3 }
"""

from collections.abc import Iterator
from typing import Final

_AUDIENCE: Final = 1
_SVIDS: Final = 1
_SVID: Final = 2
_DELIMITED: Final = 2  # the wire type of strings and messages
_MORE: Final = 0x80
_LONGEST_VARINT: Final = 5


def jwt_svid_request(audience: str) -> bytes:
    """Write a JWTSVIDRequest for one audience."""
    raw = audience.encode()
    return _varint(_AUDIENCE << 3 | _DELIMITED) + _varint(len(raw)) + raw


def first_jwt_svid(response: bytes) -> str:
    """Read the first token of a JWTSVIDResponse: the default identity. Raises ValueError."""
    for field, svid in _fields(response):
        if field == _SVIDS:
            for inner, value in _fields(svid):
                if inner == _SVID:
                    return value.decode("ascii")
    raise ValueError("it holds no SVID")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Split a message whose fields are all strings or messages."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        length, at = _read_varint(message, at)
        if tag & 7 != _DELIMITED or at + length > len(message):
            raise ValueError("it is not the message that was asked for")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(number: int) -> bytes:
    coded = b""
    while number >= _MORE:
        coded += bytes((number & ~_MORE & 0xFF | _MORE,))
        number >>= 7
    return coded + bytes((number,))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        number |= (byte & ~_MORE) << 7 * shift
        if not byte & _MORE:
            return number, at + shift + 1
    raise ValueError("it is cut off")
