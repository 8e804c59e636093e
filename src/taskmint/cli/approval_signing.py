"""
The key that an approver names in, a signed statement out. A private key is never an argument.

`transit:NAME` signs in Vault with the approver's own token; `jwk:FILE` with a private JWK.
"""

import asyncio
import base64
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from taskmint.canonical import canonical
from taskmint.errors import TaskmintError, Unavailable
from taskmint.identity.approver_keys import ApproverKey, approver_key
from taskmint.identity.statements import TYPE
from taskmint.model.printable import printable
from taskmint.model.scope import Json
from taskmint.model.secret import Secret
from taskmint.strict_json import decode_object
from taskmint.vault.settings import VaultSettings
from taskmint.vault.transit import Transit

from .admin_socket import EXIT_FINDING, EXIT_UNREACHABLE

_TIMEOUT: Final = timedelta(seconds=30)
_ED25519_BYTES: Final = 32
_HASHES: Final = {"ES256": hashes.SHA256(), "ES384": hashes.SHA384(), "ES512": hashes.SHA512()}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key to sign with: its public half, and how."""

    public: ApproverKey
    sign: Callable[[bytes], bytes]


def signing_key(named: str, mount: str) -> SigningKey:
    """Find the key that an option names; says what is wrong, and exits."""
    kind, _, name = named.partition(":")
    if kind == "transit" and name:
        return _in_transit(name, mount)
    if kind == "jwk" and name:
        return _in_file(Path(name))
    raise click.BadParameter("write transit:NAME or jwk:FILE", param_hint="--key")


def statement(task: str, shown: Mapping[str, Any], outcome: str, not_after: int) -> dict[str, Json]:
    """State one's word about what was shown; each has an id of its own."""
    return {
        "jti": secrets.token_urlsafe(18),
        "not_after": not_after,
        "outcome": outcome,
        "policy_digest": str(shown["policy_digest"]),
        "scope_digest": str(shown["scope_digest"]),
        "task": task,
    }


def signed(said: Mapping[str, Json], key: SigningKey) -> str:
    """Sign a statement: a compact JWS (RFC 7515, section 7.1)."""
    header = canonical({"alg": key.public.algorithm, "kid": key.public.thumbprint, "typ": TYPE})
    unsigned = f"{encode(header)}.{encode(canonical({**said}))}"
    return f"{unsigned}.{encode(key.sign(unsigned.encode()))}"


def encode(raw: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _in_file(path: Path) -> SigningKey:
    try:
        private = jwt.PyJWK.from_dict(decode_object(path.read_bytes())).key
        public = approver_key(private.public_key())
    except (OSError, ValueError, AttributeError, jwt.PyJWTError):
        _leave(EXIT_FINDING, f"{path} is not a private JWK that signs")
    return SigningKey(public, lambda text: _sign(private, public.algorithm, text))


def _sign(private: object, algorithm: str, text: bytes) -> bytes:
    match private:
        case ed25519.Ed25519PrivateKey():
            return private.sign(text)
        case rsa.RSAPrivateKey():
            return private.sign(text, padding.PKCS1v15(), hashes.SHA256())
        case ec.EllipticCurvePrivateKey():
            r, s = utils.decode_dss_signature(private.sign(text, ec.ECDSA(_HASHES[algorithm])))
            size = (private.curve.key_size + 7) // 8
            return r.to_bytes(size) + s.to_bytes(size)
        case _:
            raise TypeError("a private key of a kind that approver_key refuses")


def _in_transit(name: str, mount: str) -> SigningKey:
    address = os.environ.get("BAO_ADDR") or os.environ.get("VAULT_ADDR")
    token = os.environ.get("BAO_TOKEN") or os.environ.get("VAULT_TOKEN")
    if not address or not token:
        raise click.UsageError("set VAULT_ADDR, and VAULT_TOKEN to your own token")
    ca_file = os.environ.get("BAO_CACERT") or os.environ.get("VAULT_CACERT")
    settings = VaultSettings(
        address,
        namespace=os.environ.get("BAO_NAMESPACE") or os.environ.get("VAULT_NAMESPACE"),
        ca_file=Path(ca_file) if ca_file else None,
        timeout=_TIMEOUT,
    )
    transit = Transit(settings, Secret(token), mount)
    try:
        held = asyncio.run(transit.read(name))
        public = approver_key(_public(held.public))
    except TaskmintError as error:
        _give_up(error)
    except ValueError as error:
        _leave(EXIT_FINDING, f"{mount}/keys/{name}: {error}")

    def sign(text: bytes) -> bytes:
        try:
            return asyncio.run(transit.sign(name, held.version, public.algorithm, text))
        except TaskmintError as error:
            _give_up(error)

    return SigningKey(public, sign)


def _public(text: str) -> object:
    """Read transit's form of a public key. Raises ValueError."""
    if text.startswith("-----"):
        return load_pem_public_key(text.encode())
    raw = base64.b64decode(text, validate=True)
    if len(raw) != _ED25519_BYTES:
        raise ValueError("not a public key")
    return ed25519.Ed25519PublicKey.from_public_bytes(raw)


def _give_up(error: TaskmintError) -> NoReturn:
    code = EXIT_UNREACHABLE if isinstance(error, Unavailable) else EXIT_FINDING
    _leave(code, f"{error.detail}; {error.fix}".rstrip("; "))


def _leave(code: int, sentence: str) -> NoReturn:
    click.echo(f"taskmint: {printable(sentence)}", err=True)
    sys.exit(code)
