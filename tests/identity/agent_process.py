"""An agent in a process of its own, which can be stopped with SIGSTOP like a real one."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from identity.agent import Agent
from identity.delegating_agent import DelegatingAgent


@contextlib.contextmanager
def agent_process(socket: Path, attested: tuple[int, str, str] | None = None) -> Iterator[int]:
    """
    Serve the Workload API, or else the admin socket's, which attests one process; yields the pid.

    `attested` is that process, its trust domain and path. The agent runs or is stopped; it is
    ended here.
    """
    arguments = [str(socket), *map(str, attested or ())]
    command = [sys.executable, "-m", "identity.agent_process", *arguments]
    tests = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tests) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"serving\n"
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGKILL)


@contextlib.asynccontextmanager
async def _serving(socket: Path, attested: list[str]) -> AsyncIterator[None]:
    if not attested:
        async with Agent(socket).serving():
            yield
        return
    agent, (pid, trust_domain, path) = DelegatingAgent(socket), attested
    agent.entries[int(pid)] = [(trust_domain, path)]
    async with agent.serving():
        yield


async def _main(socket: str, *attested: str) -> None:
    async with _serving(Path(socket), list(attested)):
        sys.stdout.write("serving\n")  # what the parent waits for
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
