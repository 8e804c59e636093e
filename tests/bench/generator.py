"""
The load generator as a process of its own: `python -m bench.generator`.

Reads one JSON object a line on standard input, the first says where everything is; answers each
with one on standard output. It keeps its connections, is closed-loop, and reports its own CPU.
"""

import asyncio
import gc
import itertools
import json
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop

from taskmint.client.errors import ClientError
from taskmint.client.workload_api import WorkloadApi

from .arms import Arm, Kind, SixCalls, Taskmint, Timing, TwoCalls, UnexpectedAnswer
from .http1 import Connection

_VAULT_HEADERS: Final = {"X-Vault-Request": "true", "Content-Type": "application/json"}
_HOLDERS: Final = 8  # concurrency at which live tasks are started and ended


class Generator:
    """The arms by name, and the connections to each."""

    def __init__(self, where: dict[str, Any]) -> None:
        self._kinds = {kind["name"]: Kind(**kind) for kind in where["kinds"]}
        self._taskmint = Taskmint()
        self._arms: dict[str, Arm] = {
            "bare": SixCalls(where["token"]),
            "proxy": SixCalls(""),
            "two_call": TwoCalls(),
            "taskmint": self._taskmint,
        }
        proxy = where["proxy"]
        self._addresses = {
            "bare": where["vault"],
            "proxy": proxy,
            "two_call": proxy,
            "taskmint": where["daemon"],
        }
        self._workload_api = WorkloadApi(where["workload_api"])
        self._open: dict[str, list[Connection]] = {}
        self._held: deque[str] = deque()

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out `cell`, `hold` or `release`. Raises KeyError, ValueError for anything else."""
        self._taskmint.svid = await self._workload_api.token()
        kind = self._kinds[command["task"]]
        match command["do"]:
            case "cell":
                return await self._cell(kind, command)
            case "hold":
                return await self._hold(kind, command)
            case "release":
                return await self._release()
            case unknown:
                raise ValueError(f"no such command: {unknown}")

    async def _cell(self, kind: Kind, command: dict[str, Any]) -> dict[str, Any]:
        arm = self._arms[command["arm"]]
        width, more = command["concurrency"], kind.mints - 1
        if more and width > 1:
            raise ValueError(f"{kind.name} is measured one at a time")
        connections = await self._connections(command["arm"], width + more)
        connections, beside = connections[:width], connections[width:]
        timings: list[Timing] = []

        async def one(connection: Connection) -> None:
            timings.append(await arm.task(connection, kind, beside))

        gc.collect()
        cpu, began = time.process_time(), time.perf_counter()
        await _shared(connections, command["count"], one)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        return {
            "seconds": seconds,
            "cpu": cpu,
            "latencies": [timing.whole for timing in timings],
            "starts": [timing.start for timing in timings],
        }

    async def _hold(self, kind: Kind, command: dict[str, Any]) -> dict[str, Any]:
        """Start tasks and leave them running."""

        async def one(connection: Connection) -> None:
            self._held.append(await self._taskmint.start(connection, kind))

        await _shared(await self._connections("taskmint", _HOLDERS), command["count"], one)
        return {"held": len(self._held)}

    async def _release(self) -> dict[str, Any]:
        """End what is held."""

        async def one(connection: Connection) -> None:
            await self._taskmint.end(connection, self._held.popleft())

        await _shared(await self._connections("taskmint", _HOLDERS), len(self._held), one)
        return {"held": len(self._held)}

    async def _connections(self, arm: str, number: int) -> list[Connection]:
        """Return this many open connections; those of earlier cells are used again."""
        address = self._addresses[arm]
        headers = {} if arm == "taskmint" else _VAULT_HEADERS
        kept = [each for each in self._open.get(address, ()) if each.is_open]
        while len(kept) < number:
            kept.append(await Connection.open(address, headers))
        self._open[address] = kept
        return kept[:number]


async def _shared(
    connections: list[Connection], count: int, one: Callable[[Connection], Awaitable[None]]
) -> None:
    """Do something `count` times, on all connections at once, each as soon as it is free."""
    tickets = itertools.islice(itertools.count(), count)

    async def worker(connection: Connection) -> None:
        for _ in tickets:
            await one(connection)

    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(worker(connection))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    generator = Generator(json.loads(await reader.readline()))
    gc.freeze()
    while line := await reader.readline():
        try:
            answer = await generator.do(json.loads(line))
        except* (UnexpectedAnswer, OSError, ValueError, ClientError) as group:
            answer = {"error": "; ".join(dict.fromkeys(map(repr, _leaves(group))))[:1000]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _leaves(group: BaseExceptionGroup[Exception]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


if __name__ == "__main__":
    uvloop.run(_serve())
