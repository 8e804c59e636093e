"""Mutual TLS and plain HTTP on one Unix socket, through the whole door, with real handshakes."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web
from cryptography.x509.oid import ExtendedKeyUsageOID

from identity.agent import OWN_ID, Agent
from identity.pki import Signed, constraints, der, impostor, misspelt, root, uri
from identity.signer import AUDIENCE
from taskmint.api.activation import SocketFile, bound_socket
from taskmint.api.connection import CHAIN, Timeouts, TlsDoor
from taskmint.api.listener import Listener, ListenerLimits
from taskmint.errors import Code, TaskmintError
from taskmint.identity.believer import Believer
from taskmint.identity.jwt_svid import JwtRules
from taskmint.identity.peers import PeerReader
from taskmint.identity.prover import Prover
from taskmint.identity.tls import (
    TlsTerms,
    check_tls_support,
    client_context,
    server_context,
    verified_chain,
)
from taskmint.identity.workload_api import WorkloadApi
from taskmint.identity.x509_context import X509Bundles
from taskmint.identity.x509_svid import verify_x509_svid
from taskmint.model.peer import Peer
from taskmint.model.secret import Secret
from taskmint.ports import Presented

from fakes.clock import SteppedClock

WORKLOAD = "spiffe://example.org/orders"
GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
LIMITS = ListenerLimits(timeouts=Timeouts(header=0.5), drain=0.5)


@dataclass
class Door:
    """The socket, whom it listens to, and what a client needs to speak with it."""

    path: Path
    agent: Agent
    api: WorkloadApi
    clock: SteppedClock
    listener: Listener
    terms: TlsTerms
    bundles: X509Bundles
    chains: list[tuple[bytes, ...]]
    turned_away: list[tuple[Peer, TaskmintError]]

    def client(self, svid: Signed | None = None) -> ssl.SSLContext:
        """A workload's TLS terms, by default with an honest SVID."""
        leaf = svid or self.agent.root.workload(WORKLOAD)
        return client_context(leaf.svid(WORKLOAD), self.bundles)

    async def connect(
        self, context: ssl.SSLContext
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection with TLS."""
        return await asyncio.open_unix_connection(
            self.path, ssl=context, server_hostname="taskmint"
        )

    async def said(self, change: Callable[[Agent], None]) -> None:
        """Let the agent say something else, and wait until it is heard."""
        before = self.api.trust.x509_said
        change(self.agent)
        await self.agent.push()
        async with asyncio.timeout(10):
            while self.api.trust.x509_said is before:
                await self.api.changed(self.api.version)


@asynccontextmanager
async def door(
    directory: Path, *, ready: bool = True, trust_domains: frozenset[str] = frozenset()
) -> AsyncIterator[Door]:
    """Serve who the caller is, by certificate or token, on a real listener."""
    agent, clock = Agent(directory / "agent.sock"), SteppedClock()
    chains: list[tuple[bytes, ...]] = []
    turned_away: list[tuple[Peer, TaskmintError]] = []

    async def who(request: web.Request) -> web.Response:
        with listener.serving(request) as peer:
            chains.append(request[CHAIN])
            _, _, token = request.headers.get("Authorization", "").partition(" ")
            presented = Presented(Secret(token) if token else None, request[CHAIN])
            try:
                caller = await prover.identify(presented, peer)
            except TaskmintError as error:
                return web.Response(status=401, text=error.code)
            return web.Response(text=f"{caller.method} {caller.spiffe_id}")

    app = web.Application()
    app.router.add_get("/", who)
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    assert runner.server is not None
    async with (
        agent.serving(),
        WorkloadApi(agent.endpoint, clock) as api,
        bound_socket(SocketFile(directory / "door")) as sock,
    ):
        while ready and (api.trust.own is None or api.ready() is not None):
            await api.changed(api.version)
        prover = Prover(Believer(api, trust_domains), clock, JwtRules(AUDIENCE))
        terms = TlsTerms(prover)
        tls = TlsDoor(terms, lambda peer, error: turned_away.append((peer, error)))
        listener = Listener(
            sock,
            runner.server,
            limits=LIMITS,
            reader=PeerReader(),
            tls=tls,
        )
        bundles = {"example.org": (agent.root.certificate,)}
        async with listener:
            yield Door(
                *(directory / "door", agent, api, clock, listener, terms),
                *(bundles, chains, turned_away),
            )
    await runner.cleanup()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Send one request on an open connection; returns the status and the body."""
    writer.write(GET)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    return f"{head.split()[1].decode()} {(await reader.readexactly(length)).decode()}"


async def refused(to: Door, context: ssl.SSLContext) -> bool:
    """Whether a connection with these terms is cut off before it is answered."""
    try:
        async with asyncio.timeout(5):
            reader, writer = await to.connect(context)
            try:
                writer.write(GET)
                return await reader.read(1) == b""
            finally:
                writer.close()
    except (ssl.SSLError, ConnectionError):
        return True


Run = Callable[[Awaitable[None]], None]


@pytest.fixture
async def to(tmp_path: Path) -> AsyncIterator[Door]:
    """A door that is ready."""
    async with door(tmp_path) as one:
        yield one


async def test_a_certificate_is_an_identity(to: Door) -> None:
    """A workload with its X.509-SVID and no token is who the certificate says."""
    reader, writer = await to.connect(to.client())

    assert await ask(reader, writer) == f"200 x509-svid {WORKLOAD}"
    assert await ask(reader, writer) == f"200 x509-svid {WORKLOAD}"
    writer.close()


async def test_the_server_saw_a_certificate(to: Door) -> None:
    """Not plain text behind a https:// URL: the session is TLS 1.3 and has our client's leaf."""
    leaf = to.agent.root.workload(WORKLOAD)
    reader, writer = await to.connect(to.client(leaf))
    await ask(reader, writer)
    session = writer.get_extra_info("ssl_object")

    assert session.version() == "TLSv1.3"
    assert to.chains == [leaf.chain]
    writer.close()


async def test_the_daemon_proves_itself_too(to: Door) -> None:
    """The client learns the daemon's SPIFFE ID from a chain that it verifies itself."""
    _, writer = await to.connect(to.client())
    chain = verified_chain(writer.get_extra_info("ssl_object"))
    svid = verify_x509_svid(chain, to.bundles, to.clock.utcnow(), ExtendedKeyUsageOID.SERVER_AUTH)

    assert str(svid.spiffe_id) == OWN_ID
    writer.close()


async def test_plain_http_goes_on_beside_it(to: Door) -> None:
    """The same socket, told apart by the first byte; a plain connection has no certificate."""
    reader, writer = await asyncio.open_unix_connection(to.path)

    assert await ask(reader, writer) == "401 credential_missing"
    writer.close()


async def test_a_client_without_a_certificate_is_cut_off(to: Door) -> None:
    """TLS without an SVID is neither door."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    assert await refused(to, context)


async def test_tls_1_2_is_refused(to: Door) -> None:
    """It would resume by session id, past a withdrawn authority."""
    context = to.client()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    assert await refused(to, context)


async def test_nothing_is_resumed(to: Door) -> None:
    """No ticket is given, so there is nothing to come back with."""
    context = to.client()
    reader, writer = await to.connect(context)
    await ask(reader, writer)
    session = writer.get_extra_info("ssl_object")

    assert session.session is None or not session.session.has_ticket
    assert not session.session_reused
    writer.close()


def a_misspelt_one(_: Signed) -> bytes:
    """A name that is no text."""
    return misspelt("partner.test")


def a_cross_certificate(ours: Signed) -> bytes:
    """One of the partner's own over our root's name and key."""
    partner = root("partner.test")
    over = partner.intermediate("example.org", name="example.org", key=ours.key)
    return der(partner.certificate) + der(over.certificate)


def a_narrow_cross_certificate(ours: Signed) -> bytes:
    """The same, but it may name nobody of ours: OpenSSL would fail the handshake itself."""
    partner, limits = root("partner.test"), constraints([uri("partner.test")])
    over = partner.intermediate("example.org", name="EXAMPLE.ORG", key=ours.key, extra=limits)
    return der(partner.certificate) + der(over.certificate)


def an_impostor(ours: Signed) -> bytes:
    """Another key under our root's name and key id, written a little differently."""
    return impostor(ours, "Example.org")


@pytest.mark.parametrize(
    "bundle", [a_misspelt_one, a_cross_certificate, a_narrow_cross_certificate, an_impostor]
)
async def test_a_partners_bundle_shuts_nobody_else_out(
    tmp_path: Path, bundle: Callable[[Signed], bytes]
) -> None:
    """P12 for the partner alone: whatever it lists, our own workloads come in."""
    domains = frozenset({"example.org", "partner.test"})
    async with door(tmp_path, trust_domains=domains) as to:
        theirs = bundle(to.agent.root)
        await to.said(lambda agent: agent.federated.update({"spiffe://partner.test": theirs}))
        reader, writer = await to.connect(to.client())

        assert await ask(reader, writer) == f"200 x509-svid {WORKLOAD}"
        assert to.terms.ready() is None
        writer.close()


async def test_two_domains_may_have_one_root(tmp_path: Path) -> None:
    """Renewed in one bundle and not yet in the other: OpenSSL is given one, we know both."""
    shared = root("upstream.test", uris=())
    renewed = shared.intermediate("upstream.test", name="upstream.test", uris=(), key=shared.key)
    ids = {domain: f"spiffe://{domain}/w" for domain in ("example.org", "partner.test")}
    async with door(tmp_path, trust_domains=frozenset(ids)) as to:

        def both(agent: Agent) -> None:
            agent.roots = (agent.root, shared)
            agent.federated["spiffe://partner.test"] = der(renewed.certificate)

        await to.said(both)
        for domain, spiffe_id in ids.items():
            leaf = shared.intermediate(domain).workload(spiffe_id)
            reader, writer = await to.connect(to.client(leaf))
            assert await ask(reader, writer) == f"200 x509-svid {spiffe_id}"
            writer.close()
        stranger = shared.intermediate("other.test").workload("spiffe://other.test/w")
        assert await refused(to, to.client(stranger))


async def test_readiness_says_why_tls_is_not_offered(to: Door) -> None:
    """No SVID of our own, or one that OpenSSL cannot use; and again when there is a good one."""
    assert to.terms.ready() is None
    other = to.agent.root.workload(OWN_ID).pkcs8
    for key, why in ((b"", "no X.509-SVID"), (other, "cannot be used"), (None, "")):

        def give(agent: Agent, key: bytes | None = key) -> None:
            agent.own_key = key

        await to.said(give)
        assert why in (to.terms.ready() or "")
        assert (to.terms.ready() is None) is (key is None)


def an_expired_one(ours: Signed) -> Signed:
    """A certificate whose time is over."""
    return ours.workload(WORKLOAD, begins=timedelta(hours=-2), ends=timedelta(hours=-1))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda _: root("example.org").workload(WORKLOAD), id="an unknown authority"),
        pytest.param(an_expired_one, id="expired"),
        pytest.param(lambda ours: ours.workload(WORKLOAD, authority=True), id="CA true"),
        pytest.param(
            lambda ours: ours.workload(WORKLOAD, uris=(WORKLOAD, OWN_ID)), id="two SPIFFE IDs"
        ),
        pytest.param(lambda ours: ours.workload("spiffe://example.org"), id="no path"),
        pytest.param(lambda ours: ours.workload(WORKLOAD, key_usage=None), id="no key usage"),
        pytest.param(lambda ours: ours.workload("spiffe://other.test/w"), id="another domain"),
        pytest.param(
            lambda ours: ours.intermediate(
                "example.org", extra=constraints([uri("ci.example.net")])
            ).workload(WORKLOAD),
            id="an authority for other names",
        ),
    ],
)
async def test_a_bad_certificate_reaches_no_http(
    to: Door, make: Callable[[Signed], Signed]
) -> None:
    """Rows 19 to 21: cut off in or right after the handshake, told, and the listener goes on."""
    assert await refused(to, to.client(make(to.agent.root)))
    assert to.listener.connections == 0

    reader, writer = await to.connect(to.client())
    assert (await ask(reader, writer)).startswith("200")
    writer.close()
    [(peer, error)] = to.turned_away
    assert peer.pid == os.getpid()
    assert error.code is Code.CREDENTIAL_INVALID


