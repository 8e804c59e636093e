"""
`metrics.listen`: the page of metrics over loopback TCP, for a scraper that speaks no Unix sockets.

Whoever is on this machine may read it: it holds no secret, no id and no SPIFFE ID. It serves this
one page, to a handful of connections at once. TCP does not say whose they are, so nobody has a
share: who comes when all places are taken gets that of whoever has had one longest without asking.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import structlog
from aiohttp import web

from taskmint.errors import Code, TaskmintError

from .admin_api import METRICS_TYPE
from .unreadable import Handler, Unreadable

MOST_CONNECTIONS: Final = 8
_SECONDS: Final = 10.0  # for an idle connection, and for those that are served at the stop

_log = structlog.get_logger()


class _Places:
    """Who is connected, in the order of coming, and who of them is being answered."""

    def __init__(self) -> None:
        self._taken: dict[web.RequestHandler, None] = {}
        self._answered: set[web.RequestHandler] = set()

    def take(self, newcomer: web.RequestHandler) -> None:
        """Give the newcomer a place, or close it when each is in use."""
        self._taken[newcomer] = None
        if len(self._taken) > MOST_CONNECTIONS:
            idle = (one for one in self._taken if one not in self._answered)
            longest = next(idle)  # at least the newcomer
            del self._taken[longest]
            longest.force_close()

    def leave(self, gone: web.RequestHandler) -> None:
        self._taken.pop(gone, None)

    @contextmanager
    def answering(self, one: web.RequestHandler) -> Iterator[None]:
        """Keep the place of whoever has asked until it is answered."""
        self._answered.add(one)
        try:
            yield
        finally:
            self._answered.discard(one)


class _Connection(Handler):
    __slots__ = ("_places",)

    def __init__(self, server: web.Server, unreadable: Unreadable, places: _Places) -> None:
        super().__init__(server, unreadable, access_log=None, keepalive_timeout=_SECONDS)
        self._places = places

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._places.take(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._places.leave(self)
        super().connection_lost(exc)


def _nobody(handler: web.RequestHandler) -> None:
    """TCP does not say who connected."""
    del handler


@asynccontextmanager
async def serving_metrics(
    listen: str, page: Callable[[], Awaitable[bytes]]
) -> AsyncIterator[tuple[str, int]]:
    """
    Serve `GET /metrics` at `HOST:PORT` while entered; yields where it listens.

    Raises TaskmintError(socket_in_use).
    """

    places = _Places()

    async def scrape(request: web.Request) -> web.Response:
        with places.answering(request.protocol):
            return web.Response(body=await page(), headers={"Content-Type": METRICS_TYPE})

    app = web.Application(client_max_size=1)
    app.add_routes([web.get("/metrics", scrape, allow_head=False)])
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    host, _, port = listen.rpartition(":")
    try:
        http = runner.server
        if http is None:
            raise RuntimeError("aiohttp made no server")
        unreadable = Unreadable(_nobody)
        server = await _bound(
            host.strip("[]"), int(port), lambda: _Connection(http, unreadable, places)
        )
        async with server:
            name = server.sockets[0].getsockname()
            _log.info("metrics_listening", host=name[0], port=name[1])
            yield name[0], name[1]
    finally:
        await runner.cleanup()


async def _bound(
    host: str, port: int, factory: Callable[[], asyncio.BaseProtocol]
) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(factory, host, port)
    except OSError as error:
        raise TaskmintError(
            Code.SOCKET_IN_USE,
            f"metrics.listen {host}:{port}: {error.strerror}",
            fix="name another port, or leave it out: the admin socket has the same page",
        ) from error
