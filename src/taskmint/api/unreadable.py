"""
What is no request that aiohttp can read in, a problem out, like every other refusal's.

Whoever can open the door can send garbage. Each is answered and counted; a few lines a minute tell
of it, without a word of what was sent: aiohttp's own answer repeats it, and its log line is a
traceback. Nothing here closes a connection that says nothing: the listener's clocks do.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiohttp import http_exceptions, web

from taskmint.errors import BadRequest, Code
from taskmint.model.peer import Peer

from .gate import REQUEST_ID, request_number
from .problems import problem

_log = structlog.get_logger()

LINES: Final = 10  # each minute, for a door; the next one says how many were left out
_MINUTE: Final = 60.0


class Unreadable:
    """Answers for one door; `told` counts them and names who sent it, where that is known."""

    def __init__(self, told: Callable[[web.RequestHandler], Peer | None]) -> None:
        self._told = told
        self._until = 0.0
        self._lines = 0
        self._left_out = 0

    def answer(self, handler: web.RequestHandler, error: BadRequest, kind: str) -> web.Response:
        """Tell of it and make the answer, after which the connection is closed."""
        number = request_number()
        self._tell(self._told(handler), number, kind)
        response = problem(error)
        response.headers[REQUEST_ID] = number
        response.force_close()
        return response

    def _tell(self, peer: Peer | None, number: str, kind: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self._until, self._lines = now + _MINUTE, 0
        if self._lines >= LINES:
            self._left_out += 1
            return
        self._lines += 1
        who = {} if peer is None else {"uid": peer.uid, "pid": peer.pid}
        _log.warning(
            "request_unreadable", request=number, kind=kind, left_out=self._left_out, **who
        )
        self._left_out = 0


class Handler(web.RequestHandler):
    """aiohttp's protocol, but for what it says by itself."""

    __slots__ = ("_unreadable",)

    def __init__(self, server: web.Server, unreadable: Unreadable, **settings: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **settings)
        self._unreadable = unreadable

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """
        Answer what could not be parsed; leave to aiohttp what should not be.

        Raises the ConnectionError of a caller that hung up: nobody is left to answer, and it is
        no error of ours.
        """
        if isinstance(exc, ConnectionError):
            raise exc
        if isinstance(exc, http_exceptions.HttpProcessingError):
            return self._unreadable.answer(self, _malformed(exc), type(exc).__name__)
        return super().handle_error(request, status, exc, message)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; one that aiohttp made before the gate was asked becomes a problem."""
        if isinstance(resp, web.HTTPExpectationFailed):
            resp = self._unreadable.answer(self, _EXPECTATION, "Expect")
        return await super().finish_response(request, resp, start_time)


_EXPECTATION: Final = BadRequest(
    Code.MALFORMED_REQUEST,
    "the header Expect asks for something unknown",
    fix="leave it out, or send Expect: 100-continue",
)


def _malformed(error: http_exceptions.HttpProcessingError) -> BadRequest:
    if isinstance(error, http_exceptions.LineTooLong):
        return BadRequest(
            Code.MALFORMED_REQUEST,
            "the request's target or one of its headers is too long",
            fix="keep the target, and each header, below 8 KiB",
        )
    return BadRequest(
        Code.MALFORMED_REQUEST,
        "this is not a request in HTTP/1.1",
        fix="send what RFC 9112 describes; docs/openapi.json has every call",
    )
