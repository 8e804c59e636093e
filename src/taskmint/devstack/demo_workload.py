"""
Workloads of the demo: commands under `taskmint run`, each on an interpreter of its own.

Their standard input is a pipe that we hold, and they end when it closes: also when we are killed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from taskmint.model.secret import Secret

from .daemon_process import daemon_environment
from .demo_evidence import Credential
from .process import StackError
from .psql import libpq_environment, postgres_binaries
from .stack import Stack
from .stack_files import DEFINITION

_SECONDS: Final = 30.0

# A workload that gives away what it was given, so that we can try what that is worth afterwards;
# then it works with it, says so, and waits.
_SCRIPT: Final = """\
printf '%s\\n%s\\n' "$PGUSER" "$PGPASSWORD"
"$0" -X -q -At -c "SELECT count(*) || ' orders, regions: ' || string_agg(DISTINCT region, ', ') \
FROM orders" || exit 1
exec cat > /dev/null
"""


class Workload:
    """A command under `taskmint run` that holds a credential; `said` is what psql printed to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, credential: Credential, said: str
    ) -> None:
        self.credential = credential
        self.said = said
        self._process = process

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, stack: Stack, python: Path) -> AsyncIterator["Workload"]:
        """Start one; returns when it has used its credential. Raises StackError with its words."""
        process = await _start(stack, python)
        try:
            async with asyncio.timeout(_SECONDS):
                lines = [await _line(process) for _ in range(3)]
                if not all(lines):
                    raise StackError(f"the workload: {await _errors(process)}")
            user, password, said = lines
            yield cls(process, Credential(user, Secret(password)), said)
        finally:
            await _ended(process)

    async def finish(self) -> int:
        """Let it end by itself; the exit status of `taskmint run`."""
        _close_input(self._process)
        async with asyncio.timeout(_SECONDS):
            return await self._process.wait()

    async def kill(self) -> None:
        """End `taskmint run` by SIGKILL; its command dies with it."""
        await _killed(self._process)


async def attempt(stack: Stack, python: Path) -> tuple[int, str]:
    """Try to start a task that is not granted; the exit status of `taskmint run` and its words."""
    process = await _start(stack, python)
    try:
        async with asyncio.timeout(_SECONDS):
            out, errors = await process.communicate()
    finally:
        await _ended(process)
    return process.returncode or 0, (errors or out).decode(errors="replace").strip()


async def _start(stack: Stack, python: Path) -> asyncio.subprocess.Process:
    task = ("run", "--task", DEFINITION, "-p", "region=eu", "--purpose", "totals for the demo")
    given = ("--env", "PGUSER=warehouse.username", "--env", "PGPASSWORD=warehouse.password")
    # the two variables are filled by `taskmint run`; where the server is, is no secret
    server = libpq_environment(stack.postgres.dsn("nobody", Secret("nothing")))
    return await asyncio.create_subprocess_exec(
        *(str(python), "-m", "taskmint", *task, *given, "--"),
        *("/bin/sh", "-c", _SCRIPT, str(postgres_binaries() / "psql")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=daemon_environment() | server | stack.environment() | {"LC_ALL": "C"},
        start_new_session=True,  # Ctrl-C in a terminal is for us, who end it in order
    )


async def _line(process: asyncio.subprocess.Process) -> str:
    if process.stdout is None:
        raise AssertionError("stdout is a pipe")
    return (await process.stdout.readline()).decode().rstrip("\n")


async def _errors(process: asyncio.subprocess.Process) -> str:
    if process.stderr is None:
        raise AssertionError("stderr is a pipe")
    return (await process.stderr.read()).decode(errors="replace").strip()


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        await _killed(process)


async def _killed(process: asyncio.subprocess.Process) -> None:
    """Kill it, and let what it started see the end of its input."""
    process.kill()
    _close_input(process)
    async with asyncio.timeout(_SECONDS):
        await process.wait()


def _close_input(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
