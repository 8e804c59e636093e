"""
A TCP proxy for HTTP/1.1 between one client and one server, that breaks what it is told to break.

It reads the first line of each request and nothing else; it works only for clients that do not
pipeline, on connections that are not encrypted.
"""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from typing import Final, Self

_REQUEST: Final = re.compile(rb"(?:GET|POST|PUT|PATCH|DELETE|LIST) (/\S*) HTTP/1\.1\r\n")
_CHUNK: Final = 65536
# Closing a socket with this option sends a reset, not an orderly end (socket(7), SO_LINGER).
_RESET: Final = struct.pack("ii", 1, 0)


class Fault(Enum):
    """What is done to a request, to its answer, or to everybody."""

    REFUSE = auto()  # nobody listens; open connections are reset
    BLACKHOLE = auto()  # the request is swallowed, and nothing comes back, ever
    RESET = auto()  # the request arrives; in the middle of the answer the connection is reset
    DRIP = auto()  # the request arrives; of the answer comes one byte each `drip_seconds`
    LOST_REPLY = auto()  # the request arrives and is answered; the answer does not come back


class TcpProxy:
    """
    `async with TcpProxy.before(host, port) as proxy`; clients connect to `proxy.port`.

    `once(fault, path)` breaks the next request whose path begins so; `always(fault)` breaks
    everything until `heal()`. `seen` are the paths of all requests that came, in order.
    """

    def __init__(self, host: str, port: int, drip_seconds: float) -> None:
        self.port = 0
        self.seen: list[str] = []
        self._target = host, port
        self._drip_seconds = drip_seconds
        self._standing: Fault | None = None
        self._armed: list[tuple[str, Fault]] = []
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    @classmethod
    @asynccontextmanager
    async def before(
        cls, host: str, port: int, *, drip_seconds: float = 1.0
    ) -> AsyncIterator[Self]:
        """Stand before a server for as long as the context lasts."""
        proxy = cls(host, port, drip_seconds)
        await proxy._listen()
        try:
            yield proxy
        finally:
            await proxy._refuse()

    def once(self, fault: Fault, path: str) -> None:
        """Break the next request whose path begins like this; not for REFUSE."""
        self._armed.append((path, fault))

    async def always(self, fault: Fault) -> None:
        """Break everything from now on; REFUSE and BLACKHOLE also what is under way."""
        self._standing = fault
        if fault is Fault.REFUSE:
            await self._refuse()

    async def heal(self) -> None:
        """Break nothing more; what was swallowed stays so, its connections are reset."""
        self._standing = None
        self._armed.clear()
        for connection in tuple(self._connections):
            if connection.fault is not None:
                connection.reset()
        if self._server is None:
            await self._listen()

    def count(self, path: str) -> int:
        """How many requests came whose path begins like this."""
        return sum(seen.startswith(path) for seen in self.seen)

    def fault_of(self, path: str) -> Fault | None:
        """Note a request, and say what is to be done to it."""
        self.seen.append(path)
        for index, (prefix, fault) in enumerate(self._armed):
            if path.startswith(prefix):
                del self._armed[index]
                return fault
        return self._standing

    @property
    def swallows(self) -> bool:
        """Whether nothing at all gets through."""
        return self._standing is Fault.BLACKHOLE

    @property
    def drip_seconds(self) -> float:
        """How long a dripping answer takes for each byte."""
        return self._drip_seconds

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in tuple(self._connections):
            connection.reset()
        while self._connections:
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        self._connections.add(connection)
        try:
            await connection.run(*self._target)
        finally:
            self._connections.discard(connection)


class _Connection:
    """One client's connection and the one to the server behind it."""

    def __init__(
        self, proxy: TcpProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.fault: Fault | None = None  # what is done to the request under way
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._pumps: tuple[asyncio.Task[None], ...] = ()

    async def run(self, host: str, port: int) -> None:
        """Carry bytes both ways until one side, or a fault, ends it."""
        try:
            answers, requests = await asyncio.open_connection(host, port)
        except OSError:  # the server is away; the client learns that as from the server itself
            self.reset()
            return
        self._pumps = (
            asyncio.create_task(self._to_server(requests), name="proxy requests"),
            asyncio.create_task(self._to_client(answers), name="proxy answers"),
        )
        try:
            await asyncio.wait(self._pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.stop()
            await asyncio.gather(*self._pumps, return_exceptions=True)
            requests.close()
            self._writer.close()

    def stop(self) -> None:
        """Carry nothing more."""
        for pump in self._pumps:
            pump.cancel()

    def reset(self) -> None:
        """Break the client's connection without an orderly end."""
        sock = self._writer.get_extra_info("socket")
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()
        self.stop()

    async def _to_server(self, requests: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await self._reader.read(_CHUNK):
                if begun := _REQUEST.match(chunk):
                    self.fault = self._proxy.fault_of(begun[1].decode("ascii", "replace"))
                if self.fault is Fault.BLACKHOLE or self._proxy.swallows:
                    self.fault = Fault.BLACKHOLE
                    continue
                requests.write(chunk)
                await requests.drain()

    async def _to_client(self, answers: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while chunk := await answers.read(_CHUNK):
                match self.fault:
                    case _ if self._proxy.swallows:
                        self.fault = Fault.BLACKHOLE
                    case Fault.BLACKHOLE:
                        continue
                    case Fault.LOST_REPLY:
                        self.reset()
                    case Fault.RESET:
                        self._writer.write(chunk[: len(chunk) // 2])
                        await self._writer.drain()
                        self.reset()
                    case Fault.DRIP:
                        await self._drip(chunk)
                    case _:
                        self._writer.write(chunk)
                        await self._writer.drain()

    async def _drip(self, chunk: bytes) -> None:
        for byte in chunk:
            self._writer.write(bytes((byte,)))
            await self._writer.drain()
            await asyncio.sleep(self._proxy.drip_seconds)
