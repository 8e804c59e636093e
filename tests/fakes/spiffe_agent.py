"""A SPIFFE Workload API that hands out unsigned tokens and can be told to misbehave."""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from spiffe._proto import workload_pb2


def unsigned_token(serial: int, seconds: float) -> str:
    """A token that looks like a JWT-SVID and expires after `seconds`."""
    claims = {"sub": "spiffe://example.org/w", "aud": "taskmint", "exp": time.time() + seconds}
    parts = ({"alg": "none"}, {**claims, "serial": serial}, "signature")
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )


class FakeAgent:
    """`requests` are the audiences asked for; `refusal` answers with a status instead."""

    def __init__(self, socket: Path) -> None:
        self.endpoint = f"unix://{socket}"
        self.requests: list[list[str]] = []
        self.tokens: list[str] = []
        self.metadata: dict[str, str] = {}
        self.life_seconds = 300.0
        self.caches = False  # the same token again, as SPIRE does
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.padding = 0  # more bytes in the answer, to cross frame sizes
        self._asked = asyncio.Condition()

    async def until_asked(self, times: int) -> None:
        """Wait until so many more requests have come."""
        wanted = len(self.requests) + times
        async with asyncio.timeout(10), self._asked:
            await self._asked.wait_for(lambda: len(self.requests) >= wanted)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeAgent"]:
        """Serve on the socket."""
        server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(
            self._fetch,
            request_deserializer=workload_pb2.JWTSVIDRequest.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", {"FetchJWTSVID": handler})]
        )
        server.add_insecure_port(self.endpoint)
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)

    async def _fetch(
        self, request: workload_pb2.JWTSVIDRequest, context: Any
    ) -> workload_pb2.JWTSVIDResponse:
        async with self._asked:
            self.requests.append(list(request.audience))
            self._asked.notify_all()
        self.metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        if self.refusal is not None:
            await context.abort(*self.refusal)
        if not self.caches or not self.tokens:
            self.tokens.append(unsigned_token(len(self.tokens), self.life_seconds))
        svid = workload_pb2.JWTSVID(
            spiffe_id="spiffe://example.org/w", svid=self.tokens[-1], hint="x" * self.padding
        )
        return workload_pb2.JWTSVIDResponse(svids=[svid])
