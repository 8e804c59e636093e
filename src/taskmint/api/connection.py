"""
One accepted connection: the kernel's word on its peer, and our own clock on what it sends.

aiohttp waits for ever for the rest of a half-sent request, so its handler sits behind this
protocol, which passes every call through and remembers when the next thing is due:

    waiting     a complete header within `header` of its first byte (of the accept, at first)
    serving     the rest of the body within `request` of the first byte; then the handler's time
    idle        the next request within `idle`
    stalled     at any time: the caller reads nothing of its answer for `write`

A header is complete when the application says so (`begin`, from a middleware). What never gets
that far, garbage included, is closed by the first clock. The listener asks `overdue` a few times
a second; nothing here starts timers.
"""

import asyncio
import enum
import os
import select
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

from aiohttp import StreamReader, web

from taskmint.errors import BadRequest, Code, TaskmintError
from taskmint.model.peer import Peer


class TlsTerms(Protocol):
    """What a connection that opens with TLS is offered; identity/tls.py knows."""

    def context(self) -> ssl.SSLContext | None:
        """Return the terms that hold now; None while there are none."""

    def admit(self, session: ssl.SSLObject) -> tuple[bytes, ...]:
        """Return the caller's verified chain, DER, leaf first. Raises TaskmintError."""


@dataclass(frozen=True, slots=True)
class TlsDoor:
    """The terms, and who is told of a peer whose handshake proved nobody, and why."""

    terms: TlsTerms
    unproven: Callable[[Peer, TaskmintError], None]


