"""`metrics.listen`: one page over loopback TCP, for a handful of scrapers."""

import asyncio
import contextlib
import socket

import aiohttp
import pytest

from taskmint.api.metrics_listener import MOST_CONNECTIONS, serving_metrics
from taskmint.errors import Code, TaskmintError

OK = b"HTTP/1.1 200 OK\r\n"


async def page() -> bytes:
    """A page."""
    return b"taskmint_build_info 1\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_the_page_is_served_and_nothing_else(host: str) -> None:
    """A scraper needs no header; every other path and method is refused."""
    if host == "[::1]" and not has_ipv6():
        host = "127.0.0.1"
    async with (
        serving_metrics(f"{host}:0", page) as (_, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as session,
    ):
        async with session.get("/metrics") as reply:
            assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert await reply.read() == await page()
        async with session.get("/v1/admin/tasks") as reply:
            assert reply.status == 404
        async with session.post("/metrics", data=b"x" * 100_000) as reply:
            assert reply.status == 405


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


async def first_line(exits: contextlib.AsyncExitStack, where: tuple[str, int]) -> bytes:
    """Ask for the page on a new connection, which stays open; the answer's first line."""
    reader, writer = await asyncio.open_connection(*where)
    exits.callback(writer.close)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        return await reader.readline()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: "])
async def test_p10_who_holds_places_keeps_nobody_from_the_page(sent: bytes) -> None:
    """P10: with each place taken by somebody who asks nothing, the longest gives way at once."""
    async with (
        serving_metrics("127.0.0.1:0", page) as where,
        contextlib.AsyncExitStack() as exits,
    ):
        held = []
        for _ in range(MOST_CONNECTIONS):
            reader, writer = await asyncio.open_connection(*where)
            exits.callback(writer.close)
            writer.write(sent)
            held.append(reader)
        async with asyncio.timeout(5):
            assert await first_line(exits, where) == OK
            assert await held[0].read() == b""
        assert not any(reader.at_eof() for reader in held[1:])


async def test_p10_who_is_answered_gives_way_to_nobody() -> None:
    """P10: with each place in use a newcomer is closed; the others get their page."""
    asked, answer = asyncio.Semaphore(0), asyncio.Event()

    async def slow_page() -> bytes:
        asked.release()
        await answer.wait()
        return await page()

    async with (
        serving_metrics("127.0.0.1:0", slow_page) as where,
        contextlib.AsyncExitStack() as exits,
        asyncio.timeout(10),
    ):
        scrapes = [asyncio.create_task(first_line(exits, where)) for _ in range(MOST_CONNECTIONS)]
        for _ in scrapes:
            await asked.acquire()
        assert await first_line(exits, where) == b""
        answer.set()
        assert await asyncio.gather(*scrapes) == [OK] * MOST_CONNECTIONS


async def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    """With what to do instead; the daemon does not start half."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TaskmintError) as caught:
            async with serving_metrics(f"127.0.0.1:{port}", page):
                pass

    assert caught.value.code is Code.SOCKET_IN_USE
    assert f"metrics.listen 127.0.0.1:{port}" in caught.value.detail
