"""A real SPIRE server and agent for one trust domain, on temporary sockets."""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Self

PROGRAMS: Final = ("spire-server", "spire-agent")
WHY_NOT: Final = "spire-server and spire-agent are not on PATH (docs/identity.md says how)"
_STARTING: Final = 60.0  # seconds
_POLL: Final = 0.1
_RENEWING: Final = 10.0  # the agent asks its server once a second


def installed() -> bool:
    """Whether both programs can be run."""
    return all(shutil.which(program) for program in PROGRAMS)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Spire:
    """
    A server and its agent. `node` is the agent's SPIFFE ID by which entries are parented.

    Authorities live an hour, X.509-SVIDs ten minutes, JWT-SVIDs five; the agent keeps its keys on
    disk, so that it can be killed and started again.
    """

    def __init__(self, directory: Path, trust_domain: str, delegate: str | None) -> None:
        self.directory = directory
        self.trust_domain = trust_domain
        self.node = f"spiffe://{trust_domain}/node"
        self.workload_socket = directory / "public" / "agent.sock"
        self.admin_socket = directory / "private" / "admin.sock"
        self.endpoint = f"unix://{self.workload_socket}"
        self.admin_endpoint = f"unix://{self.admin_socket}"
        self._server_socket = directory / "server.sock"
        self._delegate = delegate
        self._port = _free_port()
        self._server: asyncio.subprocess.Process | None = None
        self._agent: asyncio.subprocess.Process | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, directory: Path, trust_domain: str, delegate: str | None = None
    ) -> AsyncIterator[Self]:
        """Start both; both are gone after the context."""
        one = cls(directory, trust_domain, delegate)
        await asyncio.to_thread(one._lay_out)
        try:
            one._server = await one._run("spire-server", "server.conf")
            await one._until("spire-server", "healthcheck", "-socketPath", str(one._server_socket))
            await one.start_agent(await one._join_token())
            yield one
        finally:
            for process in (one._agent, one._server):
                if process is not None and process.returncode is None:
                    process.kill()
                    await process.wait()

    # --- the agent ---------------------------------------------------------------------------

    async def start_agent(self, join_token: str | None = None) -> None:
        """Start the agent, again after `kill_agent`."""
        more = ("-joinToken", join_token) if join_token else ()
        self._agent = await self._run("spire-agent", "agent.conf", *more)
        await self._until("spire-agent", "healthcheck", "-socketPath", str(self.workload_socket))

    async def kill_agent(self) -> None:
        """End the agent by SIGKILL."""
        assert self._agent is not None
        self._agent.send_signal(signal.SIGKILL)
        await self._agent.wait()

    # --- the server --------------------------------------------------------------------------

    async def register(self, spiffe_id: str, *selectors: str, federates_with: str = "") -> str:
        """Create an entry; returns its id. It reaches the agent within seconds."""
        options = [option for one in selectors for option in ("-selector", one)]
        if federates_with:
            options += ["-federatesWith", federates_with]
        answer = await self.server(
            "entry", "create", "-parentID", self.node, "-spiffeID", spiffe_id, *options
        )
        entry: str = answer["results"][0]["entry"]["id"]
        return entry

    async def delete(self, entry: str) -> None:
        """Delete an entry."""
        await self.server("entry", "delete", "-entryID", entry)

    async def bundle(self) -> bytes:
        """Return the trust domain's bundle in the SPIFFE format."""
        return await self._text("bundle", "show", "-format", "spiffe")

    async def federate(self, other: "Spire") -> None:
        """Set another domain's bundle here."""
        file = self.directory / "federated.json"
        await asyncio.to_thread(file.write_bytes, await other.bundle())
        domain = f"spiffe://{other.trust_domain}"
        await self._text("bundle", "set", "-id", domain, "-format", "spiffe", "-path", str(file))

    async def rotate(self, kind: str) -> None:
        """
        Replace the `jwt` or `x509` authority by force: prepare, activate, taint, revoke.

        Between the last two the agent must have renewed what the old one signed, its own SVID
        included, or it is cut off from its server.
        """
        before = await self.server("localauthority", kind, "show")
        old = before["active"]["authority_id"]
        prepared = await self.server("localauthority", kind, "prepare")
        new = prepared["prepared_authority"]["authority_id"]
        await self.server("localauthority", kind, "activate", "-authorityID", new)
        await self.server("localauthority", kind, "taint", "-authorityID", old)
        await asyncio.sleep(_RENEWING)
        await self.server("localauthority", kind, "revoke", "-authorityID", old)

    async def server(self, *command: str) -> Any:
        """Run one of spire-server's commands; returns what it prints as JSON."""
        return json.loads(await self._text(*command, "-output", "json"))

    async def version(self) -> str:
        """Return what spire-server says of itself."""
        process = await asyncio.create_subprocess_exec(
            "spire-server",
            "--version",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        return (await process.communicate())[0].decode().strip()

    # --- inside ------------------------------------------------------------------------------

    async def _join_token(self) -> str:
        answer = await self.server("token", "generate", "-spiffeID", self.node)
        token: str = answer["value"]
        return token

    async def _text(self, *command: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            "spire-server",
            *command,
            "-socketPath",
            str(self._server_socket),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        assert process.returncode == 0, (command, error.decode())
        return out

    async def _run(self, program: str, config: str, *more: str) -> asyncio.subprocess.Process:
        with (self.directory / f"{program}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(program, "run", "-config", str(self.directory / config), *more),
                stdout=log,
                stderr=log,
            )

    async def _until(self, *command: str) -> None:
        """Wait until a check exits with 0."""
        async with asyncio.timeout(_STARTING):
            while True:
                check = await asyncio.create_subprocess_exec(
                    *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
                )
                if await check.wait() == 0:
                    return
                await asyncio.sleep(_POLL)

    def _lay_out(self) -> None:
        for name in ("public", "private", "server", "agent"):
            (self.directory / name).mkdir(mode=0o755, parents=True)
        (self.directory / "server.conf").write_text(self._server_config())
        (self.directory / "agent.conf").write_text(self._agent_config())

    def _server_config(self) -> str:
        data = self.directory / "server"
        return f"""
server {{
  bind_address = "127.0.0.1"
  bind_port = "{self._port}"
  socket_path = "{self._server_socket}"
  trust_domain = "{self.trust_domain}"
  data_dir = "{data}"
  log_level = "INFO"
  ca_ttl = "1h"
  default_x509_svid_ttl = "10m"
  default_jwt_svid_ttl = "5m"
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{ database_type = "sqlite3" connection_string = "{data}/datastore.sqlite3" }}
  }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
}}
"""

    def _agent_config(self) -> str:
        data = self.directory / "agent"
        delegates = json.dumps([self._delegate] if self._delegate else [])
        return f"""
agent {{
  data_dir = "{data}"
  log_level = "INFO"
  server_address = "127.0.0.1"
  server_port = "{self._port}"
  socket_path = "{self.workload_socket}"
  admin_socket_path = "{self.admin_socket}"
  authorized_delegates = {delegates}
  insecure_bootstrap = true
  trust_domain = "{self.trust_domain}"
  experimental {{ sync_interval = "1s" }}
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "disk" {{ plugin_data {{ directory = "{data}" }} }}
  WorkloadAttestor "unix" {{ plugin_data {{ discover_workload_path = true }} }}
}}
"""
