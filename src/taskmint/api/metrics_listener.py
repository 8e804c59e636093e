"""
`metrics.listen`: the page of metrics over loopback TCP, for a scraper that speaks no Unix sockets.

Whoever is on this machine may read it: it holds no secret, no id and no SPIFFE ID. It serves this
one page, to a handful of connections at once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web

from taskmint.errors import Code, TaskmintError

from .admin_api import METRICS_TYPE
from .unreadable import Handler, Unreadable

MOST_CONNECTIONS: Final = 8
_SECONDS: Final = 10.0  # for an idle connection, and for those that are served at the stop

_log = structlog.get_logger()


class _Refusing(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


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

    async def scrape(request: web.Request) -> web.Response:
        del request
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

        def connection() -> asyncio.Protocol:
            if len(http.connections) >= MOST_CONNECTIONS:
                return _Refusing()
            return Handler(http, unreadable, access_log=None, keepalive_timeout=_SECONDS)

        server = await _bound(host.strip("[]"), int(port), connection)
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
