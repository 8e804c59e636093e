"""
A lean HTTP/1.1 client on one kept connection, so that the load generator is not what is measured.

It knows what the three servers of the benchmark answer, Content-Length or no body, and refuses the
rest. It is the same for every arm: what it costs, it costs all of them.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Final, Self, cast

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2})[ \r]")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_END_OF_HEAD: Final = b"\r\n\r\n"
_NO_CONTENT: Final = 204


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        given = {"Host": "localhost", **headers}
        self._common = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self._buffer = bytearray()
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, address: str, headers: Mapping[str, str]) -> Self:
        """Connect to `HOST:PORT`, or to a Unix socket by its path; `headers` go with each call."""
        loop = asyncio.get_running_loop()
        if address.startswith("/"):
            _, connection = await loop.create_unix_connection(lambda: cls(headers), address)
        else:
            host, _, port = address.rpartition(":")
            _, connection = await loop.create_connection(lambda: cls(headers), host, int(port))
        return connection

    async def call(
        self, method: str, path: str, body: bytes = b"", headers: str = ""
    ) -> tuple[int, bytes]:
        """
        Make a request; the status and the body. `headers` are further whole lines.

        Raises ConnectionError when the server closes, ValueError for an answer of another form.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the server closed the connection")
        self._waiting = asyncio.get_running_loop().create_future()
        head = f"{method} {path} HTTP/1.1\r\n{self._common}{headers}"
        self._transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return await self._waiting

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    @property
    def is_open(self) -> bool:
        """Whether the server has kept the connection."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; uvloop's is one without being derived from it."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Collect until the answer is whole."""
        self._buffer += data
        end = self._buffer.find(_END_OF_HEAD)
        if end < 0 or self._waiting is None:
            return
        status = _STATUS.match(self._buffer)
        length = _LENGTH.search(self._buffer, 0, end + 2)
        if status is None or (length is None and int(status[1]) != _NO_CONTENT):
            self._waiting.set_exception(ValueError(f"unexpected answer: {self._buffer[:end]!r}"))
            self._buffer.clear()
            return
        start = end + len(_END_OF_HEAD)
        whole = start + (int(length[1]) if length else 0)
        if len(self._buffer) >= whole:
            answer = int(status[1]), bytes(self._buffer[start:whole])
            del self._buffer[:whole]
            waiting, self._waiting = self._waiting, None
            if not waiting.done():
                waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError(str(exc or "closed by the server")))
