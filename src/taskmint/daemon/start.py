"""From a config file to a running process: limits, event loop, signals."""

import asyncio
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import uvloop

from taskmint.config import load_config
from taskmint.telemetry.logs import configure

from .files import read_config_file
from .run import Daemon


def start(config_file: Path, *, revoke_on_stop: bool, log_level: str) -> None:
    """
    Run the daemon until SIGTERM or SIGINT. Raises TaskmintError when it cannot start.

    No core dump: it would hold what tasks were given (P9). No file of ours is open to others.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    _raise_descriptor_limit()
    config = load_config(str(config_file), read_config_file(str(config_file)), os.environ)
    log = configure(log_level)
    daemon = Daemon(config, dict(os.environ), log, revoke_on_stop=revoke_on_stop)
    uvloop.run(_until_signalled(daemon, log))


async def _until_signalled(daemon: Daemon, log: structlog.stdlib.BoundLogger) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reloads = _Reloads(daemon.reload_or_alarm)
    loop.add_signal_handler(signal.SIGHUP, reloads.ask)
    async with reloads:
        await daemon.run(stop)
    log.info("stopped")


class _Reloads:
    """One reload at a time, however many signals come; the task is owned here."""

    def __init__(self, reload: Callable[[], Awaitable[None]]) -> None:
        self._reload = reload
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        self._asked.set()

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._serve(), name="reloads")

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self._reload()


def _raise_descriptor_limit() -> None:
    """Use what the hard limit allows: a bound task costs a descriptor, a connection two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
