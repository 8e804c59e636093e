"""
Mutual TLS with a daemon whose SPIFFE ID is known beforehand, by an X.509-SVID (SPIFFE X509-SVID).

    1. the SVID and the bundles come from the Workload API (FetchX509SVID), and stay in memory
    2. TLS 1.3 verifies the daemon's chain against the bundle of the trust domain that its expected
       ID names, and against no other: so no other trust domain can speak for it
    3. the certificate carries exactly one URI, and that is the expected ID
    4. only then is a byte of the request sent

Without this, whoever may bind the socket's path could collect tokens; a JWT-SVID for the audience
`taskmint` is worth something to whoever reads it. Imported only when asked for: ssl costs 20 ms.
"""

import base64
import os
import socket
import ssl
import textwrap
from typing import Any, Final, NamedTuple

from taskmint.model.der import split_der
from taskmint.model.spiffe import SpiffeId

from .errors import WrongDaemon
from .http2 import UnaryCall
from .protobuf import X509Svid, first_x509_svid
from .svid import METADATA

HOLD_SECONDS: Final = 10.0  # then the agent is asked again: it swaps an SVID long before its end

_METHOD: Final = "/SpiffeWorkloadAPI/FetchX509SVID"
_ANY: Final = "*"
_HEAD: Final = 3  # of "spiffe://trust-domain/path", split at the slashes
_FIX: Final = "write it as spiffe://example.org/taskmint; * stands for one whole segment"


class Terms(NamedTuple):
    """What connections are opened with, and whom they must find; `leaf` is our certificate."""

    context: ssl.SSLContext
    daemon: str
    leaf: bytes

    def __repr__(self) -> str:
        return f"Terms(daemon={self.daemon!r})"

    def secure(self, connection: socket.socket) -> ssl.SSLSocket:
        """Go on in TLS on a connected socket (steps 2 and 3). Raises WrongDaemon, OSError."""
        try:
            secured = self.context.wrap_socket(connection)
        except ssl.SSLCertVerificationError as error:
            raise unverified(error) from error
        try:
            verify(secured, self.daemon)
        except WrongDaemon:
            secured.close()
            raise
        return secured


def expected(text: str) -> str:
    """
    Read what the daemon's SPIFFE ID is to be; `*` stands for one whole segment of its path.

    Raises WrongDaemon for what no daemon can be.
    """
    head, path = text.split("/")[:_HEAD], text.split("/")[_HEAD:]
    try:
        domain = SpiffeId.parse("/".join(head))
        SpiffeId.parse("/".join([*head, *("any" if one == _ANY else one for one in path)]))
    except ValueError as error:
        raise WrongDaemon(f"no daemon can have the SPIFFE ID {text!r}: {error}", fix=_FIX) from None
    if not path:
        raise WrongDaemon(f"{text!r} is a trust domain's ID, not a daemon's", fix=_FIX)
    return "/".join([str(domain), *path])


def question() -> UnaryCall:
    """Return the call that asks for an X.509-SVID: the first message of a stream without end."""
    return UnaryCall(_METHOD, b"", METADATA, streaming=True)


def terms(message: bytes, daemon: str) -> Terms:
    """Read the agent's answer and build what is spoken to `daemon` (step 2). Raises ValueError."""
    svid = first_x509_svid(message)
    chain = split_der(svid.chain)
    if not chain or not svid.key:
        raise ValueError("an X.509-SVID has a certificate and a key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a SPIFFE ID is no host name: see verify
    # A bundle may hold an authority that is not self-signed (X509-SVID, section 5.1).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=_bundle(svid, daemon))
        _load(context, chain, svid.key)
    except ssl.SSLError as error:
        raise ValueError(f"the X.509-SVID cannot be used: {error.reason}") from None
    return Terms(context, daemon, chain[0])


def verify(session: ssl.SSLSocket | ssl.SSLObject, daemon: str) -> None:
    """Compare the one URI of a verified peer's certificate (step 3). Raises WrongDaemon."""
    alternatives: Any = (session.getpeercert() or {}).get("subjectAltName", ())
    names = [str(text) for kind, text in alternatives if kind == "URI"]
    if len(names) != 1 or not _matches(names[0], daemon):
        raise WrongDaemon(
            f"the daemon proves to be {' and '.join(map(repr, names)) or 'nobody'}, "
            f"and should be {daemon!r}",
            fix="somebody else answers on this socket, or correct the expected SPIFFE ID",
        )


def unverified(error: ssl.SSLCertVerificationError) -> WrongDaemon:
    """Say that no chain led from the daemon's certificate to its trust domain (step 2)."""
    return WrongDaemon(
        f"what answers on the socket cannot prove who it is: {error.verify_message}",
        fix="somebody else answers on this socket, or its trust domain is not federated with ours",
    )


def _matches(name: str, daemon: str) -> bool:
    try:
        found = str(SpiffeId.parse(name)).split("/")
    except ValueError:
        return False
    wanted = daemon.split("/")
    return len(found) == len(wanted) and all(
        want in (_ANY, have) for have, want in zip(found, wanted, strict=True)
    )


def _bundle(svid: X509Svid, daemon: str) -> bytes:
    domain = "/".join(daemon.split("/")[:_HEAD])
    own = f"spiffe://{SpiffeId.parse(svid.spiffe_id).trust_domain}"
    bundle = svid.bundle if own == domain else svid.federated.get(domain, b"")
    if not bundle:
        raise ValueError(f"the agent gives no bundle of {domain}")
    return bundle


def _load(context: ssl.SSLContext, chain: tuple[bytes, ...], key: bytes) -> None:
    """Hand over chain and key through a file that is on no disk: OpenSSL reads files only."""
    pem = _pem("PRIVATE KEY", key) + b"".join(_pem("CERTIFICATE", der) for der in chain)
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        os.set_blocking(descriptor, False)  # memory never blocks, which a loop's guard cannot know
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _pem(label: str, der: bytes) -> bytes:
    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode("ascii"), 64))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode("ascii")
