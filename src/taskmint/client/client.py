"""
Taskmint for a Python program.

    async with TaskmintClient() as client:
        async with client.task("orders-report", parameters={"region": "eu"}) as task:
            user = task.credentials["warehouse"].data["username"]

The task ends with the block: succeeded, failed by an exception, or cancelled. Heartbeats are sent
meanwhile by a task of asyncio that the block owns.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Final, Literal, Self, TypedDict, Unpack

from . import patiently
from .answers import Waiting, started, waiting
from .calls import expected_daemon
from .daemon_api import DaemonApi
from .errors import ClientError
from .proof import ProofSource
from .running_task import RunningTask
from .timing import Patience
from .workload_api import MutualTls, WorkloadApi


class Claims(TypedDict, total=False):
    """What a start may say besides the definition's name; the policy decides what it is worth."""

    parameters: Mapping[str, str | int | bool]
    purpose: str
    ticket: str
    context: Mapping[str, str]
    ttl_seconds: int
    bind: Literal["peer", "parent", "session", "unit"]
    public_keys: Mapping[str, str]


OnWaiting = Callable[[Waiting], None]


class TaskmintClient:
    """
    Starts tasks. Tasks that still run when the block is left are ended as cancelled.

    `socket` is the task socket's path, by default TASKMINT_SOCKET or /run/taskmint/task.sock;
    `svid` proves who this process is: WorkloadApi by JWT-SVIDs, MutualTls by X.509-SVIDs and to a
    daemon that proves itself in return. By default it is MutualTls where TASKMINT_DAEMON_ID names
    the daemon's SPIFFE ID, else WorkloadApi, both at SPIFFE_ENDPOINT_SOCKET.
    """

    def __init__(self, socket: str | None = None, svid: ProofSource | None = None) -> None:
        self._api = DaemonApi(socket, svid or _by_environment())
        self._running: set[RunningTask] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._running):
            await task.end("cancelled")

    @contextlib.asynccontextmanager
    async def task(
        self, task: str, on_waiting: OnWaiting | None = None, **claims: Unpack[Claims]
    ) -> AsyncIterator[RunningTask]:
        """
        Run a block of code inside a task.

        Raises what `start` raises; when the block succeeded and the end could not be told to the
        daemon, ClientError.
        """
        running = await self.start(task, on_waiting, **claims)
        try:
            yield running
        except BaseException as error:
            try:
                await running.end("cancelled" if isinstance(error, _CANCELLATIONS) else "failed")
            except ClientError as end_error:
                error.add_note(f"the task was not ended: {end_error}")
            raise
        await running.end("succeeded")

    async def start(
        self, task: str, on_waiting: OnWaiting | None = None, **claims: Unpack[Claims]
    ) -> RunningTask:
        """
        Start a task and its heartbeats; the caller ends it.

        A definition that needs an approval is waited for, as long as the policy says; `on_waiting`
        is told once what to show a human. Cancelled meanwhile, the request is cancelled too.

        Raises Refused, NoIdentity, WrongDaemon, Unreachable, BadAnswer. A connection that breaks
        in between is made anew and the request repeated with the same Idempotency-Key. Cancelled
        while the daemon is minting, it sees the start through and ends the task first.
        """
        body, key = {"task": task, **claims}, os.urandom(16).hex()
        now = asyncio.get_running_loop().time()
        outcome = await self._seen_through(self._ask(body, key, Patience(now, at_first=False)))
        while isinstance(outcome, Waiting):
            try:
                if on_waiting is not None:
                    on_waiting(outcome)
                    on_waiting = None
                await patiently.until_decided(self._api, outcome)
            except ClientError:
                raise  # it is over, or nobody is there to be told that it is not wanted
            except BaseException:
                await self._abandon(outcome)
                raise
            again = self._ask(body, key, patiently.patience_for(outcome))
            outcome = await self._seen_through(again)
        return outcome

    async def _seen_through(
        self, asking: Coroutine[None, None, RunningTask | Waiting]
    ) -> RunningTask | Waiting:
        """Ask to the end also when that is cancelled; what came of it is then ended."""
        starting = asyncio.ensure_future(asking)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(ClientError):
                await self._abandon(await starting)
            raise

    async def _abandon(self, outcome: RunningTask | Waiting) -> None:
        """End what nobody waits for any more; what cannot be told ends by its own time."""
        with contextlib.suppress(ClientError):
            if isinstance(outcome, Waiting):
                await patiently.end(self._api, outcome.id, "cancelled")
            else:
                await outcome.end("cancelled")

    async def _ask(
        self, body: Mapping[str, object], key: str, patience: Patience
    ) -> RunningTask | Waiting:
        loop = asyncio.get_running_loop()
        while True:
            try:
                proof, answer = await self._api.start(body, key)
                view = waiting(answer)
                if view is not None:
                    return view
                running = RunningTask(self._api, started(answer), proof, self._running.discard)
            except ClientError as error:
                pause = patience.pause(error, loop.time())
                if pause is None:
                    raise
            else:
                self._running.add(running)
                running.keep()
                return running
            await asyncio.sleep(pause)


def _by_environment() -> ProofSource:
    daemon = expected_daemon()
    return WorkloadApi() if daemon is None else MutualTls(daemon)


_CANCELLATIONS: Final = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)
