"""
JWK sets in, the keys that approvers sign with out, each bound to one algorithm.

Written from RFC 7517, RFC 7518 section 6, RFC 8037 and RFC 7638. A key is named by its thumbprint
and by nothing that a file says. Every key must be of a kind that is known here: one that is
skipped would be an approver who silently cannot approve.
"""

import base64
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from taskmint.canonical import canonical
from taskmint.strict_json import Object, decode_object

from .jwt_bundle import MAX_BYTES, MIN_RSA_BITS, decode_base64url, ec_key, rsa_key
from .jwt_svid import ecdsa_der

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CURVES: Final = {
    "secp256r1": ("P-256", "ES256", hashes.SHA256()),
    "secp384r1": ("P-384", "ES384", hashes.SHA384()),
    "secp521r1": ("P-521", "ES512", hashes.SHA512()),
}


@dataclass(frozen=True, slots=True)
class ApproverKey:
    """A public key, the only algorithm it is used with, and its RFC 7638 thumbprint."""

    key: PublicKey
    algorithm: str
    thumbprint: str

    def verifies(self, signature: bytes, signed: bytes) -> bool:
        """Whether the signature is this key's (RFC 7518, sections 3.3 and 3.4; RFC 8037, 3.1)."""
        try:
            match self.key:
                case ed25519.Ed25519PublicKey():
                    self.key.verify(signature, signed)
                case rsa.RSAPublicKey():
                    self.key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
                case ec.EllipticCurvePublicKey():
                    _, _, digest = _CURVES[self.key.curve.name]
                    self.key.verify(ecdsa_der(self.key, signature), signed, ec.ECDSA(digest))
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False
        return True


def read_jwk_set(text: bytes) -> tuple[ApproverKey, ...]:
    """Read a JWK set of at least one public key. Raises ValueError with a sentence."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"a JWK set has at most {MAX_BYTES} bytes")
    keys = decode_object(text).get("keys")
    if not isinstance(keys, list) or not keys:
        raise ValueError("a JWK set has an array named keys, and a key in it")
    if not all(isinstance(jwk, dict) for jwk in keys):
        raise ValueError("a JWK is an object")
    return tuple(map(_read_jwk, keys))


def approver_key(key: object) -> ApproverKey:
    """Bind a public key to its algorithm and name. Raises ValueError for one of another kind."""
    members, algorithm = _members(key)
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise TypeError("a key without members")  # _members has refused it
    thumbprint = _encode(sha256(canonical({**members})).digest())
    return ApproverKey(key, algorithm, thumbprint)


def public_jwk(key: ApproverKey) -> dict[str, str]:
    """Write a key as a public JWK; its `kid` is its thumbprint."""
    members, algorithm = _members(key.key)
    return {**members, "alg": algorithm, "kid": key.thumbprint, "use": "sig"}


def _read_jwk(jwk: Object) -> ApproverKey:
    if not _PRIVATE.isdisjoint(jwk):
        raise ValueError(
            "a private key stands where a public one is meant; replace it, it is known"
        )
    if jwk.get("use", "sig") != "sig":
        raise ValueError("a key is for another use than signatures")
    match jwk.get("kty"):
        case "EC":
            found = approver_key(ec_key(jwk)[0])
        case "RSA":
            found = approver_key(rsa_key(jwk)[0])
        case "OKP":
            found = approver_key(_ed25519_key(jwk))
        case _:
            raise ValueError("a key is EC, RSA or OKP (Ed25519)")
    if jwk.get("alg", found.algorithm) != found.algorithm:
        raise ValueError(f"a key of this kind signs with {found.algorithm} here")
    return found


def _ed25519_key(jwk: Object) -> ed25519.Ed25519PublicKey:
    text = jwk.get("x")
    if jwk.get("crv") != "Ed25519" or not isinstance(text, str):
        raise ValueError("an OKP key is Ed25519 and has an x")
    return ed25519.Ed25519PublicKey.from_public_bytes(decode_base64url(text.encode()))


def _members(key: object) -> tuple[dict[str, str], str]:
    """Return the members that RFC 7638 (3.2) and RFC 8037 (2) hash, and the algorithm."""
    match key:
        case ed25519.Ed25519PublicKey():
            raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            return {"crv": "Ed25519", "kty": "OKP", "x": _encode(raw)}, "EdDSA"
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVES:
            name, algorithm, _ = _CURVES[key.curve.name]
            numbers, size = key.public_numbers(), (key.curve.key_size + 7) // 8
            x, y = _encode(numbers.x.to_bytes(size)), _encode(numbers.y.to_bytes(size))
            return {"crv": name, "kty": "EC", "x": x, "y": y}, algorithm
        case rsa.RSAPublicKey() if key.key_size >= MIN_RSA_BITS:
            public = key.public_numbers()
            n, e = _encode(_minimal(public.n)), _encode(_minimal(public.e))
            return {"e": e, "kty": "RSA", "n": n}, "RS256"
        case _:
            raise ValueError("a key is Ed25519, P-256, P-384, P-521, or RSA of at least 2048 bits")


def _minimal(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
