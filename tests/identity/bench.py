"""
What proving a caller costs: `python tests/identity/bench.py`, a minute; prints a table.

    token       distinct tokens, and one token again, as a ratio to a bare P-256 verification
    connection  requests with a certificate and with a token on kept-alive connections
    flood       an honest caller's latency beside a flood of a fixed rate: none, of valid health
                requests, of garbage tokens, of connections that send half a header

CPU is measured per thread or process, medians of interleaved rounds; `again` rows are the same
thing twice, which is the noise. The daemon's side of connections and floods is a process of its
own, on uvloop, with the real listener and prover behind a handler that does nothing else.
"""

import asyncio
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvloop
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from identity.agent import OWN_ID, Agent
from identity.signer import AUDIENCE, Authority, claims, jwks
from taskmint.api.activation import SocketFile, bound_socket
from taskmint.api.connection import CHAIN, Timeouts
from taskmint.api.listener import Listener, ListenerLimits
from taskmint.errors import TaskmintError
from taskmint.identity.believer import Believed
from taskmint.identity.jwt_bundle import decode_base64url, parse_jwt_bundle
from taskmint.identity.jwt_svid import JwtRules, verify_jwt_svid
from taskmint.identity.peers import PeerReader
from taskmint.identity.prover import Prover
from taskmint.identity.tls import TlsTerms, client_context
from taskmint.identity.verdicts import Verdicts
from taskmint.identity.workload_api import WorkloadApi
from taskmint.identity.x509_context import load_certificate, parse_own_svid
from taskmint.model.secret import Secret
from taskmint.ports import Presented

from fakes.clock import SteppedClock

ROUNDS: Final = 9
TOKENS: Final = 200
REQUESTS: Final = 400
FLOOD_RATE: Final = 400  # requests per second
FLOOD_SECONDS: Final = 3.0
WORKLOAD: Final = "spiffe://example.org/orders"

Row = tuple[str, float, str]


def main() -> None:
    """Print every row."""
    if len(sys.argv) > 1:
        uvloop.run(serve(Path(sys.argv[1])))
        return
    for name, value, unit in [*token_rows(), *asyncio.run(connection_rows())]:
        sys.stdout.write(f"{name:<44} {value:>9.3f} {unit}\n")


# --- tokens ----------------------------------------------------------------------------------


def token_rows() -> list[Row]:
    """Verify the same bytes three ways."""
    key, now, rules = Authority.ecdsa(), int(time.time()), JwtRules(AUDIENCE)
    tokens = [key.token(claims(now, jti=str(number))) for number in range(TOKENS)]
    bundles = {"example.org": parse_jwt_bundle(jwks([key]))}
    verdicts = Verdicts(rules)
    verdicts.use(Believed(jwt=bundles))
    public: Any = key.key.public_key()
    bare = [(_der(token), token.rpartition(".")[0].encode()) for token in tokens]
    arms: dict[str, Callable[[], Any]] = {
        "bare": lambda: [public.verify(s, m, ec.ECDSA(hashes.SHA256())) for s, m in bare],
        "distinct": lambda: [verify_jwt_svid(token, bundles, rules, now) for token in tokens],
        "repeated": lambda: [verdicts.verify_token(tokens[0], now) for _ in tokens],
        "bare again": lambda: [public.verify(s, m, ec.ECDSA(hashes.SHA256())) for s, m in bare],
    }
    spent: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(ROUNDS):
        for name, arm in arms.items():
            began = time.thread_time()
            arm()
            spent[name].append((time.thread_time() - began) / TOKENS * 1e6)
    median = {name: statistics.median(values) for name, values in spent.items()}
    return [
        ("token: bare P-256 verification", median["bare"], "us"),
        ("token: bare again, ratio", median["bare again"] / median["bare"], "x"),
        ("token: distinct, ratio (at most 2.0)", median["distinct"] / median["bare"], "x"),
        ("token: repeated, ratio (at most 0.2)", median["repeated"] / median["bare"], "x"),
    ]


def _der(token: str) -> bytes:
    raw = decode_base64url(token.rpartition(".")[2].encode())
    return utils.encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))


# --- the daemon's side -----------------------------------------------------------------------


