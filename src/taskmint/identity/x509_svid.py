"""
A certificate chain in, a verified X.509-SVID out. Pure: no clock, no network, no state.

Written from the X509-SVID standard. Of a caller's chain OpenSSL has verified much during the
handshake, but against the roots of every trust domain at once; of an approver's it has seen
nothing. So that the chain ends in a root of the leaf's *own* trust domain is decided here, and the
rest is not taken on trust.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import pairwise
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, ObjectIdentifier

from taskmint.errors import Code, Unproven
from taskmint.model.spiffe import SpiffeId

from .jwt_bundle import MIN_RSA_BITS
from .name_constraints import within_constraints
from .x509_context import UNREADABLE, X509Bundles, load_certificate, x509_authority

E = TypeVar("E", bound=x509.ExtensionType)

MAX_CERTIFICATES: Final = 8
_READ: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
    }
)


@dataclass(frozen=True, slots=True)
class X509Svid:
    """
    A verified leaf; it is valid while every certificate of its chain is.

    `authority` names the root that the chain ends in; `evidence` is the SHA-256 (hex) of what was
    signed of the leaf.
    """

    spiffe_id: SpiffeId
    authority: str
    not_before: datetime
    expires_at: datetime
    evidence: str


def verify_x509_svid(
    chain: tuple[bytes, ...],
    bundles: X509Bundles,
    now: datetime,
    purpose: ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
) -> X509Svid:
    """
    Verify a DER chain, leaf first and root last, against believed trust domains' bundles.

    1. One to eight certificates that can be read.
    2. The leaf names exactly one URI, a SPIFFE ID with a path (X509-SVID, sections 2 and 5.2).
    3. The leaf may sign data and nothing else (sections 4.1, 4.3, 5.2), for this purpose (4.4).
    4. Each certificate is signed by the next, which is an authority (sections 3.2 and 5.1,
       RFC 5280, 6.1).
    5. Each name is one that every authority above it may name (section 4.2, RFC 5280, 4.2.1.10).
    6. No certificate says something critical that nobody here understands (RFC 5280, 4.2).
    7. The last one stands in the bundle of the leaf's own trust domain.
    8. All of them are valid now.

    Raises Unproven: credential_invalid, credential_expired.
    """
    # 1.
    if not 0 < len(chain) <= MAX_CERTIFICATES:
        raise _invalid("The certificate chain is empty or too long.")
    try:
        certificates = tuple(map(load_certificate, chain))
        # 2.
        spiffe_id = _spiffe_id(certificates[0])
        # 3.
        _check_leaf(certificates[0], purpose)
        # 4.
        for depth, (child, issuer) in enumerate(pairwise(certificates)):
            _check_issued(child, issuer, depth)
        # 5.
        if not within_constraints(certificates):
            raise _invalid("The chain has a name that one of its authorities may not name.")
        # 6.
        _check_critical(certificates)
        begins = max(certificate.not_valid_before_utc for certificate in certificates)
        ends = min(certificate.not_valid_after_utc for certificate in certificates)
    except UNREADABLE:
        raise _invalid("A certificate cannot be read.") from None
    # 7.
    if certificates[-1] not in bundles.get(spiffe_id.trust_domain, ()):
        raise _invalid("The certificate is signed by no authority of its trust domain.")
    # 8.
    svid = X509Svid(
        spiffe_id=spiffe_id,
        authority=x509_authority(spiffe_id.trust_domain, certificates[-1]),
        not_before=begins,
        expires_at=ends,
        evidence=sha256(certificates[0].tbs_certificate_bytes).hexdigest(),
    )
    check_validity(svid, now)
    return svid


def completed(chain: tuple[bytes, ...], bundles: X509Bundles) -> Iterator[tuple[bytes, ...]]:
    """
    Yield chains that begin as this one does and end in the bundle of its leaf's trust domain.

    Holders do not send their root, and what others take for it may be another domain's certificate
    of the same name and key. Nothing is verified here; of what cannot be read comes nothing.
    """
    try:
        certificates = tuple(map(load_certificate, chain[:MAX_CERTIFICATES]))
        domain = _spiffe_id(certificates[0]).trust_domain if certificates else ""
        issuers = [certificate.issuer for certificate in certificates]
    except (*UNREADABLE, Unproven):
        return
    for end in range(len(issuers), 0, -1):
        for root in bundles.get(domain, ()):
            if root.subject == issuers[end - 1]:
                yield (*chain[:end], root.public_bytes(Encoding.DER))


def check_validity(svid: X509Svid, now: datetime) -> None:
    """Refuse what is expired or not valid yet. Raises Unproven."""
    if now > svid.expires_at:
        raise Unproven(
            Code.CREDENTIAL_EXPIRED,
            "The certificate has expired.",
            fix="connect again with a new X.509-SVID from the Workload API",
        )
    if now < svid.not_before:
        raise _invalid("The certificate is not valid yet.")


def _invalid(detail: str) -> Unproven:
    return Unproven(
        Code.CREDENTIAL_INVALID,
        detail,
        fix="connect with an X.509-SVID as the Workload API issued it",
    )


def _uris(certificate: x509.Certificate) -> list[str]:
    names = _extension(certificate, x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.UniformResourceIdentifier) if names else []


def _is_workload(uri: str) -> bool:
    """Whether an authority's URI is one that authorities must not have (section 3.2)."""
    if not uri.lower().startswith("spiffe:"):
        return False
    try:
        return SpiffeId.parse(uri).path != ""
    except ValueError:
        return True


