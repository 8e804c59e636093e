"""
An open loop of callers: requests go out by the clock, whether or not earlier ones were answered.

Nobody tries again: one answer that is not what was asked for, one broken connection, is a failed
caller.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp

from taskmint.client.workload_api import WorkloadApi

from plugins.canaries import Canaries

LONGEST_REQUEST: Final = 60.0
WAITING: Final = "wait"
# Of ten callers, one lives a whole task, two say that they are alive, one waits for an end.
MIX: Final = (
    "life",
    "show",
    "heartbeat",
    "show",
    WAITING,
    "show",
    "show",
    "heartbeat",
    "show",
    "show",
)


class Failed(Exception):
    """Raised when a caller did not get what it asked for."""


@dataclass
class Caller:
    """Sends requests as one workload; each on a connection of its own."""

    session: aiohttp.ClientSession
    svids: WorkloadApi
    canaries: Canaries | None

    @classmethod
    @contextlib.asynccontextmanager
    async def on(
        cls, socket_path: str, endpoint: str, canaries: Canaries | None = None
    ) -> AsyncIterator[Self]:
        """Call on a task socket."""
        connector = aiohttp.UnixConnector(socket_path, force_close=True, limit=0)
        timeout = aiohttp.ClientTimeout(total=LONGEST_REQUEST)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield cls(session, WorkloadApi(endpoint), canaries)

    async def headers(self) -> dict[str, str]:
        """What an honest caller sends."""
        token = await self.svids.token()
        return {"X-Taskmint-Request": "true", "Authorization": f"Bearer {token}"}

    async def ask(
        self, method: str, path: str, *expected: int, body: object = None
    ) -> dict[str, Any]:
        """Send one request. Raises Failed for another status, or when the connection breaks."""
        try:
            async with self.session.request(
                method, f"http://taskmint{path}", headers=await self.headers(), json=body
            ) as reply:
                answer: dict[str, Any] = await reply.json(content_type=None)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Failed(f"{method} {path}: {type(error).__name__}: {error}") from error
        if reply.status not in expected:
            raise Failed(f"{method} {path}: {reply.status} {answer.get('code')}")
        return answer

    async def start(self, task: str) -> dict[str, Any]:
        """Start a task; every secret of it is hunted from now on."""
        view = await self.ask("POST", "/v1/tasks", 201, body={"task": task})
        for name, credential in view["credentials"].items():
            for key in ("password", "token"):
                if self.canaries is not None and key in credential["data"]:
                    self.canaries.plant(credential["data"][key], f"{task} {name} {key}")
        return view

    async def end(self, task_id: str) -> None:
        """End a task."""
        await self.ask("DELETE", f"/v1/tasks/{task_id}", 200, 202)


@dataclass
class OpenLoop:
    """
    `rate` requests a second while entered; `lasting` is a task that some of them ask for.

    `latencies` are seconds, by kind; `failures` say what went wrong.
    """

    caller: Caller
    rate: float
    lasting: str
    brief: str
    latencies: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    under_way: Counter[str] = field(default_factory=Counter)
    _requests: set["asyncio.Task[None]"] = field(default_factory=set)
    _clock: "asyncio.Task[None] | None" = None

    async def __aenter__(self) -> Self:
        self._clock = asyncio.create_task(self._by_the_clock(), name="open loop")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send no more, and hear every answer."""
        if self._clock is not None:
            self._clock.cancel()
        await asyncio.gather(*self._requests)

    @property
    def in_flight(self) -> int:
        """How many requests wait for an answer now, but for those that asked to wait."""
        return self.under_way.total() - self.under_way[WAITING]

    async def until_in_flight(self) -> None:
        """Wait until a request is under way."""
        while not self.in_flight:
            await asyncio.sleep(0)

    async def _by_the_clock(self) -> None:
        began = time.monotonic()
        for number, kind in enumerate(itertools.cycle(MIX)):
            await asyncio.sleep(max(0.0, began + number / self.rate - time.monotonic()))
            request = asyncio.create_task(self._timed(kind), name=kind)
            self._requests.add(request)
            request.add_done_callback(self._requests.discard)

    async def _timed(self, kind: str) -> None:
        self.sent[kind] += 1
        self.under_way[kind] += 1
        began = time.monotonic()
        try:
            await self._call(kind)
        except Failed as error:
            self.failures.append(f"{kind}: {error}")
        else:
            self.latencies.setdefault(kind, []).append(time.monotonic() - began)
        finally:
            self.under_way[kind] -= 1

    def _call(self, kind: str) -> Coroutine[Any, Any, object]:
        path = f"/v1/tasks/{self.lasting}"
        match kind:
            case "life":
                return self._life()
            case "heartbeat":
                return self.caller.ask("POST", f"{path}/heartbeat", 200)
            case "wait":
                return self.caller.ask("GET", f"{path}?wait=2s", 200)
            case _:
                return self.caller.ask("GET", path, 200)

    async def _life(self) -> None:
        view = await self.caller.start(self.brief)
        await self.caller.end(view["id"])
