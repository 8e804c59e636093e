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
from typing import Final

from taskmint.canonical import canonical
from taskmint.model.scope import Json

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def run_command(argv: Sequence[str], told: Json, at_most: timedelta) -> str | None:
    """Run it; None when it exited with 0 in time, else a sentence about why that is no yes."""
    nowhere = await asyncio.to_thread(os.open, os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=nowhere,
            stderr=nowhere,
            env={"PATH": _PATH},
            start_new_session=True,
        )
    except OSError as error:
        return f"{argv[0]} cannot be run: {error.strerror}"
    finally:
        os.close(nowhere)
    try:
        async with asyncio.timeout(at_most.total_seconds()):
            await process.communicate(canonical(told))
    except TimeoutError:
        return f"{argv[0]} did not end within {at_most.total_seconds():g} s"
    finally:
        await _put_an_end_to(process)
    return None if process.returncode == 0 else f"{argv[0]} exited with {process.returncode}"


async def _put_an_end_to(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of its process group; the program itself is waited for."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(process.wait())
