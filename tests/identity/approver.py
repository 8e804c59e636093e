"""People who sign statements, well or badly, as a test asks."""

import json
import secrets
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from identity.signer import encode
from taskmint.canonical import canonical
from taskmint.identity.approver_keys import ApproverKey, approver_key, public_jwk
from taskmint.identity.approvers import ApproverRecord
from taskmint.identity.statements import TYPE
from taskmint.model.spiffe import SpiffeId

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

TASK: Final = "tm_01jd0000000000000000000000"
SCOPE: Final = "a" * 64
POLICY: Final = "b" * 64
_HASHES: Final = {"ES256": hashes.SHA256(), "ES384": hashes.SHA384(), "ES512": hashes.SHA512()}


def claims(not_after: int, **changes: Any) -> dict[str, Any]:
    """Good claims until a Unix time; None takes one away."""
    good: dict[str, Any] = {
        "task": TASK,
        "scope_digest": SCOPE,
        "policy_digest": POLICY,
        "outcome": "approve",
        "not_after": not_after,
        "jti": secrets.token_hex(8),
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


@dataclass(frozen=True)
class Signer:
    """A private key that signs statements."""

    key: Key

    @classmethod
    def ed25519(cls) -> "Signer":
        """As transit's type ed25519."""
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def ecdsa(cls, curve: ec.EllipticCurve | None = None) -> "Signer":
        """As transit's type ecdsa-p256, and kin."""
        return cls(ec.generate_private_key(curve or ec.SECP256R1()))

    @classmethod
    def rsa(cls, bits: int = 2048) -> "Signer":
        """As transit's type rsa-2048."""
        return cls(rsa.generate_private_key(65537, bits))

    @property
    def public(self) -> ApproverKey:
        """The public half, as the daemon knows it."""
        return approver_key(self.key.public_key())

    def header(self, **changes: Any) -> dict[str, Any]:
        """The header; None takes a member away."""
        good = {"alg": self.public.algorithm, "kid": self.public.thumbprint, "typ": TYPE}
        return {name: value for name, value in (good | changes).items() if value is not None}

    def sign(self, body: dict[str, Any] | bytes, **header: Any) -> str:
        """Sign claims, or raw bytes."""
        payload = body if isinstance(body, bytes) else canonical(body)
        signed = f"{encode(json.dumps(self.header(**header)).encode())}.{encode(payload)}"
        return f"{signed}.{encode(self.signature(signed.encode()))}"

    def signature(self, signed: bytes) -> bytes:
        """Sign as RFC 7518 and RFC 8037 say."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(signed)
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        size = (self.key.curve.key_size + 7) // 8
        digest = _HASHES[self.public.algorithm]
        r, s = utils.decode_dss_signature(self.key.sign(signed, ec.ECDSA(digest)))
        return r.to_bytes(size) + s.to_bytes(size)


def jwk_set(*signers: Signer) -> bytes:
    """Their public keys, as a file of the config holds them."""
    return json.dumps({"keys": [public_jwk(signer.public) for signer in signers]}).encode()


def record(
    principal: str,
    *signers: Signer,
    groups: tuple[str, ...] = (),
    uids: tuple[int, ...] = (),
    spiffe_ids: tuple[str, ...] = (),
) -> ApproverRecord:
    """One person of the config."""
    return ApproverRecord(
        principal,
        f"/etc/{principal}.json",
        jwk_set(*signers) if signers else None,
        frozenset(groups),
        frozenset(uids),
        frozenset(map(SpiffeId.parse, spiffe_ids)),
    )