async def test_one_domain_cannot_speak_for_another(tmp_path: Path) -> None:
    """Trap 14: OpenSSL accepts any loaded root; a partner's workload is not one of ours."""
    domains = frozenset({"example.org", "partner.test"})
    async with door(tmp_path, trust_domains=domains) as to:
        partner = root("partner.test")
        await to.said(
            lambda agent: agent.federated.update({"spiffe://partner.test": partner.chain[0]})
        )
        forged = partner.workload(WORKLOAD)
        honest = partner.workload("spiffe://partner.test/w")

        assert await refused(to, to.client(forged))
        reader, writer = await to.connect(to.client(honest))
        assert await ask(reader, writer) == "200 x509-svid spiffe://partner.test/w"
        writer.close()


async def test_a_withdrawn_authority_ends_what_is_open(to: Door) -> None:
    """Every request re-checks: the connection stands, the identity does not."""
    reader, writer = await to.connect(to.client())
    assert (await ask(reader, writer)).startswith("200")
    successor = root("example.org")

    def rotate(agent: Agent) -> None:
        agent.roots = (successor,)
        agent.own = successor.workload(OWN_ID)

    await to.said(rotate)
    assert await ask(reader, writer) == "401 credential_invalid"
    assert await refused(to, to.client())
    writer.close()


