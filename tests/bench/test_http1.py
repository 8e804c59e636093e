"""The load generator's client reads what the benchmark's servers answer, however it is cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.http1 import Connection

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}"
NOTHING = b"HTTP/1.1 204 No Content\r\nDate: today\r\n\r\n"


@asynccontextmanager
async def answering(*pieces: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers each request with these pieces, and shows what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            try:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError:
                break
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if not pieces:
                break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}", asked


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_in_pieces_is_put_together(size: int) -> None:
    """TCP may cut anywhere; the connection serves the next call."""
    pieces = [JSON[at : at + size] for at in range(0, len(JSON), size)]
    async with answering(*pieces) as (address, asked):
        connection = await Connection.open(address, {"X-Common": "1"})
        assert await connection.call("GET", "/one", b"", "X-Own: 2\r\n") == (200, b"{}")
        assert await connection.call("GET", "/two") == (200, b"{}")
        connection.close()
    assert asked[0].startswith(
        b"GET /one HTTP/1.1\r\nHost: localhost\r\nX-Common: 1\r\nX-Own: 2\r\n"
    )
    assert asked[1].endswith(b"Content-Length: 0\r\n\r\n")


async def test_no_content_has_no_length() -> None:
    """What OpenBao answers to a revocation."""
    async with answering(NOTHING) as (address, _):
        connection = await Connection.open(address, {})
        assert await connection.call("POST", "/revoke") == (204, b"")
        connection.close()


async def test_a_closed_connection_is_told() -> None:
    """A server that hangs up is an error of the call, and of the next."""
    async with answering() as (address, _):
        connection = await Connection.open(address, {})
        with pytest.raises(ConnectionError):
            await connection.call("GET", "/")
        with pytest.raises(ConnectionError):
            await connection.call("GET", "/")
        assert not connection.is_open


async def test_an_answer_without_a_length_is_refused() -> None:
    """The generator does not guess."""
    async with answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") as (address, _):
        connection = await Connection.open(address, {})
        with pytest.raises(ValueError, match="unexpected answer"):
            await connection.call("GET", "/")
        connection.close()
