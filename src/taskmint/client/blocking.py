"""
The client without asyncio: what `taskmint run` is built on.

It asks, reads and times exactly as client.py does (calls, svid, timing, answers); only the sockets
and the heartbeats' thread are its own. asyncio would cost every run 25 ms of imports.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, TypeVar

from . import calls, svid
from .answers import FORGOTTEN, Credential, Ended, Started, ended, started
from .errors import ClientError, Refused
from .http1 import Answer
from .http2 import GrpcFailure, UnaryCall
from .proof import Proof
from .timing import Patience, Pulse, is_forgotten, is_over

if TYPE_CHECKING:
    from .mutual_tls import Terms

T = TypeVar("T")

_CHUNK: Final = 65536


class BlockingClient:
    """
    A daemon and a Workload API, both where the environment says.

    Where it names the daemon's SPIFFE ID, too, they speak by mutual TLS. Every method raises
    Unreachable, Interrupted, BadAnswer, Refused, WrongDaemon or NoIdentity.
    """

    def __init__(self) -> None:
        self._socket = calls.default_socket()
        self._daemon = calls.expected_daemon()
        self._held = Proof()
        self._held_until = 0.0  # by the monotonic clock

    def proof(self, *, fresh: bool = False) -> Proof:
        """Return what proves this process; `fresh` asks the Workload API again."""
        if fresh or time.monotonic() >= self._held_until:
            self._held, seconds = _token() if self._daemon is None else _terms(self._daemon)
            self._held_until = time.monotonic() + seconds
        return self._held

    def start(
        self, body: Mapping[str, object], meanwhile: Callable[[], None] | None = None
    ) -> "BlockingTask":
        """
        Start a task; a connection that breaks is made anew, under the same Idempotency-Key.

        `meanwhile` is called while the daemon mints, which takes it some 20 ms.
        """
        key = os.urandom(16).hex()
        patience = Patience(time.monotonic(), at_first=False)
        while True:
            try:
                proof, answer = self._call(
                    lambda proof: calls.start(proof, body, key), calls.START_SECONDS, meanwhile
                )
                return BlockingTask(self, started(answer), proof)
            except ClientError as error:
                _pause_or_raise(patience, error)

    def heartbeat(self, task: str, proof: Proof) -> None:
        """Say that a task lives."""
        request = calls.heartbeat(proof, task)
        started(exchange(self._socket, request, calls.HEARTBEAT_SECONDS, terms=proof.terms))

    def end(self, task: str, outcome: calls.Outcome) -> Ended:
        """End a task; a daemon that is away is asked again for ten seconds."""
        patience = Patience(time.monotonic(), at_first=True)
        while True:
            try:
                _, answer = self._call(
                    lambda proof: calls.end(proof, task, outcome), calls.END_SECONDS
                )
                return ended(answer)
            except ClientError as error:
                if is_forgotten(error):
                    return FORGOTTEN
                _pause_or_raise(patience, error)

    def _call(
        self,
        request: Callable[[Proof], bytes],
        seconds: float,
        meanwhile: Callable[[], None] | None = None,
    ) -> tuple[Proof, dict[str, Any]]:
        proof = self.proof()
        try:
            answer = exchange(self._socket, request(proof), seconds, meanwhile, proof.terms)
        except Refused as error:
            newer = self.proof(fresh=True) if calls.wants_another_svid(error) else proof
            if newer.shows(proof):
                raise
            return newer, exchange(self._socket, request(newer), seconds, terms=newer.terms)
        return proof, answer


class BlockingTask:
    """A task under way. `keep` says that it lives, from a thread of its own, until `end`."""

    def __init__(self, client: BlockingClient, view: Started, proof: Proof) -> None:
        self._client = client
        self._view = view
        self._proof = proof
        self._ending = threading.Event()

    @property
    def credentials(self) -> Mapping[str, Credential]:
        """What was minted, by the names of the policy's scope."""
        return self._view.credentials

    def keep(self, on_over: Callable[[], None]) -> None:
        """
        Start the heartbeats that the definition asks for.

        `on_over` is called once, in their thread, when the daemon says that the task has ended.
        """
        pulse = Pulse(self._view, self._proof, time.monotonic())
        if pulse.interval is not None:
            arguments = (pulse, pulse.interval, on_over)
            threading.Thread(target=self._beat, args=arguments, daemon=True).start()

    def end(self, outcome: calls.Outcome) -> Ended:
        """End the task and say how it ended."""
        self._ending.set()
        return self._client.end(self._view.id, outcome)

    def _beat(self, pulse: Pulse, interval: float, on_over: Callable[[], None]) -> None:
        pause = interval / 3
        while not self._ending.wait(pause):
            try:
                proof = self._client.proof(fresh=pulse.wants_new_svid(time.monotonic()))
                self._client.heartbeat(self._view.id, proof)
            except ClientError as error:
                if is_over(error):
                    if not self._ending.is_set():
                        on_over()
                    return
                pause = interval / 12
            else:
                pulse.beaten(proof, time.monotonic())
                pause = interval / 3


def _pause_or_raise(patience: Patience, error: ClientError) -> None:
    pause = patience.pause(error, time.monotonic())
    if pause is None:
        raise error
    time.sleep(pause)


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


def _token() -> tuple[Proof, float]:
    """Ask for a JWT-SVID; also returns for how many seconds it is to be held."""
    held = _ask(svid.question(svid.DEFAULT_AUDIENCE), svid.read)
    return Proof(held.token), held.refresh_at - time.time()


def _terms(daemon: str) -> tuple[Proof, float]:
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