async def test_a_certificate_expires_on_an_open_connection(to: Door) -> None:
    """Every request re-checks the time."""
    leaf = to.agent.root.workload(WORKLOAD, ends=timedelta(minutes=5))
    reader, writer = await to.connect(to.client(leaf))
    assert (await ask(reader, writer)).startswith("200")
    to.clock.pass_time(timedelta(minutes=6))
    assert await ask(reader, writer) == "401 credential_expired"
    writer.close()


async def test_our_own_svid_is_swapped_live(to: Door) -> None:
    """A rotation reaches new connections, and drops none."""
    reader, writer = await to.connect(to.client())
    successor = to.agent.root.workload(OWN_ID)
    await to.said(lambda agent: setattr(agent, "own", successor))

    assert (await ask(reader, writer)).startswith("200")
    _, new = await to.connect(to.client())
    assert verified_chain(new.get_extra_info("ssl_object"))[0] == successor.chain[0]
    writer.close()
    new.close()


async def test_without_an_svid_of_our_own_there_is_no_tls(tmp_path: Path) -> None:
    """A handshake is cut off; plain requests are answered as they can be."""
    async with door(tmp_path, ready=False) as to:
        while to.api.trust.own is None:
            await to.api.changed(to.api.version)
        await to.said(lambda agent: setattr(agent, "own_id", "nonsense"))
        assert to.api.trust.own is None
        assert await refused(to, to.client())
        reader, writer = await asyncio.open_unix_connection(to.path)
        assert (await ask(reader, writer)).startswith("401")
        writer.close()


