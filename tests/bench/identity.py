"""
What proving a caller costs.

    token       distinct tokens, and one token again, as a ratio to a bare P-256 verification
    connection  requests with a certificate and with a token on kept-alive connections
    flood       an honest caller's latency beside a flood of a fixed rate: none, of valid health
                requests, of garbage tokens, of connections that send half a header

CPU is measured per thread or process, medians of interleaved rounds; `again` rows are the same
thing twice, which is the noise. The daemon's side of connections and floods is door.py.
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

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from identity.signer import AUDIENCE, Authority, claims, jwks
from taskmint.identity.believer import Believed
from taskmint.identity.jwt_bundle import decode_base64url, parse_jwt_bundle
from taskmint.identity.jwt_svid import JwtRules, verify_jwt_svid
from taskmint.identity.tls import client_context
from taskmint.identity.verdicts import Verdicts
from taskmint.identity.x509_context import load_certificate, parse_own_svid

from .judge import Verdict
from .measure import cpu_seconds
from .section import Figure, Section
from .sizes import Sizes

TOKENS: Final = 200
REQUESTS: Final = 400
FLOOD_RATE: Final = 400  # requests per second
WORKLOAD: Final = "spiffe://example.org/job"
START: Final = b'{"task": "report", "parameters": {"region": "eu"}}'

DISTINCT: Final = "token: a distinct one, of a bare verification"
REPEATED: Final = "token: one again, of a bare verification"
CERTIFICATE: Final = "connection: a look at a task by certificate, of one by token"
AGAIN: Final = "connection: a look by token again, of itself"
GARBAGE: Final = "flood: an honest caller beside garbage, of beside health requests"


async def measure(sizes: Sizes) -> Section:
    """Measure all of it."""
    rounds = 9 if sizes.name == "full" else 3
    figures = [*token_figures(rounds), *await connection_figures(rounds)]
    found = {figure.name: figure.value for figure in figures}
    # The honest caller's median, beside what another flood of the same rate costs: on two cores
    # its noise is that of the neighbours, and so is the kernel's part of a small request; goals.
    beside = found["flood: garbage tokens, p50"] / found["flood: health requests, p50"]
    noise = found["flood: none again, p50"] / found["flood: none, p50"]
    return Section(
        [*figures, Figure(GARBAGE, beside, "x")],
        [
            Verdict(
                DISTINCT, gate=True, value=found[DISTINCT], bound=2.0, at_most=True, explanation=""
            ),
            Verdict(
                REPEATED, gate=True, value=found[REPEATED], bound=0.2, at_most=True, explanation=""
            ),
            Verdict(
                CERTIFICATE,
                gate=False,
                value=found[CERTIFICATE],
                bound=1.15,
                at_most=True,
                explanation=f"the same twice, by token, differs by {found[AGAIN]:.2f}",
            ),
            Verdict(
                GARBAGE,
                gate=False,
                value=beside,
                bound=1.25,
                at_most=True,
                explanation=f"the same twice, without a flood, differs by {noise:.2f}",
            ),
        ],
    )


# --- tokens ----------------------------------------------------------------------------------


def token_figures(rounds: int) -> list[Figure]:
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
    for _ in range(rounds):
        for name, arm in arms.items():
            began = time.thread_time()
            arm()
            spent[name].append((time.thread_time() - began) / TOKENS * 1e6)
    median = {name: statistics.median(values) for name, values in spent.items()}
    return [
        Figure("token: bare P-256 verification", median["bare"], "us"),
        Figure("token: bare again, of bare", median["bare again"] / median["bare"], "x"),
        Figure(DISTINCT, median["distinct"] / median["bare"], "x"),
        Figure(REPEATED, median["repeated"] / median["bare"], "x"),
    ]


def _der(token: str) -> bytes:
    raw = decode_base64url(token.rpartition(".")[2].encode())
    return utils.encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))


# --- connections and floods ------------------------------------------------------------------


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Path, dict[str, str], int]]:
    """Run the daemon's side; yields its socket, what a client needs, and its pid."""
    with tempfile.TemporaryDirectory() as name:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.door", name),
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
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


async def connection_figures(rounds: int) -> list[Figure]:
    """Measure the daemon's CPU for a look at one's task, and an honest caller's latency."""
    async with served() as (path, facts, pid):
        plain = await asyncio.open_unix_connection(path)
        bearer = f"Authorization: Bearer {facts['token']}\r\n"
        task = json.loads(await _ask(*plain, _request("POST", "/v1/tasks", bearer, START)))["id"]
        with_token = _request("GET", f"/v1/tasks/{task}", bearer)
        secured = await asyncio.open_unix_connection(
            path, ssl=_terms(facts), server_hostname="taskmint"
        )
        arms = {
            "token": (plain, with_token),
            "certificate": (secured, _request("GET", f"/v1/tasks/{task}")),
            "token again": (plain, with_token),
        }
        spent: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(rounds):
            for name, (streams, request) in arms.items():
                began = cpu_seconds(pid)
                for _ in range(REQUESTS):
                    await _ask(*streams, request)
                spent[name].append((cpu_seconds(pid) - began) / REQUESTS * 1e6)
        median = {name: statistics.median(values) for name, values in spent.items()}
        figures = [
            Figure("connection: a look at a task by token", median["token"], "us"),
            Figure(AGAIN, median["token again"] / median["token"], "x"),
            Figure(CERTIFICATE, median["certificate"] / median["token"], "x"),
        ]
        figures += await _flood_figures(path, plain, with_token, rounds / 3)
        for _, writer in (plain, secured):
            writer.close()
        return figures


async def _flood_figures(
    path: Path,
    honest: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    request: bytes,
    seconds: float,
) -> list[Figure]:
    health = _request("GET", "/v1/health")
    garbage = _request("GET", "/v1/tasks/tm_x", f"Authorization: Bearer {'x.y.z' * 99}\r\n")
    floods: dict[str, Callable[[], Awaitable[None]]] = {
        "none": _nothing,
        "health requests": lambda: _requests(path, health),
        "garbage tokens": lambda: _requests(path, garbage),
        "half headers": lambda: _half_headers(path),
        "none again": _nothing,
    }
    figures: list[Figure] = []
    for name, flood in floods.items():
        flooding = asyncio.ensure_future(flood())
        took: list[float] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            await _ask(*honest, request)
            took.append((time.perf_counter() - began) * 1e6)
            await asyncio.sleep(0.002)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        took.sort()
        figures.append(Figure(f"flood: {name}, p50", statistics.median(took), "us"))
        figures.append(Figure(f"flood: {name}, p99", took[int(len(took) * 0.99)], "us"))
    return figures


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


def _request(method: str, path: str, headers: str = "", body: bytes = b"") -> bytes:
    always = f"Host: t\r\nX-Taskmint-Request: true\r\nContent-Length: {len(body)}\r\n"
    return f"{method} {path} HTTP/1.1\r\n{always}{headers}\r\n".encode() + body


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    return await reader.readexactly(length)


def _terms(facts: dict[str, str]) -> ssl.SSLContext:
    own = parse_own_svid(WORKLOAD, bytes.fromhex(facts["chain"]), bytes.fromhex(facts["key"]))
    return client_context(own, {"example.org": (load_certificate(bytes.fromhex(facts["root"])),)})
