"""
An approver's transit key: its public half out, and signatures in the form that a JWS carries.

With the approver's own token, and only the two requests that this takes. Written from the transit
engine's API page: `keys/:name`, `sign/:name` with `marshaling_algorithm: jws`.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from taskmint.errors import BackendFailed, Code
from taskmint.model.scope import Json
from taskmint.model.secret import Secret

from .http import Door, Transport
from .responses import Meaning, Reply, failure
from .settings import VaultSettings

_HASHES: Final = {"ES256": "sha2-256", "ES384": "sha2-384", "ES512": "sha2-512"}
_STANDARD: Final = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class TransitKey:
    """The newest version of a key: PEM, or the base64 of 32 bytes for Ed25519."""

    version: int
    public: str


@dataclass(frozen=True, slots=True)
class Transit:
    """One mount of one server, seen with one token."""

    settings: VaultSettings
    token: Secret[str]
    mount: str = "transit"

    async def read(self, name: str) -> TransitKey:
        """Read the newest public key. Raises Unavailable, BackendFailed."""
        reply = await self._ask("GET", f"{self.mount}/keys/{name}", None, "reading the key")
        data = cast("Mapping[str, Any]", reply.part("data"))
        try:
            version = int(data["latest_version"])
            return TransitKey(version, str(data["keys"][str(version)]["public_key"]))
        except (KeyError, TypeError, ValueError):
            raise _strange(f"{name} is no key that signs with a public half") from None

    async def sign(self, name: str, version: int, algorithm: str, signed: bytes) -> bytes:
        """Sign with one version; returns what stands in a JWS. Raises as `read` does."""
        body: dict[str, Json] = {
            "input": base64.b64encode(signed).decode(),
            "key_version": version,
        }
        if algorithm in _HASHES:
            body |= {"marshaling_algorithm": "jws", "hash_algorithm": _HASHES[algorithm]}
        elif algorithm == "RS256":
            body |= {"signature_algorithm": "pkcs1v15", "hash_algorithm": "sha2-256"}
        reply = await self._ask("POST", f"{self.mount}/sign/{name}", body, "signing")
        text = str(reply.part("data").get("signature"))
        prefix, _, encoded = text.rpartition(":")
        if not prefix.endswith(f":v{version}"):
            raise _strange("the signature is of another version of the key")
        try:
            standard = encoded.translate(_STANDARD)  # base64url of ECDSA, base64 of the others
            return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except binascii.Error:
            raise _strange("the signature cannot be read") from None

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Json] | None, what: str
    ) -> Reply:
        async with Transport(self.settings) as transport:
            door = Door(
                transport, self.token, lambda verb, asked, _: (verb, asked) == (method, path)
            )
            reply = await door.request(method, f"/v1/{path}", json=body)
        if reply.meaning is Meaning.DENIED:
            raise BackendFailed(
                Code.VAULT_ERROR,
                f"Vault does not permit {what} with this token",
                fix="log in again, or ask for a policy as in docs/approvals.md",
            )
        if reply.meaning is not Meaning.DONE:
            raise failure(reply, what)
        return reply


def _strange(what: str) -> BackendFailed:
    return BackendFailed(Code.VAULT_ERROR, f"Vault's transit engine: {what}")