async def serve(directory: Path) -> None:
    """Serve /who and /health until standard input closes; leave what a client needs in a file."""
    agent, clock = Agent(directory / "agent.sock"), SteppedClock()

    async def who(request: web.Request) -> web.Response:
        with listener.serving(request) as peer:
            if request.path == "/health":
                return web.Response(text="ok")
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            try:
                await prover.identify(
                    Presented(Secret(token) if token else None, request[CHAIN]), peer
                )
            except TaskmintError as error:
                return web.Response(status=401, text=error.code)
            return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/{any}", who)
    runner = web.AppRunner(app, handle_signals=False, access_log=None)
    await runner.setup()
    assert runner.server is not None
    async with (
        agent.serving(),
        WorkloadApi(agent.endpoint, clock) as api,
        bound_socket(SocketFile(directory / "door")) as sock,
    ):
        while api.trust.own is None or api.ready() is not None:
            await api.changed(api.version)
        prover = Prover(api, clock, JwtRules(AUDIENCE))
        leaf = agent.root.workload(WORKLOAD)
        facts = {
            "chain": leaf.chain[0].hex(),
            "root": leaf.chain[1].hex(),
            "key": leaf.pkcs8.hex(),
            "token": agent.authority.token(claims(int(time.time()), sub=WORKLOAD)),
            "own": OWN_ID,
        }
        limits = ListenerLimits(timeouts=Timeouts(header=1.0), connections_per_uid=4096)
        async with Listener(
            sock, runner.server, limits=limits, reader=PeerReader(), tls=TlsTerms(prover)
        ) as listener:
            (directory / "facts.json").write_text(json.dumps(facts))
            await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Path, dict[str, str], int]]:
    """Run the daemon's side; yields its socket, what a client needs, and its pid."""
    with tempfile.TemporaryDirectory() as name:
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, name, stdin=subprocess.PIPE
        )
        facts = Path(name) / "facts.json"
        while not facts.exists():
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)
        try:
            yield Path(name) / "door", json.loads(facts.read_text()), process.pid
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()


# --- connections and floods ------------------------------------------------------------------


async def connection_rows() -> list[Row]:
    """Measure the daemon's CPU for requests, and an honest caller's latency."""
    async with served() as (path, facts, pid):
        bearer = f"GET /who HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {facts['token']}\r\n\r\n"
        plain = await asyncio.open_unix_connection(path)
        secured = await asyncio.open_unix_connection(
            path, ssl=_terms(facts), server_hostname="taskmint"
        )
        arms = {
            "token": (plain, bearer.encode()),
            "certificate": (secured, b"GET /who HTTP/1.1\r\nHost: t\r\n\r\n"),
            "token again": (plain, bearer.encode()),
        }
        spent: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(ROUNDS):
            for name, (streams, request) in arms.items():
                began = _cpu(pid)
                for _ in range(REQUESTS):
                    await _ask(*streams, request)
                spent[name].append((_cpu(pid) - began) / REQUESTS * 1e6)
        median = {name: statistics.median(values) for name, values in spent.items()}
        rows: list[Row] = [
            ("connection: a request with a token", median["token"], "us"),
            ("connection: token again, ratio", median["token again"] / median["token"], "x"),
            (
                "connection: certificate, ratio (at most 1.15)",
                median["certificate"] / median["token"],
                "x",
            ),
        ]
        rows += await _flood_rows(path, plain, bearer.encode())
        for _, writer in (plain, secured):
            writer.close()
        return rows


async def _flood_rows(
    path: Path, honest: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes
) -> list[Row]:
    health = b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n"
    garbage = b"GET /who HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer %s\r\n\r\n" % (b"x.y.z" * 99)
    floods: dict[str, Callable[[], Awaitable[None]]] = {
        "none": _nothing,
        "health requests": lambda: _requests(path, health),
        "garbage tokens": lambda: _requests(path, garbage),
        "half headers": lambda: _half_headers(path),
        "none again": _nothing,
    }
    rows: list[Row] = []
    for name, flood in floods.items():
        flooding = asyncio.ensure_future(flood())
        took: list[float] = []
        until = time.monotonic() + FLOOD_SECONDS
        while time.monotonic() < until:
            began = time.perf_counter()
            await _ask(*honest, request)
            took.append((time.perf_counter() - began) * 1e6)
            await asyncio.sleep(0.002)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        took.sort()
        rows.append((f"flood: {name}, p50", statistics.median(took), "us"))
        rows.append((f"flood: {name}, p99", took[int(len(took) * 0.99)], "us"))
    return rows


async def _nothing() -> None:
    await asyncio.sleep(3600)


async def _requests(path: Path, request: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        while True:
            await _ask(reader, writer, request)
            await asyncio.sleep(1 / FLOOD_RATE)
    finally:
        writer.close()


async def _half_headers(path: Path) -> None:
    writers: list[asyncio.StreamWriter] = []
    try:
        while True:
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET /who HT")
            writers.append(writer)
            await asyncio.sleep(1 / FLOOD_RATE)
    finally:
        for writer in writers:
            writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    await reader.readexactly(length)


def _terms(facts: dict[str, str]) -> ssl.SSLContext:
    own = parse_own_svid(WORKLOAD, bytes.fromhex(facts["chain"]), bytes.fromhex(facts["key"]))
    return client_context(own, {"example.org": (load_certificate(bytes.fromhex(facts["root"])),)})


def _cpu(pid: int) -> float:
    """CPU seconds of a process so far (proc_pid_schedstat: nanoseconds on the run queue's CPU)."""
    return (
        sum(
            int((task / "schedstat").read_text().split()[0])
            for task in Path(f"/proc/{pid}/task").iterdir()
        )
        / 1e9
    )


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    main()
