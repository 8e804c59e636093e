"""
The client without asyncio: what `taskmint run` is built on.

It asks, reads and times exactly as client.py does (calls, svid, timing, answers); only the sockets
and the heartbeats' thread are its own. asyncio would cost every run 25 ms of imports.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from . import calls
from .answers import FORGOTTEN, Credential, Ended, Started, Waiting, ended, started, waiting
from .blocking_transport import exchange, terms_of, token
from .errors import ClientError, Refused
from .proof import Proof
from .timing import (
    POLL_PAUSE,
    Patience,
    Pulse,
    is_forgotten,
    is_over,
    waits_for,
    waits_too_long,
)


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
            self._held, seconds = token() if self._daemon is None else terms_of(self._daemon)
            self._held_until = time.monotonic() + seconds
        return self._held

    def start(
        self, body: Mapping[str, object], meanwhile: Callable[[], None] | None = None
    ) -> "BlockingTask | BlockingRequest":
        """
        Start a task, or ask for it where it needs an approval.

        A connection that breaks is made anew, under the same Idempotency-Key. `meanwhile` is
        called while the daemon mints, which takes it some 20 ms.
        """
        patience = Patience(time.monotonic(), at_first=False)
        return self.ask(body, os.urandom(16).hex(), patience, meanwhile)

    def ask(
        self,
        body: Mapping[str, object],
        key: str,
        patience: Patience,
        meanwhile: Callable[[], None] | None = None,
    ) -> "BlockingTask | BlockingRequest":
        """Ask for a task, or again for the same one, by its key."""
        while True:
            try:
                proof, answer = self._call(
                    lambda proof: calls.start(proof, body, key), calls.START_SECONDS, meanwhile
                )
                view = waiting(answer)
                if view is not None:
                    return BlockingRequest(self, view, body, key)
                return BlockingTask(self, started(answer), proof)
            except ClientError as error:
                _pause_or_raise(patience, error)

    def look(self, task: str) -> Waiting | None:
        """Look at a request once it is approved or over, or after half a minute."""
        _, answer = self._call(lambda proof: calls.look(proof, task), calls.LOOK_SECONDS)
        return waiting(answer)

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


class BlockingRequest:
    """A request that waits for an approval: `wait`, then `collect`; or `cancel` it."""

    def __init__(
        self, client: BlockingClient, view: Waiting, body: Mapping[str, object], key: str
    ) -> None:
        self._client = client
        self._body = body
        self._key = key
        self.view = view

    def wait(self) -> None:
        """
        Return once it is approved or over.

        A daemon that is away meanwhile is asked again for as long as the request may wait.
        """
        patience = self._patience()
        while True:
            try:
                if self._client.look(self.view.id) is None:
                    return
            except ClientError as error:
                _pause_or_raise(patience, error)
                continue
            if patience.is_over(time.monotonic()):
                raise waits_too_long(self.view)
            time.sleep(POLL_PAUSE)

    def collect(self) -> "BlockingTask | BlockingRequest":
        """Start what was approved. Raises Refused(task_ended), which says why, when it is over."""
        return self._client.ask(self._body, self._key, self._patience())

    def cancel(self) -> Ended:
        """Withdraw the request: nobody need approve it any more."""
        return self._client.end(self.view.id, "cancelled")

    def _patience(self) -> Patience:
        seconds = waits_for(self.view, datetime.now(UTC))
        return Patience(time.monotonic(), at_first=True, seconds=seconds)


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
