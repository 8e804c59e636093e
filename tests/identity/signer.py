"""Trust domains that sign JWT-SVIDs, well or badly, as a test asks."""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

NOW: Final = 1_800_000_000  # Unix time that the tests agree on
AUDIENCE: Final = "taskmint"
SUBJECT: Final = "spiffe://example.org/ns/orders/sa/report"

_HASHES: Final = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVE_NAMES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def encode(raw: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def number(value: int) -> str:
    """A Base64urlUInt (RFC 7518, section 2)."""
    return encode(value.to_bytes((value.bit_length() + 7) // 8))


def claims(at: int = NOW, **changes: Any) -> dict[str, Any]:
    """Good claims at that moment; None takes a claim away."""
    good: dict[str, Any] = {"sub": SUBJECT, "aud": [AUDIENCE], "iat": at - 60, "exp": at + 240}
    return {name: value for name, value in (good | changes).items() if value is not None}


@dataclass(frozen=True)
class Authority:
    """A signing key with its id and usual algorithm."""

    key_id: str
    key: PrivateKey
    algorithm: str = "ES256"

    @classmethod
    def ecdsa(cls, key_id: str = "k1", bits: int = 256) -> "Authority":
        """Make a key on the curve of that many bits."""
        curve = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}[bits]
        return cls(key_id, ec.generate_private_key(curve), f"ES{512 if bits == 521 else bits}")

    @classmethod
    def rsa(cls, key_id: str = "r1", bits: int = 2048) -> "Authority":
        """Make an RSA key."""
        return cls(key_id, rsa.generate_private_key(65537, bits), "RS256")

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """Return the public key as a JWK, as SPIRE writes it; None takes a member away."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            public = self.key.public_key().public_numbers()
            jwk = {"kty": "RSA", "n": number(public.n), "e": number(public.e)}
        else:
            point = self.key.public_key().public_numbers()
            size = (self.key.curve.key_size + 7) // 8
            jwk = {
                "kty": "EC",
                "crv": _CURVE_NAMES[self.key.curve.name],
                "x": encode(point.x.to_bytes(size)),
                "y": encode(point.y.to_bytes(size)),
            }
        members = {**jwk, "kid": self.key_id, "use": "jwt-svid"} | changes
        return {name: value for name, value in members.items() if value is not None}

    def token(
        self,
        body: dict[str, Any] | bytes | None = None,
        *,
        algorithm: str | None = None,
        **header: Any,
    ) -> str:
        """Sign claims (or raw bytes); the header's members can be changed or, with None, go."""
        algorithm = algorithm or self.algorithm
        members = {"alg": algorithm, "kid": self.key_id, "typ": "JWT"} | header
        members = {name: value for name, value in members.items() if value is not None}
        text = body if isinstance(body, bytes) else json.dumps(body or claims()).encode()
        signed = f"{encode(json.dumps(members).encode())}.{encode(text)}"
        return f"{signed}.{encode(self.sign(signed.encode(), algorithm))}"

    def sign(self, signed: bytes, algorithm: str) -> bytes:
        """Sign as RFC 7518 says."""
        digest = _HASHES[algorithm[2:]]
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            size = (self.key.curve.key_size + 7) // 8
            r, s = utils.decode_dss_signature(self.key.sign(signed, ec.ECDSA(digest)))
            return r.to_bytes(size) + s.to_bytes(size)
        if algorithm.startswith("PS"):
            pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
            return self.key.sign(signed, pss, digest)
        return self.key.sign(signed, padding.PKCS1v15(), digest)


def jwks(authorities: Iterable[Authority]) -> bytes:
    """Return a JWK set as the Workload API sends it."""
    return json.dumps({"keys": [authority.jwk() for authority in authorities]}).encode()
