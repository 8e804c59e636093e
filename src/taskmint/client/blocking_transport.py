"""
One request on a plain socket, and its answer: a connection each, with a deadline.

The daemon's task and admin sockets, and the Workload API. transport.py is the same from asyncio.
"""

import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, TypeVar

from . import calls, svid
from .http1 import Answer
from .http2 import GrpcFailure, UnaryCall
from .proof import Proof

if TYPE_CHECKING:
    from .mutual_tls import Terms

T = TypeVar("T")

_CHUNK: Final = 65536


class _Line:
    """A connected socket, all of whose operations together end by one deadline."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def send(self, data: bytes) -> None:
        self._connection.settimeout(self._left())
        self._connection.sendall(data)

    def receive(self) -> bytes:
        """Return at least one byte. Raises EOFError."""
        self._connection.settimeout(self._left())
        data = self._connection.recv(_CHUNK)
        if not data:
            raise EOFError("the connection was closed before the answer was complete")
        return data

    def connect(self, address: str | tuple[str, int]) -> None:
        self._connection.settimeout(self._left())
        self._connection.connect(address)

    def secure(self, terms: "Terms") -> None:
        """Go on in TLS, with the daemon that was expected. Raises WrongDaemon."""
        self._connection.settimeout(self._left())
        self._connection = terms.secure(self._connection)

    def close(self) -> None:
        self._connection.close()

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def exchange(
    path: str,
    request: bytes,
    seconds: float,
    meanwhile: Callable[[], None] | None = None,
    terms: "Terms | None" = None,
) -> dict[str, Any]:
    """
    Send a request to the daemon and read its answer: a connection each, with a deadline.

    `meanwhile` is called between the two; where there are `terms`, both go over TLS.
    """
    answer = Answer()
    sent = False
    try:
        with closing(_Line(socket.socket(socket.AF_UNIX), time.monotonic() + seconds)) as line:
            line.connect(path)
            if terms is not None:
                line.secure(terms)
            sent = True
            line.send(request)
            if meanwhile is not None:
                meanwhile()
            while not answer.complete:
                answer.feed(line.receive())
    except (OSError, EOFError) as error:  # TimeoutError is an OSError
        raise calls.broken(path, error, seconds, sent=sent) from error
    return calls.read(answer)


def token() -> tuple[Proof, float]:
    """Ask for a JWT-SVID; also returns for how many seconds it is to be held."""
    held = _ask(svid.question(svid.DEFAULT_AUDIENCE), svid.read)
    return Proof(held.token), held.refresh_at - time.time()


def terms_of(daemon: str) -> tuple[Proof, float]:
    """Ask for an X.509-SVID; also returns for how many seconds it is to be held."""
    from . import mutual_tls  # noqa: PLC0415 - ssl is 20 ms that most do not need

    expected = mutual_tls.expected(daemon)
    terms = _ask(mutual_tls.question(), lambda message: mutual_tls.terms(message, expected))
    return Proof(terms=terms), mutual_tls.HOLD_SECONDS


def _ask(call: UnaryCall, read: Callable[[bytes], T]) -> T:
    """Ask the Workload API."""
    where = svid.endpoint(None)
    line = _Line(socket.socket(_family(where)), time.monotonic() + svid.FETCH_SECONDS)
    try:
        with closing(line):
            line.connect(where.path or (where.host, where.port))
            line.send(call.opening())
            while call.answer is None:
                line.send(call.receive(line.receive()))
        return read(call.answer)
    except (GrpcFailure, OSError, EOFError, ValueError) as error:
        raise svid.failure(where.path or where.host, error) from error


def _family(where: svid.Endpoint) -> socket.AddressFamily:
    if where.path is not None:
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in where.host else socket.AF_INET
