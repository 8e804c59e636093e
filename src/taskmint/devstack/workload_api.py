"""
The owner's handle on the development Workload API: starts the agent, and changes its world.

The agent (agent.py) is a process of its own: it can be killed, and what it serves is attested from
outside. It is for development: it is not SPIRE, and it says so in its log.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from .agent_configuration import AgentConfiguration, Trust
from .loopback import HOST, reserved_port
from .process import Leashed, Program, StackError, start
from .registration import Entry

_READY_SECONDS: Final = 20.0
_COMMAND_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.02


class WorkloadApi:
    """
    A running agent. `directory` holds its own sockets, `agent.json` and `agent.log`.

    `socket` is the Workload API's path and `endpoint` the same for SPIFFE_ENDPOINT_SOCKET;
    `jwks_url` is where Vault fetches the keys.
    """

    def __init__(self, configuration: AgentConfiguration, lock: Path) -> None:
        self.directory = Path(configuration.directory)
        self.trust_domain = configuration.trust.domain
        self.socket = Path(configuration.socket)
        self.endpoint = f"unix://{self.socket}"
        self.jwks_url = f"http://{HOST}:{configuration.jwks_port}/keys"
        self._configuration = configuration
        self._lock = lock
        self._process: Leashed | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls,
        directory: Path,
        entries: Iterable[Entry],
        *,
        socket: Path | None = None,
        trust: Trust | None = None,
        lock: Path | None = None,
    ) -> AsyncIterator["WorkloadApi"]:
        """
        Run an agent with these entries in an existing, private directory; stop it after.

        `socket` is where workloads connect, by default `workload.sock` in the directory: workloads
        of other users need one in a directory that they can reach. `lock` as in OpenBao.running.
        """
        with reserved_port() as port:
            configuration = AgentConfiguration(
                trust=trust or Trust(),
                socket=str(socket or directory / "workload.sock"),
                directory=str(directory),
                jwks_port=port,
                entries=tuple(entries),
            )
            api = cls(configuration, lock or directory)
            try:
                await api.start()
                yield api
            finally:
                await api._end()

    async def start(self) -> None:
        """Open the socket again after `stop`; after `kill`, run an agent with new authorities."""
        if self._process is not None:
            await self._command("start")
            return
        file = self.directory / "agent.json"
        await asyncio.to_thread(file.write_text, self._configuration.text())
        program = Program(
            name="the development agent",
            command=(sys.executable, "-m", "taskmint.devstack.agent", str(file)),
            log=self.directory / "agent.log",
            environment=dict(os.environ),  # it must find our modules as we do
        )
        self._process = await start(program, self._lock)
        await self._until_ready(self._process)

    async def stop(self) -> None:
        """Close the socket and all connections; authorities and entries stay."""
        await self._command("stop")

    async def kill(self) -> None:
        """End the agent by SIGKILL and wait for its end; its authorities are gone with it."""
        self.signal(signal.SIGKILL)
        await self._end()

    def signal(self, number: signal.Signals) -> None:
        """Send the agent a signal, for instance SIGSTOP and SIGCONT."""
        if self._process is None:
            raise StackError("the development agent is not running")
        self._process.kill(number)

    async def rotate_jwt(self, *, retire: bool = False) -> None:
        """Sign tokens with a new key; `retire` withdraws the old ones and what they signed."""
        await self._command("rotate_jwt", retire=retire)

    async def rotate_x509(self, *, retire: bool = False) -> None:
        """Replace all certificates under a new authority; `retire` withdraws the old ones."""
        await self._command("rotate_x509", retire=retire)

    async def register(self, entry: Entry) -> None:
        """Add an entry; streams push it."""
        await self._command("register", entry=asdict(entry))

    async def redact(self, spiffe_id: str) -> None:
        """Take an identity away: its processes get PERMISSION_DENIED, open streams included."""
        await self._command("redact", spiffe_id=spiffe_id)

    async def drop(self) -> None:
        """Cut every connection; the socket stays open."""
        await self._command("drop")

    async def _command(self, name: str, **arguments: object) -> None:
        async with asyncio.timeout(_COMMAND_SECONDS):
            reader, writer = await asyncio.open_unix_connection(self._configuration.control)
            with contextlib.closing(writer):
                writer.write(json.dumps({"do": name, **arguments}).encode() + b"\n")
                answer = json.loads(await reader.readline())
        if not answer["ok"]:
            raise StackError(f"the development agent: {name}: {answer['error']}")

    async def _end(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            await process.stop()

    async def _until_ready(self, process: Leashed) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_SECONDS):
                while process.running:
                    with contextlib.suppress(OSError):
                        await self._command("status")
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        log = await asyncio.to_thread((self.directory / "agent.log").read_text)
        raise StackError(f"the development agent does not start. Its log:\n{log[-2000:]}")
