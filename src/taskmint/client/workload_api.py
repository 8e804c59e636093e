"""SVIDs for an asyncio program, from the SPIFFE Workload API, kept while they are fresh."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

from . import mutual_tls, svid
from .http2 import NOT_GRPC, GrpcFailure, UnaryCall
from .proof import Proof

T = TypeVar("T")

_CHUNK: Final = 65536


class WorkloadApi:
    """
    Proves by JWT-SVIDs from `endpoint` (`unix:///path` or `tcp://IP:PORT`).

    Without one, SPIFFE_ENDPOINT_SOCKET says where it is. A token is kept for half its life.
    """

    def __init__(self, endpoint: str | None = None, audience: str = svid.DEFAULT_AUDIENCE) -> None:
        self._endpoint = endpoint
        self._audience = audience
        self._held: svid.Svid | None = None

    async def proof(self, *, fresh: bool = False) -> Proof:
        """Return a JWT-SVID as a proof. Raises NoIdentity."""
        return Proof(await self.token(fresh=fresh))

    async def token(self, *, fresh: bool = False) -> str:
        """Return a JWT-SVID; `fresh` asks the Workload API again. Raises NoIdentity."""
        held = self._held
        if fresh or held is None or time.time() >= held.refresh_at:
            held = self._held = await self._fetch()
        return held.token

    async def _fetch(self) -> svid.Svid:
        return await _ask(self._endpoint, svid.question(self._audience), svid.read)


class MutualTls:
    """
    Proves by X.509-SVIDs, to a daemon that proves to be `daemon` in return (mutual_tls.py).

    `daemon` is a SPIFFE ID in which `*` stands for one whole segment of the path; the endpoint is
    that of WorkloadApi. Raises WrongDaemon for what no daemon can be.
    """

    def __init__(self, daemon: str, endpoint: str | None = None) -> None:
        self._daemon = mutual_tls.expected(daemon)
        self._endpoint = endpoint
        self._held = Proof()
        self._held_until = 0.0

    async def proof(self, *, fresh: bool = False) -> Proof:
        """Return the terms of connections; `fresh` asks the Workload API again."""
        if fresh or time.monotonic() >= self._held_until:
            self._held = Proof(
                terms=await _ask(
                    self._endpoint,
                    mutual_tls.question(),
                    lambda message: mutual_tls.terms(message, self._daemon),
                )
            )
            self._held_until = time.monotonic() + mutual_tls.HOLD_SECONDS
        return self._held


async def _ask(endpoint: str | None, call: UnaryCall, read: Callable[[bytes], T]) -> T:
    where = svid.endpoint(endpoint)
    try:
        async with asyncio.timeout(svid.FETCH_SECONDS):
            return read(await _exchange(where, call))
    except (GrpcFailure, OSError, ValueError) as error:
        raise svid.failure(where.path or where.host, error) from error


async def _exchange(where: svid.Endpoint, call: UnaryCall) -> bytes:
    if where.path is not None:
        reader, writer = await asyncio.open_unix_connection(where.path)
    else:
        reader, writer = await asyncio.open_connection(where.host, where.port)
    try:
        writer.write(call.opening())
        while call.answer is None:
            data = await reader.read(_CHUNK)
            if not data:
                raise GrpcFailure(NOT_GRPC, "the connection was closed before the answer")
            writer.write(call.receive(data))
        return call.answer
    finally:
        writer.close()
