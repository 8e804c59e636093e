"""
A certificate chain in, whether each name stays within what the authorities above may name out.

Pure. RFC 5280, sections 4.2.1.10 and 6.1.4, for URIs, which are what SPIFFE constrains (X509-SVID,
section 4.2), and for DNS names. Constraints on names of other kinds are not understood here: a
chain in which such a name stands below them is not within them. No certificate is exempt for being
self-issued, which is stricter than the RFC.
"""

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID


def within_constraints(chain: Sequence[x509.Certificate]) -> bool:
    """
    Whether a chain, leaf first and root last, keeps to its authorities' name constraints.

    Raises what cryptography raises for extensions that cannot be read.
    """
    for depth, authority in enumerate(chain[1:], start=1):
        try:
            found = authority.extensions.get_extension_for_class(x509.NameConstraints)
        except x509.ExtensionNotFound:
            continue
        names = [name for below in chain[:depth] for name in _names(below)]
        if not all(_is_allowed(name, found.value) for name in names):
            return False
    return True


def _names(certificate: x509.Certificate) -> Iterator[x509.GeneralName]:
    """Yield every name that a constraint may be about, the subject and its addresses included."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        yield from found.value
    except x509.ExtensionNotFound:
        pass
    if certificate.subject.rdns:
        yield x509.DirectoryName(certificate.subject)
    for address in certificate.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS):
        yield x509.RFC822Name(str(address.value))


def _is_allowed(name: x509.GeneralName, constraints: x509.NameConstraints) -> bool:
    permitted = [one for one in constraints.permitted_subtrees or () if type(one) is type(name)]
    excluded = [one for one in constraints.excluded_subtrees or () if type(one) is type(name)]
    if not permitted and not excluded:
        return True
    if isinstance(name, x509.UniformResourceIdentifier):
        host, covers = urlsplit(name.value).hostname, _covers_host
    elif isinstance(name, x509.DNSName):
        host, covers = name.value.lower(), _covers_dns
    else:
        return False
    if not host or any(covers(str(one.value).lower(), host) for one in excluded):
        return False
    return not permitted or any(covers(str(one.value).lower(), host) for one in permitted)


def _covers_host(constraint: str, host: str) -> bool:
    """A URI's: with a leading dot every domain below, without one this host alone."""
    return host.endswith(constraint) if constraint.startswith(".") else host == constraint


def _covers_dns(constraint: str, host: str) -> bool:
    """A DNS name's: itself and whatever labels are added on its left; empty is every name."""
    below = constraint if constraint.startswith(".") else f".{constraint}"
    return constraint in ("", host) or host.endswith(below)