async def test_a_key_that_does_not_fit_offers_no_tls(to: Door) -> None:
    """Half an SVID is none: logged, and never half a door."""
    own = to.agent.own
    other = to.agent.root.workload(OWN_ID)
    await to.said(lambda agent: setattr(agent, "own", replace(own, key=other.key)))

    assert await refused(to, to.client())


async def until_cut(
    to: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes
) -> None:
    """Send this and no more, until our clock has closed the connection and it is forgotten."""
    writer.write(sent)
    async with asyncio.timeout(3):
        with contextlib.suppress(ConnectionResetError):
            await reader.read(-1)
    writer.close()
    async with asyncio.timeout(2):
        while to.listener.connections:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x16" * 600])
async def test_a_half_handshake_is_closed_by_our_clock(to: Door, sent: bytes) -> None:
    """Row 29, for TLS: silent, or silent after a few bytes."""
    reader, writer = await asyncio.open_unix_connection(to.path)
    await until_cut(to, reader, writer, sent)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"], ids=["silent", "half a handshake"])
async def test_a_connection_that_a_clock_cuts_is_counted_once(to: Door, sent: bytes) -> None:
    """However long it was set up: first its first byte is waited for, then its handshake."""
    reader, writer = await asyncio.open_unix_connection(to.path)
    await asyncio.sleep(LIMITS.timeouts.header * 0.8)
    await until_cut(to, reader, writer, sent)

    assert to.listener.counts.timed_out == 1


