"""
A listening Unix socket in, connections with a known peer out: our own accept loop.

aiohttp's sites neither know who connected nor bound what a connection may cost. Here each socket
is accepted by us, its peer is taken from the kernel, caps and clocks are applied (P10), and only
then does it reach the HTTP server. Nothing here reads a byte of a request or knows an identity.
"""

import asyncio
import json
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

import structlog
from aiohttp import web

from taskmint.errors import Code, Unproven
from taskmint.model.peer import Peer

from .connection import CHAIN, CONNECTION, Connection, Timeouts, TlsDoor
from .first_byte import FIRST_OF_TLS, first_byte

_log = structlog.get_logger()

_ACCEPTS_PER_TURN: Final = 64  # then the loop serves others
_DESCRIPTORS_PER_CONNECTION: Final = 2  # the socket and the peer's pidfd
_PAUSE: Final = 0.2  # seconds without accepting after it failed, for instance with EMFILE
_TURN_OF_CLOCKS: Final = 0.25  # how often, in seconds, clocks are looked at
_HEARING: Final = 1.0  # seconds at the stop for those who were accepted to say what they want
_FLUSH: Final = 0.05  # seconds for aiohttp to write what its handlers have returned
_SETTLE: Final = 1.0  # seconds for closed transports to send what they hold

# The problem+json that aiohttp cannot send, because this connection never reaches it.
_REFUSAL_BODY: Final = json.dumps(
    {
        "type": f"urn:taskmint:error:{Code.LIMIT_EXCEEDED}",
        "title": "A limit is reached",
        "status": 429,
        "code": Code.LIMIT_EXCEEDED,
        "detail": "Too many connections are open.",
        "fix": "Close connections that are not needed, and try again.",
    }
).encode()
_REFUSAL: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\n"
    b"Retry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
    % (len(_REFUSAL_BODY), _REFUSAL_BODY)
)


class PeerSource(Protocol):
    """Who knows what the kernel says of a peer; identity/peers.py does."""

    def check(self) -> None:
        """Raise TaskmintError(config_invalid) when the kernel says less than is required."""

    def read_uid(self, sock: socket.socket) -> int:
        """Return only the peer's uid."""

    def read(self, sock: socket.socket, *, first_pass: bool = False) -> Peer:
        """Return the peer of a socket accepted just now, with a pidfd that the caller closes."""


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """
    What connections may cost. `descriptors_reserved` are kept for Vault, the ledger and bound
    processes: fewer than `connections` are served when the process may not open enough files. The
    last `descriptors_spare` no connection gets, whatever else has taken the others.
    """

    connections: int = 1024
    connections_per_uid: int = 128
    descriptors_reserved: int = 128
    descriptors_spare: int = 32
    drain: float = 5.0
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(slots=True)
class ListenerCounts:
    """Totals since the start, for metrics."""

    accepted: int = 0
    refused: int = 0
    timed_out: int = 0
    unreadable: int = 0
    accept_failures: int = 0


