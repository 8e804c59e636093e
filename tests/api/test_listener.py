"""The accept loop: who connected, what a connection may cost, how it ends. Real sockets."""

import asyncio
import os
import resource
import select
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import uvloop
from aiohttp import ClientConnectionError, ClientSession, UnixConnector, web

from taskmint.api.activation import SocketFile, bound_socket
from taskmint.api.connection import Timeouts, TlsDoor
from taskmint.api.listener import Listener, ListenerLimits, affordable_connections
from taskmint.errors import TaskmintError
from taskmint.identity.peers import PeerReader, PidfdSource
from taskmint.model.peer import Peer, PeerProof

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Run = Callable[[Awaitable[None]], None]

LIMITS = ListenerLimits(
    connections=32,
    connections_per_uid=16,
    drain=1.0,
    timeouts=Timeouts(header=0.4, request=0.8, idle=0.6, write=0.5),
)
GET = b"GET /peer HTTP/1.1\r\nHost: taskmint\r\n\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run a coroutine to its end on a loop of its own, of either make."""
    factory: LoopFactory = (
        uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    )
    with asyncio.Runner(loop_factory=factory) as runner:

        def run_it(main: Awaitable[None]) -> None:
            async def whole() -> None:
                await main

            runner.run(whole())

        yield run_it


@dataclass
class Served:
    """A listener with a small application behind it."""

    path: Path
    listener: Listener
    entered: asyncio.Event
    release: asyncio.Event
    peers: list[Peer]
    after: list[str]

    def connect(self) -> socket.socket:
        """Connect a plain socket of this very process."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(self.path))
        sock.setblocking(False)
        return sock

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect with asyncio's streams."""
        return await asyncio.open_unix_connection(self.path)


@asynccontextmanager
async def served(
    directory: Path,
    limits: ListenerLimits = LIMITS,
    source: PidfdSource = PidfdSource.PREFER,
    *,
    inherited: bool = False,
    tls: TlsDoor | None = None,
) -> AsyncIterator[Served]:
    """Serve `/peer`, `/wait` (until released), `/body` and `/big` behind a listener."""
    path = directory / "task.sock"
    entered, release = asyncio.Event(), asyncio.Event()
    peers: list[Peer] = []
    after: list[str] = []

    @web.middleware
    async def serving(request: web.Request, handler: Handler) -> web.StreamResponse:
        with listener.serving(request) as peer:
            assert listener.peer_of(request.protocol) is peer
            peers.append(peer)
            return await handler(request)

    async def show(request: web.Request) -> web.Response:
        del request
        return web.json_response({"pid": peers[-1].pid, "uid": peers[-1].uid})

    async def wait(request: web.Request) -> web.Response:
        del request
        entered.set()
        await release.wait()
        pidfd = peers[-1].pidfd
        assert pidfd is not None
        after.append(descriptor_target(pidfd))
        return web.Response(text="waited")

    async def body(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async def big(request: web.Request) -> web.Response:
        del request
        return web.Response(body=b"x" * 8_000_000)

    app = web.Application(middlewares=[serving])
    app.add_routes(
        [
            web.get("/peer", show),
            web.get("/wait", wait),
            web.post("/body", body),
            web.get("/big", big),
        ]
    )
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    assert runner.server is not None
    async with bound_socket(SocketFile(path)) as sock:
        listener = Listener(
            sock,
            runner.server,
            limits=limits,
            reader=PeerReader(source),
            inherited=inherited,
            tls=tls,
        )
        async with listener:
            yield Served(path, listener, entered, release, peers, after)
    await runner.cleanup()


class NoTerms:
    """TLS is listened for, and none is offered."""

    def context(self) -> ssl.SSLContext | None:
        """Offer nothing."""
        return None

    def admit(self, session: ssl.SSLObject) -> tuple[bytes, ...]:
        """Never come to it."""
        raise AssertionError(f"{session} was never offered")


def never(peer: Peer, error: TaskmintError) -> None:
    """Fail: nobody comes to a handshake."""
    raise AssertionError(f"{peer} was refused: {error}")


class BrokenTerms(NoTerms):
    """Terms that fail as nobody expected."""

    def context(self) -> ssl.SSLContext | None:
        """Fail."""
        raise ArithmeticError


FIRST_BYTE_DOOR = TlsDoor(NoTerms(), never)


def descriptor_target(descriptor: int) -> str:
    """Return what one of our descriptors refers to."""
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def highest_descriptor() -> int:
    """Return the largest descriptor that this process has open."""
    return max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())