async def test_a_caller_that_hangs_up_before_a_byte_costs_nothing(to: Door) -> None:
    """The first byte never comes, and the connection is forgotten."""
    for _ in range(20):
        _, writer = await asyncio.open_unix_connection(to.path)
        writer.close()
    async with asyncio.timeout(2):
        while to.listener.connections:
            await asyncio.sleep(0.01)


def test_this_python_shows_a_peers_chain() -> None:
    """Checked at the start, because Python 3.11 and 3.12 keep it private."""
    check_tls_support()


@pytest.fixture
def run_on_uvloop() -> Iterator[Callable[[Any], None]]:
    """Run on uvloop, whose transports and TLS are its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.run


def test_uvloop_speaks_it_too(run_on_uvloop: Callable[[Any], None], tmp_path: Path) -> None:
    """First byte, handshake, chain and plain HTTP on the loop that the daemon runs on."""
    ours = root("example.org")
    own, leaf = ours.workload(OWN_ID), ours.workload(WORKLOAD)
    bundles = {"example.org": (ours.certificate,)}
    seen: list[tuple[bytes, ...]] = []

    class Terms:
        def context(self) -> ssl.SSLContext:
            return server_context(own.svid(OWN_ID), bundles)

        def admit(self, session: ssl.SSLObject) -> tuple[bytes, ...]:
            return verified_chain(session)

    def fail(peer: Peer, error: TaskmintError) -> None:
        raise AssertionError(f"{peer} was refused: {error}")

    async def main() -> None:
        async def show(request: web.Request) -> web.Response:
            with listener.serving(request):
                seen.append(request[CHAIN])
            return web.Response(text="x")

        app = web.Application()
        app.router.add_get("/", show)
        runner = web.AppRunner(app, handle_signals=False)
        await runner.setup()
        assert runner.server is not None
        async with bound_socket(SocketFile(tmp_path / "door")) as sock:
            listener = Listener(
                sock, runner.server, limits=LIMITS, reader=PeerReader(), tls=TlsDoor(Terms(), fail)
            )
            async with listener:
                context = client_context(leaf.svid(WORKLOAD), bundles)
                reader, writer = await asyncio.open_unix_connection(
                    tmp_path / "door", ssl=context, server_hostname="taskmint"
                )
                assert await ask(reader, writer) == "200 x"
                plain_reader, plain = await asyncio.open_unix_connection(tmp_path / "door")
                await asyncio.sleep(0.05)  # so that its first byte is waited for
                assert await ask(plain_reader, plain) == "200 x"
                writer.close()
                plain.close()
        await runner.cleanup()

    run_on_uvloop(main())
    assert seen == [leaf.chain, ()]
