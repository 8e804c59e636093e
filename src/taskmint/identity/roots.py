"""
Every believed trust domain's roots in, those that OpenSSL may look for issuers among out. Pure.

OpenSSL takes the first root of the issuer's name and key id, and looks for no other when that one
does not verify. So of two roots that it may take for one another only one is given to it: our own
trust domain's, or else that of the first domain by name; nor any that it may take for an
intermediate of ours. A chain that it ends in the wrong one of two good ones is put right afterwards
(prover.py, `admit`).
"""

from collections.abc import Iterator, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from .x509_context import X509Bundles


def roots_for_openssl(
    own: str, bundles: X509Bundles, intermediates: Sequence[x509.Certificate] = ()
) -> Iterator[bytes]:
    """
    Yield roots as DER, those of the trust domain `own` first.

    `intermediates` are those of its authorities that we know of: our own SVID's. A partner may list
    a certificate like one of them, and OpenSSL looks among roots before it looks at what is sent.
    """
    given: dict[object, list[x509.Certificate]] = {}
    for domain in (own, *sorted(bundles.keys() - {own})):
        fresh = [
            root
            for root in bundles.get(domain, ())
            if not any(_alike(root, other) for other in given.get(_name(root), ()))
        ]
        for root in fresh:  # a domain's own roots do not shut each other out
            given.setdefault(_name(root), []).append(root)
            yield root.public_bytes(Encoding.DER)
        if domain == own:
            for known in intermediates:
                given.setdefault(_name(known), []).append(known)


def _name(certificate: x509.Certificate) -> object:
    """Tell names apart no better than OpenSSL does: by letter, not by case, spaces or encoding."""
    return tuple(
        frozenset((part.oid, " ".join(str(part.value).casefold().split())) for part in level)
        for level in certificate.subject.rdns
    )


def _alike(one: x509.Certificate, other: x509.Certificate) -> bool:
    """Whether OpenSSL may take one for the other, given that their names are the same."""
    ids = _key_id(one), _key_id(other)
    return one != other and (ids[0] == ids[1] or None in ids)


def _key_id(certificate: x509.Certificate) -> bytes | None:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    return found.value.digest