async def until(reached: Callable[[], bool]) -> None:
    """Wait for something that tells nobody when it happens."""
    async with asyncio.timeout(5):
        while not reached():
            await asyncio.sleep(0.01)


async def gone(served_: Served) -> None:
    """Wait until no connection counts any more."""
    await until(lambda: served_.listener.connections == 0)


async def closed(reader: asyncio.StreamReader, within: float) -> bytes:
    """Read until the listener closes; returns what came before."""
    async with asyncio.timeout(within):
        try:
            return await reader.read(-1)
        except ConnectionResetError:
            return b""


def test_a_request_knows_the_process_that_connected(run: Run, tmp_path: Path) -> None:
    """The peer is the connecting process with a pidfd, its start time, parent and session."""

    async def main() -> None:
        async with served(tmp_path) as to:
            connector = UnixConnector(str(to.path))
            async with (
                ClientSession(connector=connector) as session,
                session.get("http://taskmint/peer") as response,
            ):
                assert await response.json() == {"pid": os.getpid(), "uid": os.getuid()}
            (peer,) = to.peers
            assert peer.proof in {PeerProof.PIDFD, PeerProof.START_TIME}
            assert peer.parent == os.getppid()
            assert peer.session == os.getsid(0)
            assert not peer.first_pass

    run(main())


def test_many_requests_on_one_connection(run: Run, tmp_path: Path) -> None:
    """Keep-alive works behind our protocol, bodies included; one connection, one peer."""

    async def main() -> None:
        async with (
            served(tmp_path) as to,
            ClientSession(connector=UnixConnector(str(to.path), limit=1)) as session,
        ):
            for size in (0, 1, 70_000):
                async with session.post("http://taskmint/body", data=b"x" * size) as response:
                    assert await response.text() == str(size)
            assert to.listener.counts.accepted == 1
            assert len(set(map(id, to.peers))) == 1

    run(main())


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="silent"),
        pytest.param(b"GET /peer HT", id="half a request line"),
        pytest.param(GET[:-2], id="headers without their end"),
        pytest.param(GET[:-2] + b"X-Drip: ", id="half a header"),
        pytest.param(b"\r\n\r\n", id="empty lines"),
    ],
)
def test_a_half_sent_header_is_closed_by_our_clock(run: Run, tmp_path: Path, sent: bytes) -> None:
    """Row 29: no complete header within the header time, and the connection is closed."""

    async def main() -> None:
        async with served(tmp_path) as to:
            reader, writer = await to.streams()
            writer.write(sent)
            started = asyncio.get_running_loop().time()
            await closed(reader, within=3)
            took = asyncio.get_running_loop().time() - started
            assert took >= LIMITS.timeouts.header * 0.9 or b"\r\n\r\n" in sent
            assert to.peers == []
            writer.close()
            await gone(to)

    run(main())


async def test_terms_that_fail_take_no_place(tmp_path: Path) -> None:
    """P10: the connection is closed and its place is free, whatever went wrong in setting it up."""
    async with served(tmp_path, tls=TlsDoor(BrokenTerms(), never)) as to:
        for _ in range(3):
            reader, writer = await asyncio.open_unix_connection(to.path)
            writer.write(b"\x16")
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        assert to.listener.connections == 0


