"""
The agent's public socket: reads who connects, then relays the bytes to the gRPC server behind it.

A gRPC server in Python cannot see its peer. So each connection is accepted here, the peer is read,
and a client socket bound to a name of its own carries it on; the server sees that name in
`context.peer()` and asks here whose it is. Whoever connects to the inner socket directly has no
such name and is nobody.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from .registration import Caller

_CHUNK: Final = 65536
_BACKLOG: Final = 128


class Relay:
    """Accepts on `public`, relays to `inner`; `names` is a directory for the client names."""

    def __init__(self, public: Path, inner: Path, names: Path) -> None:
        self._public = public
        self._inner = inner
        self._names = names
        self._count = 0
        self._callers: dict[str, Caller] = {}
        self._connections: set[asyncio.Task[None]] = set()

    def caller(self, peer: str) -> Caller | None:
        """Return whose connection `context.peer()` names; None for nobody's."""
        return self._callers.get(peer)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Accept for as long as the context lasts; every connection ends with it."""
        self._public.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.setblocking(False)
            listener.bind(str(self._public))
            self._public.chmod(0o777)  # whoever asks is attested, as with SPIRE
            listener.listen(_BACKLOG)
            accepting = asyncio.create_task(self._accept(listener), name="workload API accepts")
            try:
                yield
            finally:
                accepting.cancel()
                await asyncio.wait([accepting])
                self._public.unlink(missing_ok=True)
                await self.drop()

    async def drop(self) -> None:
        """Cut every connection, as an agent that dies would."""
        connections = tuple(self._connections)
        for connection in connections:
            connection.cancel()
        if connections:
            await asyncio.wait(connections)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(self._serve(connection), name="workload API connection")
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve(self, connection: socket.socket) -> None:
        """Relay one connection under a name of its own until either side ends it."""
        with connection:
            caller = Caller.of(connection)
            if caller is None:
                return
            self._count += 1
            name = self._names / str(self._count)
            peer = f"unix:{name}"
            self._callers[peer] = caller
            try:
                await self._carry(connection, name)
            except OSError:
                pass  # either side may go at any moment: that ends the connection, no more
            finally:
                del self._callers[peer]
                caller.close()
                name.unlink(missing_ok=True)

    async def _carry(self, connection: socket.socket, name: Path) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as inner:
            inner.setblocking(False)
            inner.bind(os.fspath(name))
            await loop.sock_connect(inner, os.fspath(self._inner))
            ways = [
                asyncio.create_task(_copy(connection, inner)),
                asyncio.create_task(_copy(inner, connection)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)


async def _copy(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK):
        await loop.sock_sendall(target, data)
