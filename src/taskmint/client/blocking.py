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
from typing import Any, Final

from . import calls, svid
from .answers import FORGOTTEN, Credential, Ended, Started, ended, started
from .errors import ClientError, Refused
from .http1 import Answer
from .http2 import GrpcFailure
from .timing import Patience, Pulse, is_forgotten, is_over

_CHUNK: Final = 65536


class BlockingClient:
    """
    A daemon and a Workload API, both where the environment says.

    Every method raises Unreachable, Interrupted, BadAnswer, Refused or NoIdentity.
    """

    def __init__(self) -> None:
        self._socket = calls.default_socket()
        self._held: svid.Svid | None = None

    def token(self, *, fresh: bool = False) -> str:
        """Return a JWT-SVID; `fresh` asks the Workload API again."""
        held = self._held
        if fresh or held is None or time.time() >= held.refresh_at:
            held = self._held = _fetch()
        return held.token

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
                token, answer = self._call(
                    lambda token: calls.start(token, body, key), calls.START_SECONDS, meanwhile
                )
                return BlockingTask(self, started(answer), token)
            except ClientError as error:
                _pause_or_raise(patience, error)

    def heartbeat(self, task: str, token: str) -> None:
        """Say that a task lives."""
        request = calls.heartbeat(token, task)
        started(exchange(self._socket, request, calls.HEARTBEAT_SECONDS))

    def end(self, task: str, outcome: calls.Outcome) -> Ended:
        """End a task; a daemon that is away is asked again for ten seconds."""
        patience = Patience(time.monotonic(), at_first=True)
        while True:
            try:
                _, answer = self._call(
                    lambda token: calls.end(token, task, outcome), calls.END_SECONDS
                )
                return ended(answer)
            except ClientError as error:
                if is_forgotten(error):
                    return FORGOTTEN
                _pause_or_raise(patience, error)

    def _call(
        self,
        request: Callable[[str], bytes],
        seconds: float,
        meanwhile: Callable[[], None] | None = None,
    ) -> tuple[str, dict[str, Any]]:
        token = self.token()
        try:
            return token, exchange(self._socket, request(token), seconds, meanwhile)
        except Refused as error:
            newer = self.token(fresh=True) if calls.wants_another_token(error) else token
            if newer == token:
                raise
        return newer, exchange(self._socket, request(newer), seconds)


class BlockingTask:
    """A task under way. `keep` says that it lives, from a thread of its own, until `end`."""

    def __init__(self, client: BlockingClient, view: Started, token: str) -> None:
        self._client = client
        self._view = view
        self._token = token
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
        pulse = Pulse(self._view, self._token, time.monotonic())
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
                token = self._client.token(fresh=pulse.wants_new_token(time.monotonic()))
                self._client.heartbeat(self._view.id, token)
            except ClientError as error:
                if is_over(error):
                    if not self._ending.is_set():
                        on_over()
                    return
                pause = interval / 12
            else:
                pulse.beaten(token, time.monotonic())
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

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def exchange(
    path: str, request: bytes, seconds: float, meanwhile: Callable[[], None] | None = None
) -> dict[str, Any]:
    """
    Send a request to the daemon and read its answer: a connection each, with a deadline.

    `meanwhile` is called between the two.
    """
    answer = Answer()
    sent = False
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            line = _Line(connection, time.monotonic() + seconds)
            line.connect(path)
            sent = True
            line.send(request)
            if meanwhile is not None:
                meanwhile()
            while not answer.complete:
                answer.feed(line.receive())
    except (OSError, EOFError) as error:  # TimeoutError is an OSError
        raise calls.broken(path, error, seconds, sent=sent) from error
    return calls.read(answer)


def _fetch() -> svid.Svid:
    """Ask the Workload API for a token."""
    where = svid.endpoint(None)
    call = svid.question(svid.DEFAULT_AUDIENCE)
    try:
        with socket.socket(_family(where)) as connection:
            line = _Line(connection, time.monotonic() + svid.FETCH_SECONDS)
            line.connect(where.path or (where.host, where.port))
            line.send(call.opening())
            while call.answer is None:
                line.send(call.receive(line.receive()))
        return svid.read(call.answer)
    except (GrpcFailure, OSError, EOFError, ValueError) as error:
        raise svid.failure(where.path or where.host, error) from error


def _family(where: svid.Endpoint) -> socket.AddressFamily:
    if where.path is not None:
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in where.host else socket.AF_INET
