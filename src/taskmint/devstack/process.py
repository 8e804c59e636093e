"""
Programs that end with us: starts them on a leash, stops them, and removes their directory.

What can be relied on: when the owner leaves the context, or dies of anything at all, the program
and all that it forked are gone, and the directory is removed after the last of them.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 20.0


class StackError(Exception):
    """Raised when a part of the embedded stack does not start, stop or answer as it should."""


@dataclass(frozen=True, slots=True)
class Program:
    """
    What to run. `log` receives both outputs and is appended to; `environment` is the whole of it.

    `stop` is the signal that asks for an orderly end; SIGKILL follows after `grace` seconds.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    stop: signal.Signals = signal.SIGTERM
    grace: float = 5.0


class Leashed:
    """A running program; `pid` is its own, for tests that kill it or stop it."""

    def __init__(self, program: Program, leash: asyncio.subprocess.Process, pid: int) -> None:
        self.program = program
        self.pid = pid
        self._leash = leash

    @property
    def running(self) -> bool:
        """Whether the program has not been seen to end."""
        return self._leash.returncode is None

    async def wait(self) -> int:
        """Wait until the program and all it forked are gone; 128 + n when a signal ended it."""
        return await self._leash.wait()

    async def stop(self) -> int:
        """End it in an orderly way and wait for that; its status."""
        if self._leash.stdin is not None:
            self._leash.stdin.close()
        try:
            async with asyncio.timeout(self.program.grace + _STOP_SECONDS):
                return await self._leash.wait()
        except TimeoutError as error:
            raise StackError(f"{self.program.name} does not stop") from error

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send the program itself a signal; what it forked follows when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


async def start(program: Program, lock: Path) -> Leashed:
    """
    Start a program on a leash; `lock` is the directory that stays while the program lives.

    The caller owns the result and ends it with `stop`; `leashed` does that by itself.
    """
    number, grace = str(int(program.stop)), str(program.grace)
    command = [str(_HERE / "leash.py"), str(lock), number, grace, *program.command]
    leash, pid = await _answering(program.name, command, program.environment, program.log)
    return Leashed(program, leash, pid)


@contextlib.asynccontextmanager
async def leashed(program: Program, lock: Path) -> AsyncIterator[Leashed]:
    """Run a program for as long as the context lasts."""
    running = await start(program, lock)
    try:
        yield running
    finally:
        await running.stop()


@contextlib.asynccontextmanager
async def removed_afterwards(directory: Path) -> AsyncIterator[Path]:
    """Remove an existing directory after the context, and after the last program that uses it."""
    command = [str(_HERE / "janitor.py"), str(directory)]
    janitor, _ = await _answering("janitor", command, {}, Path(os.devnull))
    try:
        yield directory
    finally:
        if janitor.stdin is not None:
            janitor.stdin.close()
        async with asyncio.timeout(_STOP_SECONDS):
            await janitor.wait()


async def _answering(
    name: str, script: Sequence[str], environment: Mapping[str, str], log: Path
) -> tuple[asyncio.subprocess.Process, int]:
    """Start one of our two scripts and read the pid on its first line."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", *script),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=descriptor,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C in a terminal is for the owner, who ends us in order
        )
    finally:
        os.close(descriptor)
    if process.stdout is None or process.stdin is None:
        raise AssertionError("both are pipes")
    try:
        return process, await _first_number(process.stdout)
    except BaseException as error:
        process.stdin.close()
        await put_an_end_to(process)
        if isinstance(error, ValueError | TimeoutError):
            raise StackError(f"{name} could not be started; see {log}") from error
        raise


async def put_an_end_to(process: asyncio.subprocess.Process) -> None:
    """Kill a child and collect it; nothing happens to one that has ended."""
    with contextlib.suppress(ProcessLookupError):  # it may have ended without our noticing yet
        process.kill()
    await process.wait()


async def _first_number(answers: asyncio.StreamReader) -> int:
    """Read the pid that our scripts begin with. Raises ValueError, TimeoutError."""
    async with asyncio.timeout(_START_SECONDS):
        return int(await answers.readline())
