"""
What the Workload API says about X.509 in, our own SVID and every trust domain's roots out.

Nothing here verifies a peer. A bundle that cannot be read costs its own trust domain only.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from taskmint.model.der import split_der
from taskmint.model.secret import Secret
from taskmint.model.spiffe import SpiffeId

X509Bundles: TypeAlias = Mapping[str, tuple[x509.Certificate, ...]]

UNREADABLE: Final = (  # what cryptography raises, late, for parts of a certificate
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class OwnSvid:
    """Our own X.509-SVID: DER chain, leaf first, and its key as PKCS #8 DER."""

    spiffe_id: SpiffeId
    chain: tuple[bytes, ...]
    key: Secret[bytes] = field(repr=False)
    expires_at: datetime


def parse_own_svid(spiffe_id: str, chain: bytes, key: bytes) -> OwnSvid:
    """Read the SVID that the agent gave us. Raises ValueError."""
    certificates = split_der(chain)
    if not certificates:
        raise ValueError("an X.509-SVID has a certificate")
    try:
        serialization.load_der_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("an X.509-SVID has a key in the clear, of a kind that is known") from None
    return OwnSvid(
        spiffe_id=SpiffeId.parse(spiffe_id),
        chain=certificates,
        key=Secret(key),
        expires_at=load_certificate(certificates[0]).not_valid_after_utc,
    )


def parse_x509_bundle(der: bytes) -> tuple[x509.Certificate, ...]:
    """
    Read concatenated DER roots; none is valid and trusts nobody. Raises ValueError.

    Roots are read to the end, here and by OpenSSL: later they stand beside other trust domains',
    and what could not be read then would shut the door for all.
    """
    roots = tuple(map(load_certificate, split_der(der)))
    try:
        for root in roots:
            _ = root.subject, root.issuer, root.extensions
        if roots:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=der)
    except UNREADABLE:
        raise ValueError("a root has a name or an extension that cannot be read") from None
    except ssl.SSLError:
        raise ValueError("a root that OpenSSL cannot read") from None
    return roots


def x509_authority(trust_domain: str, certificate: x509.Certificate) -> str:
    """Name an authority, for telling later whether it was withdrawn."""
    return f"x509:{trust_domain}#{certificate.fingerprint(hashes.SHA256()).hex()}"


def load_certificate(der: bytes) -> x509.Certificate:
    """Read one certificate. Raises ValueError, whatever the library raises."""
    try:
        return x509.load_der_x509_certificate(der)
    except (UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise ValueError("not a certificate that can be read") from error
