"""JWT-SVIDs for an asyncio program, from the SPIFFE Workload API, kept while they are fresh."""

import asyncio
import time
from typing import Final, Protocol

from . import svid
from .http2 import NOT_GRPC, GrpcFailure, UnaryCall

_CHUNK: Final = 65536


class SvidSource(Protocol):
    """Where a client takes its JWT-SVIDs from."""

    async def token(self, *, fresh: bool = False) -> str:
        """Return a JWT-SVID; `fresh` asks the source again. Raises NoIdentity."""


class WorkloadApi:
    """
    Fetches JWT-SVIDs from `endpoint` (`unix:///path` or `tcp://IP:PORT`).

    Without one, SPIFFE_ENDPOINT_SOCKET says where it is. A token is kept for half its life.
    """

    def __init__(self, endpoint: str | None = None, audience: str = svid.DEFAULT_AUDIENCE) -> None:
        self._endpoint = endpoint
        self._audience = audience
        self._held: svid.Svid | None = None

    async def token(self, *, fresh: bool = False) -> str:
        """Return a JWT-SVID; `fresh` asks the Workload API again. Raises NoIdentity."""
        held = self._held
        if fresh or held is None or time.time() >= held.refresh_at:
            held = self._held = await self._fetch()
        return held.token

    async def _fetch(self) -> svid.Svid:
        where = svid.endpoint(self._endpoint)
        try:
            async with asyncio.timeout(svid.FETCH_SECONDS):
                return svid.read(await _exchange(where, svid.question(self._audience)))
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