@pytest.mark.parametrize("tls", [None, FIRST_BYTE_DOOR], ids=["plain", "first byte waited for"])
def test_an_urgent_byte_is_a_byte_like_any_other(
    run: Run, tmp_path: Path, tls: TlsDoor | None
) -> None:
    """Sent out of band (MSG_OOB), it is read in its place, and waiting for more costs no CPU."""
    limits = replace(LIMITS, timeouts=Timeouts())

    async def main() -> None:
        async with served(tmp_path, limits, tls=tls) as to:
            loop = asyncio.get_running_loop()
            with to.connect() as sock, to.connect() as waiting:
                sock.send(GET[:1], socket.MSG_OOB)
                waiting.send(GET[:1], socket.MSG_OOB)
                await until(lambda: to.listener.connections == 2)
                began = time.thread_time()
                await asyncio.sleep(0.5)
                assert time.thread_time() - began < 0.25
                await loop.sock_sendall(sock, GET[1:])
                async with asyncio.timeout(5):
                    assert (await loop.sock_recv(sock, 100)).startswith(b"HTTP/1.1 200")

    run(main())


def test_a_dripped_header_is_closed_by_our_clock(run: Run, tmp_path: Path) -> None:
    """Row 29: one byte now and then does not restart the header's clock."""

    async def main() -> None:
        async with served(tmp_path) as to:
            reader, writer = await to.streams()
            ended = asyncio.ensure_future(closed(reader, within=3))
            sent = 0
            while not ended.done():
                writer.write(GET[sent : sent + 1])
                sent = min(sent + 1, len(GET) - 3)
                await asyncio.wait([ended], timeout=0.05)
            assert to.listener.counts.timed_out == 1
            writer.close()

    run(main())


def test_a_dripped_body_is_closed_by_our_clock(run: Run, tmp_path: Path) -> None:
    """Row 29: a body that is not there when the request's time is up is not waited for."""

    async def main() -> None:
        async with served(tmp_path) as to:
            reader, writer = await to.streams()
            writer.write(b"POST /body HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n")
            ended = asyncio.ensure_future(closed(reader, within=3))
            while not ended.done():
                writer.write(b"x")
                await asyncio.wait([ended], timeout=0.05)
            assert b"200" not in await ended
            assert to.listener.counts.timed_out == 1
            writer.close()
            await gone(to)

    run(main())


def test_an_answer_that_takes_its_time_is_waited_for(run: Run, tmp_path: Path) -> None:
    """The clocks bound what the caller sends, never how long the handler works."""

    async def main() -> None:
        async with (
            served(tmp_path) as to,
            ClientSession(connector=UnixConnector(str(to.path))) as session,
        ):
            asked = asyncio.ensure_future(session.get("http://taskmint/wait"))
            await to.entered.wait()
            await asyncio.sleep(LIMITS.timeouts.request + 0.6)
            to.release.set()
            async with await asked as response:
                assert await response.text() == "waited"

    run(main())


def test_an_idle_connection_is_closed(run: Run, tmp_path: Path) -> None:
    """A kept-alive connection without a next request ends after the idle time."""

    async def main() -> None:
        async with served(tmp_path) as to:
            reader, writer = await to.streams()
            writer.write(GET)
            assert (await closed(reader, within=3)).startswith(b"HTTP/1.1 200")
            assert to.listener.counts.timed_out == 1
            writer.close()

    run(main())


def test_half_a_pipelined_request_gets_the_headers_clock(run: Run, tmp_path: Path) -> None:
    """Bytes of a next request that came during the first are on the header's clock, not idle's."""
    limits = replace(LIMITS, timeouts=replace(LIMITS.timeouts, idle=30.0))

    async def main() -> None:
        async with served(tmp_path, limits) as to:
            reader, writer = await to.streams()
            writer.write(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
            await to.entered.wait()
            writer.write(b"GET /pe")
            await asyncio.sleep(0.05)
            to.release.set()
            assert (await closed(reader, within=3)).startswith(b"HTTP/1.1 200")
            writer.close()

    run(main())


@pytest.mark.parametrize("tls", [None, FIRST_BYTE_DOOR], ids=["plain", "first byte waited for"])
@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        pytest.param(GET, b'"pid"', id="nothing more"),
        pytest.param(
            b"POST /body HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nbody", b"4", id="a body"
        ),
    ],
)
def test_who_closes_its_own_side_is_still_answered(
    run: Run, tmp_path: Path, tls: TlsDoor | None, sent: bytes, answer: bytes
) -> None:
    """As `nc -N` does: the end of what it sends is not the end of its interest; then we close."""
    limits = replace(LIMITS, timeouts=Timeouts())

    async def main() -> None:
        async with served(tmp_path, limits, tls=tls) as to:
            reader, writer = await to.streams()
            writer.write(sent)
            writer.write_eof()
            told = await closed(reader, within=3)
            assert told.startswith(b"HTTP/1.1 200")
            assert answer in told
            writer.close()
            await gone(to)

    run(main())


