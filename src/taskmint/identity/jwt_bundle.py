"""
A JWK set in, the keys that may sign a trust domain's JWT-SVIDs out.

Written from RFC 7517, RFC 7518 section 6 and the SPIFFE bundle format, section 4.2. A key of a
type or use that we do not know is skipped, as the format asks; a key that claims to be for us and
is malformed makes the whole set malformed, because it is not known what else is wrong.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from taskmint.strict_json import Object, decode_object

T = TypeVar("T")

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

MAX_BYTES: Final = 1 << 20
MIN_RSA_BITS: Final = 2048  # RFC 7518, sections 3.3 and 3.5
_MAX_RSA_BITS: Final = 8192
_MAX_EXPONENT_BITS: Final = 33  # of e: 65537 has 17, and each more costs every verification

_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, str]]] = {
    "P-256": (ec.SECP256R1(), "ES256"),
    "P-384": (ec.SECP384R1(), "ES384"),
    "P-521": (ec.SECP521R1(), "ES512"),
}
_RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_USES: Final = ("jwt-svid", "sig")  # SPIFFE bundle format, 4.2.2; RFC 7517, 4.2


@dataclass(frozen=True, slots=True)
class JwtAuthority:
    """A key that signs JWT-SVIDs, and the only algorithms it may be used with."""

    key_id: str
    key: PublicKey
    algorithms: frozenset[str]


JwtBundle: TypeAlias = Mapping[str, JwtAuthority]
JwtBundles: TypeAlias = Mapping[str, JwtBundle]


def jwt_authority(trust_domain: str, key_id: str) -> str:
    """Name an authority, for telling later whether it was withdrawn."""
    return f"jwt:{trust_domain}#{key_id}"


def parse_jwt_bundle(jwks: bytes) -> JwtBundle:
    """Return authorities by key id; an empty set is valid. Raises ValueError."""
    if len(jwks) > MAX_BYTES:
        raise ValueError(f"a JWK set has at most {MAX_BYTES} bytes")
    keys = decode_object(jwks).get("keys")
    authorities: dict[str, JwtAuthority] = {}
    for jwk in _of(list, keys, "a JWK set has an array named keys"):
        authority = _authority(_of(dict, jwk, "a JWK is an object"))
        if authority is None:
            continue
        if authority.key_id in authorities:
            raise ValueError("two keys have one id")
        authorities[authority.key_id] = authority
    return MappingProxyType(authorities)


def _of(kind: type[T], value: object, otherwise: str) -> T:
    if isinstance(value, kind):
        return value
    raise ValueError(otherwise)


def _authority(jwk: Object) -> JwtAuthority | None:
    """Read one JWK; None for what is not meant for us."""
    kind, key_id = jwk.get("kty"), jwk.get("kid")
    if kind not in ("EC", "RSA") or jwk.get("use", "sig") not in _USES:
        return None
    if not isinstance(key_id, str) or not key_id:
        raise ValueError("a JWT authority has a key id")
    key, algorithms = ec_key(jwk) if kind == "EC" else rsa_key(jwk)
    if "alg" in jwk:
        algorithms = frozenset(name for name in algorithms if name == jwk["alg"])
    return JwtAuthority(key_id, key, algorithms) if algorithms else None


def ec_key(jwk: Object) -> tuple[PublicKey, frozenset[str]]:
    """Read RFC 7518, section 6.2.1; the point is checked to lie on its curve."""
    name = jwk.get("crv")
    if not isinstance(name, str) or name not in _CURVES:
        raise ValueError("an EC key's curve is P-256, P-384 or P-521")
    curve, algorithm = _CURVES[name]
    numbers = ec.EllipticCurvePublicNumbers(_integer(jwk, "x"), _integer(jwk, "y"), curve)
    return numbers.public_key(), frozenset({algorithm})


def rsa_key(jwk: Object) -> tuple[PublicKey, frozenset[str]]:
    """Read RFC 7518, section 6.3.1."""
    exponent, modulus = _integer(jwk, "e"), _integer(jwk, "n")
    if not MIN_RSA_BITS <= modulus.bit_length() <= _MAX_RSA_BITS:
        raise ValueError(f"an RSA key has {MIN_RSA_BITS} to {_MAX_RSA_BITS} bits")
    if exponent.bit_length() > _MAX_EXPONENT_BITS:
        raise ValueError(f"an RSA key's exponent has at most {_MAX_EXPONENT_BITS} bits")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key(), _RSA_ALGORITHMS


def _integer(jwk: Object, name: str) -> int:
    """Read a Base64urlUInt (RFC 7518, section 2)."""
    text = jwk.get(name)
    if not isinstance(text, str) or not text:
        raise ValueError(f"the key has no {name}")
    return int.from_bytes(decode_base64url(text.encode("utf-8", "replace")))


def decode_base64url(text: bytes) -> bytes:
    """
    Decode base64url without padding (RFC 7515, section 2). Raises ValueError.

    Encoding the result again must give the same text: no padding, no other alphabet, no stray
    bits at the end, so that one value has one spelling.
    """
    try:
        value = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        raise ValueError("not base64url") from None
    if base64.urlsafe_b64encode(value).rstrip(b"=") != text:
        raise ValueError("not base64url")
    return value
