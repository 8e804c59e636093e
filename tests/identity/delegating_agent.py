"""An agent's admin socket that attests processes as a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from identity.agent import GARBAGE
from taskmint.identity._delegated_proto import DelegatedMessages

KEY = b"PRIVATE KEY OF A WORKLOAD, NEVER TO BE KEPT"
SERVICE = "spire.api.agent.delegatedidentity.v1.DelegatedIdentity"


class DelegatingAgent:
    """
    `entries` are the SPIFFE IDs of each process, by pid; `push` sends them on every stream.

    What is sent while `garbled` is no message at all.
    """

    def __init__(self, socket: Path) -> None:
        self.endpoint = f"unix://{socket}"
        self.messages = DelegatedMessages()
        self.entries: dict[int, list[tuple[str, str]]] = {}
        self.expires_at = 1_900_000_000
        self.refusal: grpc.StatusCode | None = None
        self.garbled = False
        self.requests: list[Any] = []
        self.open = 0
        self._changes = 0
        self._told = asyncio.Condition()

    async def push(self) -> None:
        """Send what is held now, or the refusal, on every stream."""
        await self._tell()

    async def until(self, streams: int) -> None:
        """Wait until so many streams are open."""
        async with asyncio.timeout(10), self._told:
            await self._told.wait_for(lambda: self.open == streams)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["DelegatingAgent"]:
        """Serve on the socket."""
        server = grpc.aio.server()
        method = grpc.unary_stream_rpc_method_handler(
            self._subscribe,
            self.messages.named("SubscribeToX509SVIDsRequest").FromString,
            lambda message: GARBAGE if self.garbled else message.SerializeToString(),
        )
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, {"SubscribeToX509SVIDs": method})]
        )
        server.add_insecure_port(self.endpoint)
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)

    async def _subscribe(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        await self._count(1)
        try:
            while True:
                seen = self._changes
                if self.refusal is not None:
                    await context.abort(self.refusal, "no")
                yield self.answer(request.pid)
                await self._until_changed(seen)
        finally:
            await self._count(-1)

    async def _until_changed(self, seen: int) -> None:
        async with self._told:
            await self._told.wait_for(lambda: self._changes != seen)

    def answer(self, pid: int) -> Any:
        """What is sent about a process, its private key included."""
        message = self.messages.named("SubscribeToX509SVIDsResponse")()
        for trust_domain, path in self.entries.get(pid, []):
            svid = message.x509_svids.add()
            svid.x509_svid.cert_chain.append(f"leaf of {path}".encode())
            svid.x509_svid.id.trust_domain = trust_domain
            svid.x509_svid.id.path = path
            svid.x509_svid.expires_at = self.expires_at
            svid.MergeFromString(bytes([2 << 3 | 2, len(KEY)]) + KEY)  # x509_svid_key = 2
        return message

    async def _count(self, by: int) -> None:
        self.open += by
        async with self._told:
            self._told.notify_all()

    async def _tell(self) -> None:
        async with self._told:
            self._changes += 1
            self._told.notify_all()