def test_who_closed_its_side_while_we_work_is_answered_and_may_still_hang_up(
    run: Run, tmp_path: Path
) -> None:
    """Of two with a long poll one stays and is answered; the other's place is free again."""
    limits = replace(LIMITS, timeouts=Timeouts())

    async def main() -> None:
        async with served(tmp_path, limits) as to:
            one, other = await to.streams(), await to.streams()
            for _, writer in (one, other):
                writer.write(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
            await until(lambda: len(to.peers) == 2)
            for _, writer in (one, other):
                writer.write_eof()
            await asyncio.sleep(0.1)
            other[1].close()
            to.release.set()
            assert (await closed(one[0], within=3)).endswith(b"waited")
            one[1].close()
            await gone(to)

    run(main())


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"POST /body HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nb", id="a body"),
        pytest.param(GET, id="an answer read"),
    ],
)
def test_who_closes_its_side_with_nothing_to_answer_is_closed(
    run: Run, tmp_path: Path, sent: bytes
) -> None:
    """Half a body never gets its other half; between two requests nobody waits for anything."""
    limits = replace(LIMITS, timeouts=Timeouts())

    async def main() -> None:
        async with served(tmp_path, limits) as to:
            reader, writer = await to.streams()
            writer.write(sent)
            await until(lambda: len(to.peers) == 1)
            await asyncio.sleep(0.1)
            writer.write_eof()
            await closed(reader, within=3)
            writer.close()
            await gone(to)
            assert to.listener.counts.timed_out == 0

    run(main())


def test_a_pipelined_request_has_the_time_for_its_body_to_itself(run: Run, tmp_path: Path) -> None:
    """What came together with a request that took long is not late when that is answered."""

    async def main() -> None:
        async with served(tmp_path) as to:
            reader, writer = await to.streams()
            writer.write(
                b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n"
                b"POST /body HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n"
            )
            await to.entered.wait()
            await asyncio.sleep(LIMITS.timeouts.request + 0.2)
            to.release.set()
            await reader.readuntil(b"waited")
            await asyncio.sleep(LIMITS.timeouts.request / 2)
            writer.write(b"body")
            async with asyncio.timeout(3):
                assert (await reader.readuntil(b"\r\n\r\n4")).startswith(b"HTTP/1.1 200")
            writer.close()

    run(main())


