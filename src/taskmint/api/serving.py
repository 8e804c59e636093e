"""A socket and an application in, a running server out: aiohttp behind our own accept loop."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from socket import socket
from typing import Final

from aiohttp import http, web

from taskmint.errors import Code, TaskmintError
from taskmint.model.peer import Peer

from .connection import TlsDoor
from .gate import Serving
from .listener import Listener, ListenerLimits, PeerSource
from .unreadable import Handler, Unreadable


def require_c_parser() -> None:
    """
    Refuse aiohttp's pure-Python HTTP parser, in which most of its request smuggling was.

    Raises TaskmintError(config_invalid).
    """
    if http.HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise TaskmintError(
            Code.CONFIG_INVALID,
            "aiohttp runs without its C parser",
            fix="install aiohttp from its wheel and unset AIOHTTP_NO_EXTENSIONS",
        )


# The listener has drained already; for aiohttp 0 would mean to wait without end.
_AFTER_DRAIN: Final = 0.1


class _Door:
    """Ties the application, which must exist first, to the listener that knows its peers."""

    def __init__(self) -> None:
        self._listener: Listener | None = None

    def open(self, listener: Listener) -> None:
        self._listener = listener

    def serving(self, request: web.Request) -> AbstractContextManager[Peer]:
        if self._listener is None:
            raise ConnectionResetError("the door is closed")
        return self._listener.serving(request)

    def unreadable(self, handler: web.RequestHandler) -> Peer | None:
        return self._listener.unreadable(handler) if self._listener is not None else None


@asynccontextmanager
async def serving_http(
    sock: socket,
    application: Callable[[Serving], web.Application],
    *,
    limits: ListenerLimits,
    reader: PeerSource,
    inherited: bool,
    tls: TlsDoor | None = None,
) -> AsyncIterator[Listener]:
    """
    Serve while entered; on leaving, requests being served finish within `limits.drain`.

    Bodies are never decompressed: a bomb stays small (reliability, row 34).
    """
    door = _Door()
    runner = web.AppRunner(application(door.serving), shutdown_timeout=_AFTER_DRAIN)
    await runner.setup()
    try:
        server = runner.server
        if server is None:
            raise RuntimeError("aiohttp made no server")
        unreadable = Unreadable(door.unreadable)

        def handler() -> web.RequestHandler:
            return Handler(server, unreadable, access_log=None, auto_decompress=False)

        async with Listener(
            sock, handler, limits=limits, reader=reader, inherited=inherited, tls=tls
        ) as listener:
            door.open(listener)
            yield listener
    finally:
        await runner.cleanup()
