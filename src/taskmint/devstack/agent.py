"""
The development agent as a process: `python -m taskmint.devstack.agent CONFIGURATION`.

It composes the Workload API's socket, the JWKS for Vault, and a control socket on which the
environment is made to change: keys rotate, identities go, connections break. It is not SPIRE:
it authenticates no node, keeps its authorities in memory, and says so when it starts.
"""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import grpc.aio
from aiohttp import web

from .agent_configuration import AgentConfiguration
from .agent_relay import Relay
from .agent_service import WorkloadService
from .agent_state import AgentState
from .loopback import HOST
from .registration import Entry
from .trust_domain import TrustDomain

_WARNING: Final = """\
DEVELOPMENT ONLY: this Workload API is not SPIRE. It attests no node and keeps its authorities in
memory. Whoever can start the registered executables has their identities. Do not trust it with
anything that is not thrown away with it."""
_OK: Final = {"ok": True}


class Agent:
    """The parts of the running agent that the control socket can reach."""

    def __init__(self, state: AgentState, relay: Relay) -> None:
        self._state = state
        self._relay = relay
        self._public = contextlib.AsyncExitStack()

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        """
        Carry out one command, `{"do": NAME, …}`. Raises KeyError, TypeError for what it is not.

        rotate_jwt, rotate_x509: `retire` also withdraws the old authorities. register, redact:
        an entry comes or goes. drop: cut all connections. stop, start: close and open the socket.
        status: nothing.
        """
        name = command["do"]
        match name:
            case "status":
                pass
            case "rotate_jwt":
                await self._state.rotate_jwt(retire=command["retire"])
            case "rotate_x509":
                await self._state.rotate_x509(retire=command["retire"])
            case "register":
                await self._state.register(Entry(**command["entry"]))
            case "redact":
                await self._state.redact(command["spiffe_id"])
            case "drop":
                await self._relay.drop()
            case "stop":
                await self.stop()
            case "start":
                await self.start()
            case _:
                raise KeyError(name)
        return _OK

    async def start(self) -> None:
        """Open the public socket."""
        await self.stop()
        await self._public.enter_async_context(self._relay.serving())

    async def stop(self) -> None:
        """Close the public socket and every connection on it; authorities and entries stay."""
        await self._public.aclose()
        self._public = contextlib.AsyncExitStack()

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection of the control socket: a line of JSON in, a line of JSON out."""
        with contextlib.closing(writer):
            while line := await reader.readline():
                try:
                    answer = await self.do(json.loads(line))
                except (KeyError, TypeError, ValueError, OSError) as error:
                    answer = {"ok": False, "error": repr(error)}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()


@contextlib.asynccontextmanager
async def serving(configuration: AgentConfiguration) -> AsyncIterator[None]:
    """Serve all three sockets for as long as the context lasts."""
    trust = configuration.trust
    domain = TrustDomain(
        trust.domain,
        jwt_life=timedelta(seconds=trust.jwt_life),
        x509_life=timedelta(seconds=trust.x509_life),
    )
    state = AgentState(domain, configuration.entries)
    directory = Path(configuration.directory)
    names, inner = directory / "c", directory / "inner.sock"
    names.mkdir(0o700, exist_ok=True)
    for left in (*names.iterdir(), inner, configuration.control):
        left.unlink(missing_ok=True)
    relay = Relay(Path(configuration.socket), inner, names)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((WorkloadService(state, relay).handler(),))
    server.add_insecure_port(f"unix:{inner}")
    async with contextlib.AsyncExitStack() as stack:
        await server.start()
        stack.push_async_callback(server.stop, grace=None)
        await stack.enter_async_context(_jwks(domain, configuration.jwks_port))
        agent = Agent(state, relay)
        stack.push_async_callback(agent.stop)
        await agent.start()
        control = await asyncio.start_unix_server(agent.control, configuration.control)
        stack.callback(control.close)
        yield


@contextlib.asynccontextmanager
async def _jwks(domain: TrustDomain, port: int) -> AsyncIterator[None]:
    """Serve the JWT authorities at /keys, as SPIRE's OIDC discovery provider does."""

    async def keys(_: web.Request) -> web.Response:
        return web.json_response(domain.jwks())

    application = web.Application()
    application.router.add_get("/keys", keys)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        yield
    finally:
        await runner.cleanup()


async def _run(path: str) -> None:
    configuration = AgentConfiguration.parse(await asyncio.to_thread(Path(path).read_text))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(configuration):
        await stop.wait()


if __name__ == "__main__":
    sys.stderr.write(_WARNING + "\n")
    asyncio.run(_run(sys.argv[1]))