def test_a_caller_that_does_not_read_is_closed(run: Run, tmp_path: Path) -> None:
    """An answer that nobody reads is dropped after the write time."""

    async def main() -> None:
        async with served(tmp_path) as to:
            sock = to.connect()
            with sock:
                sock.send(b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n")
                await until(lambda: to.listener.counts.timed_out == 1)
                await gone(to)

    run(main())


def test_one_uid_cannot_have_more_than_its_share(run: Run, tmp_path: Path) -> None:
    """Row 30: over the cap of a uid a caller gets 429 with Retry-After, and room comes back."""
    limits = replace(LIMITS, connections_per_uid=3, timeouts=Timeouts())

    async def main() -> None:
        async with served(tmp_path, limits) as to:
            held = [to.connect() for _ in range(3)]
            reader, writer = await to.streams()
            refusal = await closed(reader, within=3)
            assert refusal.startswith(b"HTTP/1.1 429")
            assert b"Retry-After: 1" in refusal
            assert b'"code": "limit_exceeded"' in refusal
            assert to.listener.counts.refused == 1
            writer.close()
            for sock in held:
                sock.close()
            await gone(to)
            async with (
                ClientSession(connector=UnixConnector(str(to.path))) as session,
                session.get("http://taskmint/peer") as response,
            ):
                assert response.status == 200

    run(main())


def test_a_flood_of_silent_connections_locks_nobody_out(run: Run, tmp_path: Path) -> None:
    """Row 30: many times the cap in silent connections, and an honest caller is soon served."""

    async def main() -> None:
        async with served(tmp_path) as to:
            flood = [to.connect() for _ in range(LIMITS.connections * 4)]
            try:
                async with (
                    asyncio.timeout(5),
                    ClientSession(connector=UnixConnector(str(to.path))) as session,
                ):
                    status = 0
                    while status != 200:
                        with suppress(ClientConnectionError):  # refused while still writing
                            async with session.get("http://taskmint/peer") as response:
                                status = response.status
                        await asyncio.sleep(0.05)
            finally:
                for sock in flood:
                    sock.close()
            assert to.listener.counts.refused >= LIMITS.connections * 3

    run(main())


def test_running_out_of_descriptors_pauses_accepting(run: Run, tmp_path: Path) -> None:
    """With no descriptor left the loop neither spins nor dies; callers queue until there is one."""

    async def main() -> None:
        async with served(tmp_path, replace(LIMITS, descriptors_reserved=4)) as to:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            spare: list[int] = []
            with client:
                highest = highest_descriptor()
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
                try:
                    while True:
                        spare.append(os.dup(0))
                except OSError:
                    client.connect(str(to.path))
                began = time.thread_time()
                await asyncio.sleep(0.5)
                spent = time.thread_time() - began
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for descriptor in spare:
                    os.close(descriptor)
                assert 1 <= to.listener.counts.accept_failures <= 4
                assert spent < 0.25
                client.setblocking(False)
                await asyncio.get_running_loop().sock_sendall(client, GET)
                answer = await asyncio.get_running_loop().sock_recv(client, 100)
                assert answer.startswith(b"HTTP/1.1 200")

    run(main())


def test_the_pidfd_outlives_the_connection_while_a_request_runs(run: Run, tmp_path: Path) -> None:
    """A handler whose caller hung up still holds the pidfd of that caller, and no other file."""

    async def main() -> None:
        async with served(tmp_path) as to:
            _, writer = await to.streams()
            writer.write(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
            await to.entered.wait()
            writer.close()
            await asyncio.sleep(0.1)
            assert to.listener.connections == 1
            to.release.set()
            await gone(to)
            (target,) = to.after
            assert "pidfd" in target

    run(main())


def test_leaving_lets_a_request_finish_and_closes_the_rest(run: Run, tmp_path: Path) -> None:
    """On leaving: idle and half-sent connections close, a request being served is answered."""

    async def main() -> None:
        async with served(tmp_path, replace(LIMITS, timeouts=Timeouts())) as to:
            idle_reader, idle_writer = await to.streams()
            reader, writer = await to.streams()
            writer.write(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
            await to.entered.wait()
            asyncio.get_running_loop().call_later(0.2, to.release.set)
        assert (await closed(reader, within=1)).endswith(b"waited")
        assert await closed(idle_reader, within=1) == b""
        writer.close()
        idle_writer.close()

    run(main())


def test_leaving_hears_whoever_was_accepted(run: Run, tmp_path: Path) -> None:
    """Accepted, it has left the queue of the next daemon: its request is still answered."""

    async def main() -> None:
        async with served(tmp_path, replace(LIMITS, timeouts=Timeouts())) as to:
            reader, writer = await to.streams()
            async with asyncio.timeout(5):
                while not to.listener.connections:
                    await asyncio.sleep(0.001)
            asyncio.get_running_loop().call_later(0.1, writer.write, GET)
        assert b"200 OK" in await closed(reader, within=1)
        writer.close()

    run(main())


def test_leaving_is_bounded(run: Run, tmp_path: Path) -> None:
    """A request that never ends holds the listener up for the drain time and no longer."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with served(tmp_path, replace(LIMITS, drain=0.2)) as to:
            reader, writer = await to.streams()
            writer.write(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
            await to.entered.wait()
            leaving = loop.time()
            loop.call_later(3, to.release.set)
            await to.listener.__aexit__(None, None, None)
            assert loop.time() - leaving < 2.5
            assert await closed(reader, within=1) == b""
            to.release.set()
            await gone(to)
            writer.close()

    run(main())


def test_callers_who_queued_before_the_daemon_ran_are_marked(run: Run, tmp_path: Path) -> None:
    """Under socket activation the first pass over the queue is marked, and only that."""

    async def main() -> None:
        path = tmp_path / "queued.sock"
        async with bound_socket(SocketFile(path)) as sock:
            queued = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            queued.connect(str(path))
            seen: list[bool] = []
            app = web.Application()

            async def show(request: web.Request) -> web.Response:
                with listener.serving(request) as peer:
                    seen.append(peer.first_pass)
                return web.Response()

            app.router.add_get("/peer", show)
            runner = web.AppRunner(app, handle_signals=False)
            await runner.setup()
            assert runner.server is not None
            listener = Listener(
                sock, runner.server, limits=LIMITS, reader=PeerReader(), inherited=True
            )
            async with listener:
                await asyncio.sleep(0.05)
                later = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                later.connect(str(path))
                for client in (queued, later):
                    with client:
                        client.setblocking(False)
                        await asyncio.get_running_loop().sock_sendall(client, GET)
                        await asyncio.get_running_loop().sock_recv(client, 100)
            await runner.cleanup()
        assert seen == [True, False]

    run(main())


def test_a_peer_that_exited_is_still_named_and_shows_as_exited(run: Run, tmp_path: Path) -> None:
    """Row 25: the peer is who connected, even when a child goes on with the socket."""

    async def main() -> None:
        async with served(tmp_path) as to:
            ours, theirs = socket.socketpair()
            child = os.fork()
            if child == 0:
                _connect_and_leave_it_to_a_grandchild(to.path, theirs)
            theirs.close()
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(5):
                assert await loop.sock_recv(ours, 1) == b"c"
            await asyncio.to_thread(os.waitpid, child, 0)
            ours.send(b"g")
            async with asyncio.timeout(5):
                answer = await loop.sock_recv(ours, 64)
            assert answer.startswith(b"HTTP/1.1 200")
            ours.close()
            (peer,) = to.peers
            assert peer.pid == child
            assert peer.pidfd is not None

    run(main())


def _connect_and_leave_it_to_a_grandchild(path: Path, tell: socket.socket) -> None:
    """In a child: connect, fork, exit; the grandchild sends the request when told to."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(path))
    if os.fork():
        os._exit(0)
    tell.send(b"c")
    tell.recv(1)
    sock.send(GET)
    select.select([sock], [], [], 5)
    tell.send(sock.recv(64))
    os._exit(0)


@pytest.mark.parametrize(
    ("wanted", "descriptors", "reserved", "expected"),
    [(1024, 1_048_576, 128, 1024), (1024, 1024, 128, 448), (10, 64, 128, 1)],
)
def test_connections_fit_beside_what_is_reserved(
    wanted: int, descriptors: int, reserved: int, expected: int
) -> None:
    """Two descriptors each, beside the reserve; never none."""
    assert affordable_connections(wanted, descriptors, reserved) == expected


def test_require_is_checked_at_the_start(run: Run, tmp_path: Path) -> None:
    """`peer.pidfd: require` serves on Linux 6.5 and later, and refuses to start before that."""
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])

    async def main() -> None:
        async with served(tmp_path, source=PidfdSource.REQUIRE) as to:
            assert to.listener.connections == 0

    if (major, minor) >= (6, 5):
        run(main())
    else:
        with pytest.raises(TaskmintError, match="SO_PEERPIDFD"):
            run(main())
