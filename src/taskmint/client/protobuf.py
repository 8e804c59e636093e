"""
The messages of FetchJWTSVID and FetchX509SVID in protobuf's encoding, without its imports: pure.

    JWTSVIDRequest  { repeated string audience = 1; string spiffe_id = 2 }
    JWTSVIDResponse { repeated JWTSVID svids = 1 }
    JWTSVID         { string spiffe_id = 1; string svid = 2; string hint = 3 }

    X509SVIDRequest  { }
    X509SVIDResponse { repeated X509SVID svids = 1; repeated bytes crl = 2;
                       map<string, bytes> federated_bundles = 3 }
    X509SVID         { string spiffe_id = 1; bytes x509_svid = 2; bytes x509_svid_key = 3;
                       bytes bundle = 4; string hint = 5 }
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

_AUDIENCE: Final = 1
_SVIDS: Final = 1
_SVID: Final = 2
_DELIMITED: Final = 2  # the wire type of strings and messages
_MORE: Final = 0x80
_LONGEST_VARINT: Final = 5
_FEDERATED: Final = 3
_ID, _CHAIN, _KEY, _BUNDLE = 1, 2, 3, 4


class X509Svid(NamedTuple):
    """
    An X.509-SVID as the agent sends it: concatenated DER of the chain and of each bundle.

    `key` is PKCS #8 DER; `federated` is by the other trust domains' IDs.
    """

    spiffe_id: str
    chain: bytes
    key: bytes
    bundle: bytes
    federated: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"X509Svid({self.spiffe_id!r})"


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


def first_x509_svid(response: bytes) -> X509Svid:
    """Read the first SVID of an X509SVIDResponse: the default identity. Raises ValueError."""
    first: dict[int, bytes] | None = None
    federated: dict[str, bytes] = {}
    for field, value in _fields(response):
        if field == _SVIDS and first is None:
            first = dict(_fields(value))
        elif field == _FEDERATED:
            entry = dict(_fields(value))
            federated[entry.get(1, b"").decode()] = entry.get(2, b"")
    if first is None:
        raise ValueError("it holds no SVID")
    chain, key, bundle = (first.get(number, b"") for number in (_CHAIN, _KEY, _BUNDLE))
    return X509Svid(first.get(_ID, b"").decode(), chain, key, bundle, federated)


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
