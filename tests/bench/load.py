"""The benchmark's handle on the load generator, which is a process of its own identity."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

_TESTS: Final = Path(__file__).parents[1]
_CELL_SECONDS: Final = 300.0
_ANSWER_BYTES: Final = 1 << 22


class LoadFailed(Exception):
    """Raised when the generator could not do what it was told; the sentence is its own."""


class Load:
    """A running generator."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, interpreter: Path, where: Mapping[str, Any]) -> AsyncIterator["Load"]:
        """
        Start a generator on its own interpreter, so that the Workload API knows it.

        `where` holds a token: it goes through a pipe.
        """
        process = await asyncio.create_subprocess_exec(
            *(str(interpreter), "-m", "bench.generator"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_TESTS)},
            limit=_ANSWER_BYTES,
        )
        load = cls(process)
        try:
            load._send(where)
            yield load
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def cell(self, arm: str, task: str, concurrency: int, count: int) -> dict[str, Any]:
        """Make tasks: `seconds`, `cpu`, and a list each of `latencies` and `starts`."""
        return await self._do(do="cell", arm=arm, task=task, concurrency=concurrency, count=count)

    async def hold(self, task: str, count: int) -> None:
        """Start tasks through taskmint and leave them running."""
        await self._do(do="hold", task=task, count=count)

    async def release(self, task: str) -> None:
        """End all that are held, each proven."""
        await self._do(do="release", task=task)

    def _send(self, value: Mapping[str, Any]) -> None:
        if self._process.stdin is None:
            raise AssertionError("stdin is a pipe")
        self._process.stdin.write(json.dumps(value).encode() + b"\n")

    async def _do(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer. Raises LoadFailed."""
        if self._process.stdout is None:
            raise AssertionError("stdout is a pipe")
        self._send(command)
        async with asyncio.timeout(_CELL_SECONDS):
            line = await self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line or '{"error": "the load generator ended"}')
        if "error" in answer:
            raise LoadFailed(f"{command}: {answer['error']}")
        return answer