def _spiffe_id(leaf: x509.Certificate) -> SpiffeId:
    uris = _uris(leaf)
    if len(uris) != 1:
        raise _invalid("The certificate does not name exactly one SPIFFE ID.")
    try:
        spiffe_id = SpiffeId.parse(uris[0])
    except ValueError:
        raise _invalid("The certificate's URI is not a SPIFFE ID.") from None
    if not spiffe_id.path:
        raise _invalid("The certificate names a trust domain, not a workload.")
    return spiffe_id


def _check_leaf(leaf: x509.Certificate, purpose: ObjectIdentifier) -> None:
    if _is_authority(leaf):
        raise _invalid("The certificate is an authority's, not a workload's.")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or not usage.critical or not usage.value.digital_signature:
        raise _invalid("The certificate's key usage does not allow signatures.")
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise _invalid("The certificate's key may sign certificates.")
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    if extended is not None and purpose not in extended.value:
        raise _invalid("The certificate is for another purpose.")
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        strong = key.key_size >= MIN_RSA_BITS
    else:
        strong = isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey)
    if not strong:
        raise _invalid("The certificate's key is too weak.")


def _check_issued(child: x509.Certificate, issuer: x509.Certificate, below: int) -> None:
    """Check one link; `below` is how many authorities stand between the issuer and the leaf."""
    constraints = _extension(issuer, x509.BasicConstraints)
    usage = _extension(issuer, x509.KeyUsage)
    if not _is_authority(issuer) or constraints is None:
        raise _invalid("A certificate of the chain is signed by one that is no authority.")
    if usage is not None and not usage.value.key_cert_sign:
        raise _invalid("An authority of the chain may not sign certificates.")
    if any(_is_workload(uri) for uri in _uris(issuer)):
        raise _invalid("An authority of the chain has the identity of a workload.")
    length = constraints.value.path_length
    if length is not None and below > length:
        raise _invalid("The chain is longer than one of its authorities allows.")
    try:
        child.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError):
        raise _invalid("A signature of the chain is wrong.") from None


def _check_critical(certificates: tuple[x509.Certificate, ...]) -> None:
    for certificate in certificates:
        for extension in certificate.extensions:
            if extension.critical and extension.oid not in _READ:
                raise _invalid("A certificate carries a critical extension that is not known.")


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.value.ca


def _extension(certificate: x509.Certificate, kind: type[E]) -> x509.Extension[E] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