def affordable_connections(wanted: int, descriptors: int, reserved: int) -> int:
    """Return how many connections fit beside what is reserved; at least one."""
    return max(1, min(wanted, (descriptors - reserved) // _DESCRIPTORS_PER_CONNECTION))


class Listener:
    """
    Accepts on a listening AF_UNIX socket while entered.

    `factory` makes aiohttp's protocol: `web.AppRunner(...).server` after `setup()`. The socket
    stays its owner's: it is neither closed nor unlinked here. `inherited` says that callers may
    have queued on it before this process ran (socket activation). With `tls` a connection whose
    first byte opens a TLS handshake gets one, and all others go on in plain.
    """

    def __init__(
        self,
        sock: socket.socket,
        factory: Callable[[], web.RequestHandler],
        *,
        limits: ListenerLimits,
        reader: PeerSource,
        inherited: bool = False,
        tls: TlsDoor | None = None,
    ) -> None:
        self.counts = ListenerCounts()
        self._sock = sock
        self._factory = factory
        self._limits = limits
        self._reader = reader
        self._first_pass = inherited
        self._tls = tls
        self._most = limits.connections
        self._spare_from = 0
        self._by_uid: Counter[int] = Counter()
        self._by_handler: dict[web.RequestHandler, Connection] = {}
        self._setups: set[asyncio.Task[None]] = set()
        self._clocks: asyncio.Task[None] | None = None
        self._resume: asyncio.TimerHandle | None = None
        self._serving = 0
        self._moved = asyncio.Event()  # a connection was set up, began a request, or has gone
        self._unoccupied = asyncio.Event()  # nothing is being served
        self._gone = asyncio.Event()  # no connection is left
        self._unoccupied.set()
        self._gone.set()

    async def __aenter__(self) -> Self:
        """Start accepting. Raises TaskmintError(config_invalid) when the kernel lacks a pidfd."""
        self._reader.check()
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = affordable_connections(
            self._limits.connections, descriptors, self._limits.descriptors_reserved
        )
        self._spare_from = descriptors - self._limits.descriptors_spare
        if self._most < self._limits.connections:
            _log.warning("connections_capped_by_descriptors", connections=self._most)
        self._sock.setblocking(False)
        self._start_accepting()
        self._clocks = asyncio.create_task(self._watch_clocks(), name="connection clocks")
        return self

    async def __aexit__(self, *_: object) -> None:
        """
        Stop accepting, let requests being served finish for `drain` seconds, then close.

        Who was accepted no longer waits in the socket's queue for the next daemon, so it is heard
        first: a local caller speaks at once, and one that says nothing delays us by a second.
        """
        self.stop_accepting()
        try:
            await self._hear()
            for handler in self._by_handler:
                handler.close()  # aiohttp: no further request on this connection
            await _within(self._limits.drain, self._unoccupied)
            await asyncio.sleep(_FLUSH)
            for connection in self._open():
                connection.close()
            await _within(_SETTLE, self._gone)
        finally:
            for setup in self._setups:
                setup.cancel()
            for connection in self._open():
                connection.abort()
            if self._clocks is not None:
                self._clocks.cancel()
        await asyncio.gather(*self._setups, return_exceptions=True)

    def stop_accepting(self) -> None:
        """Leave new callers in the socket's queue; those who are connected go on."""
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        asyncio.get_running_loop().remove_reader(self._sock)

    @property
    def connections(self) -> int:
        """How many connections count against the cap now."""
        return self._by_uid.total()

    def peer_of(self, handler: web.RequestHandler) -> Peer:
        """Return the peer of `request.protocol`. Raises ConnectionResetError when it hung up."""
        return self._connection(handler).peer

    def unreadable(self, handler: web.RequestHandler) -> Peer:
        """Count a request that cannot be read; returns whose. Raises ConnectionResetError."""
        self.counts.unreadable += 1
        return self.peer_of(handler)

    @contextmanager
    def serving(self, request: web.BaseRequest) -> Iterator[Peer]:
        """
        Wrap the serving of a request, in the outermost middleware; yields the peer.

        Entering says that the header is complete, and sets `request[CHAIN]` and
        `request[CONNECTION]`. While inside, the peer's pidfd stays open even when the caller hangs
        up. Raises ConnectionResetError when the caller already has.
        """
        connection = self._connection(request.protocol)
        request[CHAIN] = connection.chain
        request[CONNECTION] = connection
        connection.begin(request.content)
        self._moved.set()
        self._serving += 1
        self._unoccupied.clear()
        try:
            yield connection.peer
        finally:
            connection.end()
            self._serving -= 1
            if not self._serving:
                self._unoccupied.set()

    # --- accepting ---------------------------------------------------------------------------

    def _start_accepting(self) -> None:
        self._resume = None
        asyncio.get_running_loop().add_reader(self._sock, self._accept_some)

    def _accept_some(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                self._first_pass = False
                return
            except OSError as error:
                self._pause(error)
                return
            self._accepted(sock)

    def _pause(self, error: OSError) -> None:
        """Out of descriptors, mostly: asking again at once would only spin."""
        self.stop_accepting()
        self.counts.accept_failures += 1
        if self.counts.accept_failures.bit_count() == 1:  # 1, 2, 4, ...: a flood logs little
            _log.error("accepting_paused", reason=error.strerror, times=self.counts.accept_failures)
        self._resume = asyncio.get_running_loop().call_later(_PAUSE, self._start_accepting)

    def _accepted(self, sock: socket.socket) -> None:
        """Apply the caps, take the peer, and hand over; a refused socket is answered and closed."""
        uid = self._reader.read_uid(sock)
        # Numbers are given out from below (accept(2)): a high one says that all others are taken.
        full = self.connections >= self._most or sock.fileno() >= self._spare_from
        if full or self._by_uid[uid] >= self._limits.connections_per_uid:
            self.counts.refused += 1
            _refuse(sock)
            return
        self.counts.accepted += 1
        sock.setblocking(False)
        # An urgent byte (MSG_OOB) would make the socket readable and yet not be there to be read,
        # and the loop would turn without rest. In line it is a byte like any other.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        peer = self._reader.read(sock, first_pass=self._first_pass)
        loop = asyncio.get_running_loop()
        connection = Connection(
            peer, self._factory(), self._limits.timeouts, loop.time, self._released, self._tls
        )
        self._by_uid[uid] += 1
        self._by_handler[connection.handler] = connection
        self._gone.clear()
        setup = loop.create_task(self._set_up(sock, connection))
        self._setups.add(setup)
        setup.add_done_callback(self._set_up_done)

    async def _set_up(self, sock: socket.socket, connection: Connection) -> None:
        """Give the socket to a transport; TLS or plain is told by a byte that stays unread."""
        seconds = self._limits.timeouts.header
        try:
            async with asyncio.timeout(seconds):
                terms = await self._terms_for(sock)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=terms,
                ssl_handshake_timeout=seconds if terms else None,
                ssl_shutdown_timeout=_SETTLE if terms else None,
            )
        except OSError as error:  # TimeoutError and ssl.SSLError are
            self._not_set_up(sock, connection)
            # The latter is how a loop calls a handshake that took too long.
            self.counts.timed_out += isinstance(error, TimeoutError | ConnectionAbortedError)
            if isinstance(error, ssl.SSLError) and self._tls is not None:
                self._tls.unproven(connection.peer, _handshake_failed(error))
        except BaseException:  # cancelled, or what nobody expected: a place must not stay taken
            self._not_set_up(sock, connection)
            raise

    async def _terms_for(self, sock: socket.socket) -> ssl.SSLContext | None:
        """Wait for the first byte; returns TLS terms when it asks for them, None for plain."""
        if self._tls is None:
            return None
        first = await first_byte(sock)
        terms = self._tls.terms.context() if first == FIRST_OF_TLS else None
        if not first or (first == FIRST_OF_TLS and terms is None):
            raise ConnectionResetError("nothing was said, or there is nothing to answer with")
        return terms

    def _set_up_done(self, setup: asyncio.Task[None]) -> None:
        self._setups.discard(setup)
        self._moved.set()
        if not setup.cancelled() and (error := setup.exception()) is not None:
            _log.critical("connection_not_set_up", exc_info=error)

    def _not_set_up(self, sock: socket.socket, connection: Connection) -> None:
        if not connection.connected:  # else the transport owns the socket
            sock.close()
            connection.discard()

    async def _hear(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEARING):
                while self._setups or any(one.expected for one in self._open()):
                    self._moved.clear()
                    await self._moved.wait()

    # --- keeping -----------------------------------------------------------------------------

    async def _watch_clocks(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TURN_OF_CLOCKS)
            now = loop.time()
            for connection in self._open():
                # One that is still being set up is timed there.
                if connection.connected and connection.overdue(now):
                    self.counts.timed_out += 1
                    connection.abort()

    def _open(self) -> list[Connection]:
        return [connection for connection in self._by_handler.values() if connection.open]

    def _connection(self, handler: web.RequestHandler) -> Connection:
        connection = self._by_handler.get(handler)
        if connection is None:
            raise ConnectionResetError("the caller hung up")
        return connection

    def _released(self, connection: Connection) -> None:
        del self._by_handler[connection.handler]
        self._moved.set()
        uid = connection.peer.uid
        self._by_uid[uid] -= 1
        if not self._by_uid[uid]:
            del self._by_uid[uid]
        if not self._by_handler:
            self._gone.set()


def _handshake_failed(error: ssl.SSLError) -> Unproven:
    """Say it by OpenSSL's name for it, which holds nothing that the caller sent."""
    return Unproven(
        Code.CREDENTIAL_INVALID,
        f"The TLS handshake failed: {error.reason}.",
        fix="connect with an X.509-SVID of a trust domain that this daemon believes",
    )


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for the event, but no longer."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _refuse(sock: socket.socket) -> None:
    """Say why in one write that cannot block, and close."""
    with sock:
        sock.setblocking(False)
        with suppress(OSError):  # it hung up, or sent so much that nothing fits
            sock.send(_REFUSAL)