# What a request's connection was opened with, for ports.Presented; empty without TLS.
CHAIN: Final = web.RequestKey("chain", tuple[bytes, ...])


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; decisions and reasons stand in docs/identity.md."""

    header: float = 5.0
    request: float = 10.0
    idle: float = 60.0
    write: float = 20.0


class _Phase(enum.Enum):
    WAITING = enum.auto()
    SERVING = enum.auto()
    IDLE = enum.auto()


class Connection(asyncio.Protocol):
    """
    Passes a transport's calls on to aiohttp's handler and keeps the time.

    The peer's pidfd stays open until the connection is closed *and* no request of it is being
    served, so that a handler that outlives its caller never polls a descriptor of somebody else.
    """

    def __init__(
        self,
        peer: Peer,
        handler: web.RequestHandler,
        timeouts: Timeouts,
        now: Callable[[], float],
        released: Callable[["Connection"], None],
        tls: TlsDoor | None = None,
    ) -> None:
        self.peer = peer
        self.handler = handler
        self.chain: tuple[bytes, ...] = ()
        self._tls = tls
        self._admitted = False
        self._timeouts = timeouts
        self._now = now
        self._released = released
        self._transport: asyncio.Transport | None = None
        self._closed = False
        self._phase = _Phase.WAITING
        self._deadline = now() + timeouts.header
        self._body_deadline = now() + timeouts.request
        self._body: StreamReader | None = None
        self._next_request_begun = False
        self._half_closed = False
        self._stalled_at: float | None = None
        self._on_lost: Callable[[], None] | None = None

    # --- what the listener asks --------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether the transport still stands."""
        return not self._closed

    @property
    def connected(self) -> bool:
        """Whether a transport has taken the socket over."""
        return self._transport is not None

    @property
    def hung_up(self) -> bool:
        """Whether the caller is known to be gone, so that what is sent reaches nobody."""
        if self._transport is None or self._transport.is_closing():
            return True
        return self._half_closed and _closed_both_ways(self._transport)

    @property
    def expected(self) -> bool:
        """Whether a request is on its way: accepted and not heard yet, or heard in part."""
        return self._phase is _Phase.WAITING

    def overdue(self, now: float) -> bool:
        """Whether a clock of this connection has run out at `now` (the loop's time)."""
        if self._stalled_at is not None and now >= self._stalled_at + self._timeouts.write:
            return True
        if self._phase is _Phase.SERVING:
            return now >= self._body_deadline and not self._body_received()
        return now >= self._deadline

    def close(self) -> None:
        """Close once what is written has been sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now, dropping what is unsent."""
        if self._transport is not None:
            self._transport.abort()

    def discard(self) -> None:
        """Release a connection whose transport never came to be."""
        self._close()

    # --- what the application says -----------------------------------------------------------

    def begin(self, body: StreamReader) -> None:
        """Note that a request's header is complete and that it is being served."""
        if self._phase is _Phase.IDLE:  # it came with the one before, and its time begins here
            self._body_deadline = self._now() + self._timeouts.request
        self._phase = _Phase.SERVING
        self._body = body
        self._next_request_begun = False

    def on_lost(self, callback: Callable[[], None]) -> None:
        """
        Call back when the caller hangs up while this request is served; at once if it has.

        That it hangs up is read behind whatever it sends, and aiohttp stops reading when enough
        waits. So until the answer is over a further byte closes the connection. Raises
        BadRequest(malformed_request) when so much waits already, or the caller's side is closed.
        """
        if self._transport is None:
            callback()
            return
        if self._half_closed or not self._transport.is_reading():
            raise BadRequest(
                Code.MALFORMED_REQUEST,
                "nothing more is read here: that the caller hangs up would not be noticed",
                fix="follow events on a connection of its own, and neither send more nor close it",
            )
        self._on_lost = callback

    def end(self) -> None:
        """Note that the application has answered."""
        self._body = None
        self._on_lost = None
        if self._next_request_begun:
            self._expect_request()
        else:
            self._phase = _Phase.IDLE
            self._deadline = self._now() + self._timeouts.idle
        if self._half_closed:
            self.handler.close()  # once this is sent
        if self._closed:
            self._release()

    # --- what the transport calls ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """
        Keep the transport for closing; under TLS, verify whom we speak with; then pass on.

        A caller that is not admitted is cut off before a byte of it reaches HTTP.
        """
        # uvloop's transports are asyncio.Transport in everything but ancestry.
        self._transport = cast("asyncio.Transport", transport)
        session = transport.get_extra_info("ssl_object")
        if session is not None and self._tls is not None:
            try:
                self.chain = self._tls.terms.admit(session)
            except TaskmintError as error:
                self._tls.unproven(self.peer, error)
                self._transport.abort()
                return
        self._admitted = True
        self.handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on; the first byte after an idle time starts the clocks of the next request."""
        if not self._admitted:
            return
        if self._on_lost is not None:
            self.abort()
            return
        if self._phase is _Phase.IDLE:
            self._expect_request()
        elif self._phase is _Phase.SERVING and self._body_received():
            self._next_request_begun = True
        self.handler.data_received(data)

    def eof_received(self) -> bool | None:
        """
        Pass on; whoever closed its own side alone (shutdown(2)) still gets what it asked for.

        That an event stream's caller is still there could not be seen; a body would never end; and
        TLS does not know the difference.
        """
        if not self._admitted or self._transport is None:
            return None
        self.handler.eof_received()
        asked = self._phase is _Phase.WAITING or (
            self._phase is _Phase.SERVING and self._body_received() and self._on_lost is None
        )
        self._half_closed = (
            asked
            and self._transport.get_extra_info("ssl_object") is None
            and not _closed_both_ways(self._transport)
        )
        return self._half_closed

    def pause_writing(self) -> None:
        """Pass on; from here the caller has `write` seconds to read something."""
        self._stalled_at = self._now()
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._stalled_at = None
        self.handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on, and release what no request needs any more."""
        if self._admitted:
            self.handler.connection_lost(exc)
        self._close()

    # --- inside ------------------------------------------------------------------------------

    def _expect_request(self) -> None:
        self._phase = _Phase.WAITING
        self._deadline = self._now() + self._timeouts.header
        self._body_deadline = self._now() + self._timeouts.request

    def _body_received(self) -> bool:
        return self._body is None or self._body.is_eof()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._transport = None
        if self._on_lost is not None:
            self._on_lost()
        if self._phase is not _Phase.SERVING:
            self._release()

    def _release(self) -> None:
        pidfd = self.peer.pidfd
        self._released(self)
        if pidfd is not None:
            os.close(pidfd)


def _closed_both_ways(transport: asyncio.Transport) -> bool:
    """Whether the other end of a Unix socket is closed, and not its sending side alone."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), 0)  # POLLHUP and POLLERR always show
    return bool(poll.poll(0))


# The connection that a request came over.
CONNECTION: Final = web.RequestKey("connection", Connection)
