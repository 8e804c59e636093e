"""The daemon of the stack, as a process that can be started, stopped, killed and asked."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp

from .process import Leashed, Program, StackError, start
from .stack_files import Paths

_READY_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02
_HEADER: Final = {"X-Taskmint-Request": "true"}
_KEPT_OUT: Final = ("VAULT_", "BAO_", "SPIFFE_", "TASKMINT_")


def daemon_environment() -> dict[str, str]:
    """Pass on our environment, without what could give the daemon a token or an address."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_KEPT_OUT)}


class Daemon:
    """`taskmint serve` on its own interpreter; `log` has what it writes to standard error."""

    def __init__(self, python: Path, paths: Paths, environment: Mapping[str, str]) -> None:
        self.log = paths.directory / "daemon.log"
        self._paths = paths
        self._lock = paths.directory
        self._program = Program(
            name="taskmint serve",
            command=(str(python), "-m", "taskmint", "serve", "--config", str(paths.config)),
            log=self.log,
            environment=environment,
            grace=35.0,
        )
        self._process: Leashed | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, python: Path, paths: Paths, **environment: str
    ) -> AsyncIterator["Daemon"]:
        """
        Run a daemon until the context ends; returns when it is ready to start tasks.

        `environment` is added to ours, for instance TASKMINT_FAILPOINT.
        """
        daemon = cls(python, paths, daemon_environment() | environment)
        try:
            await daemon.start()
            yield daemon
        finally:
            await daemon.stop()

    @property
    def pid(self) -> int:
        """The daemon's process id, for measuring it."""
        return self._running().pid

    async def start(self) -> None:
        """Start it, again after `stop` or `kill`; returns when it is ready."""
        await self.launch()
        await self.until_ready()

    async def launch(self) -> None:
        """Start it; returns at once, for daemons that will not become ready."""
        self._process = await start(self._program, self._lock)

    async def stop(self) -> int:
        """Send SIGTERM and wait for the end; its exit status, 0 when it was not running."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        return await process.stop()

    async def kill(self) -> None:
        """End it by SIGKILL and wait for its end; `start` brings it back."""
        self.signal(signal.SIGKILL)
        await self.stop()

    async def wait(self) -> int:
        """Wait until it ends by itself, at a failpoint for instance; its exit status."""
        return await self._running().wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, for instance SIGHUP."""
        self._running().kill(number)

    async def until_ready(self) -> None:
        """Wait until /v1/ready answers 200. Raises StackError when it ends, or after 30 s."""
        process = self._running()
        connector = aiohttp.UnixConnector(str(self._paths.task_socket))
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(_READY_SECONDS),
                aiohttp.ClientSession(connector=connector, headers=_HEADER) as session,
            ):
                while process.running:
                    with contextlib.suppress(OSError, aiohttp.ClientError):
                        async with session.get("http://taskmint/v1/ready") as answer:
                            if answer.status == HTTPStatus.OK:
                                return
                    await asyncio.sleep(_POLL_SECONDS)
        log = await asyncio.to_thread(self.log.read_text, errors="replace")
        raise StackError(f"the daemon does not become ready. Its log ends:\n{log[-3000:]}")

    def _running(self) -> Leashed:
        if self._process is None:
            raise StackError("the daemon is not running")
        return self._process
