"""
Our own X.509-SVID and the believed bundles in, TLS terms for the task socket out.

The terms are the same for every connection until the agent says otherwise; then new connections
get new ones, and what is open is verified again with each request (prover.py). There is no
resumption: a resumed session would outlive the authority that it was opened under.
"""

import os
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from taskmint.errors import Code, TaskmintError

from .believer import Believed
from .prover import Prover
from .roots import roots_for_openssl
from .x509_context import OwnSvid, X509Bundles

_log = structlog.get_logger()


class TlsTerms:
    """What new connections are offered, and whom they let in. Fits api.listener.TlsTerms."""

    def __init__(self, prover: Prover) -> None:
        self._prover = prover
        self._built_from = Believed()
        self._context: ssl.SSLContext | None = None
        self._why_not = ""

    def context(self) -> ssl.SSLContext | None:
        """Return the terms for a connection that opens now; None while we have no SVID."""
        believed = self._prover.believer.now()
        if believed is not self._built_from:
            self._context, self._why_not = None, "this daemon has no X.509-SVID that can be read"
            self._built_from = believed
            if believed.own is not None and believed.x509:
                try:
                    self._context = server_context(believed.own, believed.x509)
                except ValueError as error:
                    self._why_not = str(error)
                    _log.error("tls_not_offered", reason=self._why_not)
        return self._context

    def ready(self) -> str | None:
        """None when callers can come by mutual TLS now, else the reason why not."""
        why_not = self._prover.believer.ready_x509()
        return why_not or (self._why_not if self.context() is None else None)

    def admit(self, session: ssl.SSLObject) -> tuple[bytes, ...]:
        """Return the caller's verified chain. Raises Unproven, Unavailable."""
        return self._prover.admit(verified_chain(session), presented_chain(session))


def check_tls_support() -> None:
    """
    Make sure that this Python tells us a peer's chains, which 3.11 keeps private.

    Raises TaskmintError(config_invalid).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    session = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    chains = ("get_verified_chain", "get_unverified_chain")
    if not all(hasattr(_source(session), name) for name in chains) or not ssl.HAS_TLSv1_3:
        raise TaskmintError(
            Code.CONFIG_INVALID,
            "this Python's ssl module has no TLS 1.3 or does not show a peer's chain",
            fix="run CPython 3.11 or later with OpenSSL 1.1.1 or later",
        )


def verified_chain(session: ssl.SSLObject) -> tuple[bytes, ...]:
    """Return the chain that OpenSSL verified, leaf first and root last, as DER; () without one."""
    return _all_der(_source(session).get_verified_chain())


def presented_chain(session: ssl.SSLObject) -> tuple[bytes, ...]:
    """Return the certificates that the peer sent, leaf first, as DER; () without one."""
    return _all_der(_source(session).get_unverified_chain())


def server_context(own: OwnSvid, bundles: X509Bundles) -> ssl.SSLContext:
    """
    Build what the task socket speaks: TLS 1.3, our SVID, and a certificate demanded of callers.

    Raises ValueError when the SVID or a root cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, own, bundles)
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def client_context(own: OwnSvid, bundles: X509Bundles) -> ssl.SSLContext:
    """Build a workload's side: names are not checked here, because a SPIFFE ID is no host name."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, own, bundles)
    context.check_hostname = False
    return context


def _context(protocol: int, own: OwnSvid, bundles: X509Bundles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # A bundle may hold an authority that is not self-signed (X509-SVID, section 5.1).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    intermediates = [x509.load_der_x509_certificate(der) for der in own.chain[1:]]
    roots = b"".join(roots_for_openssl(own.spiffe_id.trust_domain, bundles, intermediates))
    try:
        if roots:
            context.load_verify_locations(cadata=roots)
        with _memory_file(_pem(own)) as path:
            context.load_cert_chain(path)
    except ssl.SSLError as error:
        raise ValueError(f"the X.509-SVID cannot be used: {error.reason or error}") from None
    return context


def _pem(own: OwnSvid) -> bytes:
    key = serialization.load_der_private_key(own.key.reveal(), password=None)
    texts = [
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    ]
    for der in own.chain:
        certificate = x509.load_der_x509_certificate(der)
        texts.append(certificate.public_bytes(serialization.Encoding.PEM))
    return b"".join(texts)


@contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    """Hold the content in a file that is on no disk, for OpenSSL reads keys from files only."""
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        os.set_blocking(descriptor, False)
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


_ENCODING_DER: Final = 2  # _ssl.ENCODING_DER


def _source(session: ssl.SSLObject) -> Any:
    """Return what has get_verified_chain: the session from Python 3.13, its inside before."""
    if hasattr(session, "get_verified_chain"):
        return session
    return getattr(session, "_sslobj", None)


def _all_der(chain: Iterable[Any] | None) -> tuple[bytes, ...]:
    return tuple(
        one if isinstance(one, bytes) else bytes(one.public_bytes(_ENCODING_DER))
        for one in chain or ()
    )
