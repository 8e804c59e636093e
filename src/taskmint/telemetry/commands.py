"""
An argument list and a JSON object in, whether the program said yes out.

No shell, no environment but PATH, JSON on standard input, output thrown away, a deadline: a program
that hangs is killed with its whole process group. What cannot be asked has not said yes.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final, Protocol

from taskmint.canonical import canonical
from taskmint.model.scope import Json

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REAPED_SECONDS: Final = 2.0


class Program(Protocol):
    """What runs in a process group of its own: an asyncio.subprocess.Process."""

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""

    async def wait(self) -> int:
        """Wait for its end; what it exited with."""


async def run_command(argv: Sequence[str], told: Json, at_most: timedelta) -> str | None:
    """
    Run it; None when it exited with 0 in time, else a sentence about why that is no yes.

    A daemon that is out of descriptors, processes or threads has not got a yes either.
    """
    try:
        process = await _begin(argv)
    except OSError as error:
        return f"{argv[0]} cannot be run: {error.strerror}"
    except RuntimeError as error:  # asyncio's, when no thread can be started
        return f"{argv[0]} cannot be run: {error}"
    try:
        async with asyncio.timeout(at_most.total_seconds()):
            await process.communicate(canonical(told))
    except TimeoutError:
        return f"{argv[0]} did not end within {at_most.total_seconds():g} s"
    finally:
        await put_an_end_to(process)
    return None if process.returncode == 0 else f"{argv[0]} exited with {process.returncode}"


async def _begin(argv: Sequence[str]) -> asyncio.subprocess.Process:
    nowhere = await asyncio.to_thread(os.open, os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=nowhere,
            stderr=nowhere,
            env={"PATH": _PATH},
            start_new_session=True,
        )
    finally:
        os.close(nowhere)


async def put_an_end_to(process: Program) -> None:
    """
    Kill what is left of its process group, and wait two seconds for the program itself.

    One that the kernel does not let die (it waits for a dead disk), or that has become another
    user's, is left behind: whoever asked it asks others too.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_REAPED_SECONDS):
            await process.wait()
