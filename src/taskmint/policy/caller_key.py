"""
A caller's own public key as text in, the one form in which it goes to Vault out, or why not.

Nothing of a request but the key and the proof that the caller holds it decides anything: names,
lifetimes and usages are the policy's. So a request that asks for anything else is refused, and a
role that would believe it gets no chance to. Nothing here reads a private key.
"""

import re
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from cryptography.x509 import CertificateSigningRequest, InvalidVersion, load_pem_x509_csr
from cryptography.x509.oid import NameOID

from taskmint.model.scope import KeyField

from .parameter import Refused

MAX_LENGTH: Final = 8192  # characters
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 4096  # verifying takes a tenth of a millisecond; 16,384 bits take ten
MAX_RSA_EXPONENT: Final = (1 << 32) - 1  # 65537 is usual; verifying costs more with each bit
KEY_TYPES: Final = "Ed25519, ECDSA on P-256, P-384 or P-521, or RSA of 2048 to 4096 bits"

_PublicKey: TypeAlias = object
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_PEM = re.compile(
    r"\s*-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----[A-Za-z0-9+/=\s]+"
    r"-----END (?:NEW )?CERTIFICATE REQUEST-----\s*",
    re.ASCII,
)
_SSH = re.compile(
    r"(?:ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa) [A-Za-z0-9+/]+={0,2}"
    r"(?: [\x20-\x7e]*)?\n?",
    re.ASCII,
)


def accept_key(field: KeyField, claimed: str, common_name: str | None) -> str | Refused:
    """
    Return the key as it is sent to Vault; `common_name` is the policy's, for a CSR.

    1. it is at most MAX_LENGTH characters and looks like what it must be, before any parser;
    2. the key is of an allowed type and size, before anything is verified with it;
    3. a CSR's signature is by that key: the caller holds the private one;
    4. a CSR asks for no extension and no attribute, and for no name but the policy's;
    5. written anew, so that nothing that a parser skipped goes on.
    """
    if len(claimed) > MAX_LENGTH:
        return Refused(f"is longer than {MAX_LENGTH} characters")
    try:
        if field is KeyField.CSR:
            return _csr(claimed, common_name)
        return _ssh(claimed)
    # NotImplementedError: an ECDSA key whose point is compressed, which OpenSSH never writes.
    except (ValueError, TypeError, NotImplementedError, UnsupportedAlgorithm, InvalidVersion):
        return Refused("cannot be read")


def _csr(text: str, common_name: str | None) -> str | Refused:
    if not _PEM.fullmatch(text):
        return Refused("is not one PEM block of a certificate request")
    request = load_pem_x509_csr(text.encode())
    if not is_allowed(request.public_key()):
        return Refused(f"has a key that is not {KEY_TYPES}")
    if not request.is_signature_valid:
        return Refused("is not signed by its own key")
    if any(True for _ in request.attributes):
        return Refused("asks for extensions or attributes, and only the policy decides these")
    if not _subject_fits(request, common_name):
        return Refused("has a subject; leave it empty, or write the policy's common name alone")
    return request.public_bytes(Encoding.PEM).decode()


def _subject_fits(request: CertificateSigningRequest, common_name: str | None) -> bool:
    names = [(name.oid, name.value) for name in request.subject]
    return not names or names == [(NameOID.COMMON_NAME, common_name)]


def _ssh(text: str) -> str | Refused:
    if not _SSH.fullmatch(text):
        return Refused("is not one line of an OpenSSH public key")
    key = load_ssh_public_key(text.encode())
    if not is_allowed(key):
        return Refused(f"is not {KEY_TYPES}")
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def is_allowed(key: _PublicKey) -> bool:
    """Say whether a public key is of a type and size that may be signed."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    if isinstance(key, rsa.RSAPublicKey):
        exponent = key.public_numbers().e
        return MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS and exponent <= MAX_RSA_EXPONENT
    return isinstance(key, ed25519.Ed25519PublicKey)
