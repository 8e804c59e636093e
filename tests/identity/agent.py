"""A Workload API that says what a test wants, when it wants, and fails as SPIRE can."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from spiffe._proto import workload_pb2

from identity.pki import Signed, der, root
from identity.signer import Authority, claims, jwks

OWN_ID = "spiffe://example.org/taskmint"
GARBAGE = b"\xff\xff\xff"  # a tag that never ends


class Agent:
    """
    Serves on a socket while `serving`. What it holds is sent by `push`.

    `bundles` are the JWT bundles by key, as sent; `refusal` ends every stream with a status, and
    `end` ends them normally, once; `silent` accepts streams and says nothing; what is sent while
    `garbled` is no message at all.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.endpoint = f"unix://{socket}"
        self.authority = Authority.ecdsa()
        self.bundles: dict[str, bytes] = {"spiffe://example.org": jwks([self.authority])}
        self.federated: dict[str, bytes] = {}
        self.root = root("example.org")
        self.roots: tuple[Signed, ...] = (self.root,)
        self.own = self.root.workload(OWN_ID)
        self.own_id = OWN_ID
        self.own_key: bytes | None = None  # in place of that of `own`
        self.token: str | None = None
        self.refusal: grpc.StatusCode | None = None
        self.silent = False
        self.garbled = False
        self.opened = 0
        self.metadata: list[dict[str, str]] = []
        self._version = 0
        self._ends = 0
        self._changes = 0
        self._told = asyncio.Condition()

    async def push(self) -> None:
        """Send what is held now on every stream."""
        async with self._told:
            self._version += 1
            self._changes += 1
            self._told.notify_all()

    async def end(self) -> None:
        """End every stream normally; those opened afterwards are served."""
        async with self._told:
            self._ends += 1
            self._changes += 1
            self._told.notify_all()

    async def until_opened(self, streams: int) -> None:
        """Wait until so many streams have been opened since the start."""
        async with asyncio.timeout(15), self._told:
            await self._told.wait_for(lambda: self.opened >= streams)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Agent"]:
        """Serve on the socket, which is a new file each time."""
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", self._handlers())]
        )
        server.add_insecure_port(f"unix:{self.socket}")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)

    def _handlers(self) -> dict[str, Any]:
        pb = workload_pb2
        stream, unary = (
            grpc.unary_stream_rpc_method_handler,
            grpc.unary_unary_rpc_method_handler,
        )

        def to_bytes(message: Any) -> bytes:
            return GARBAGE if self.garbled else bytes(message.SerializeToString())

        return {
            "FetchJWTBundles": stream(self._jwt_bundles, pb.JWTBundlesRequest.FromString, to_bytes),
            "FetchX509SVID": stream(self._x509_svid, pb.X509SVIDRequest.FromString, to_bytes),
            "FetchJWTSVID": unary(self._jwt_svid, pb.JWTSVIDRequest.FromString, to_bytes),
        }

    async def _jwt_bundles(self, _: Any, context: Any) -> AsyncIterator[Any]:
        async for message in self._stream(
            context, lambda: workload_pb2.JWTBundlesResponse(bundles=self.bundles)
        ):
            yield message

    async def _x509_svid(self, _: Any, context: Any) -> AsyncIterator[Any]:
        def compose() -> workload_pb2.X509SVIDResponse:
            svid = workload_pb2.X509SVID(
                spiffe_id=self.own_id,
                x509_svid=b"".join(self.own.chain[:-1]),
                x509_svid_key=self.own.pkcs8 if self.own_key is None else self.own_key,
                bundle=b"".join(der(root.certificate) for root in self.roots),
            )
            return workload_pb2.X509SVIDResponse(svids=[svid], federated_bundles=self.federated)

        async for message in self._stream(context, compose):
            yield message

    async def _jwt_svid(self, request: Any, context: Any) -> Any:
        if self.refusal is not None:
            await context.abort(self.refusal, "no identity issued")
        if self.silent:
            await asyncio.sleep(60)
        token = self.token
        if token is None:
            token = self.authority.token(claims(aud=list(request.audience), sub=self.own_id))
        return workload_pb2.JWTSVIDResponse(
            svids=[workload_pb2.JWTSVID(spiffe_id=self.own_id, svid=token)] if token else []
        )

    async def _stream(self, context: Any, compose: Callable[[], Any]) -> AsyncIterator[Any]:
        self.metadata.append({str(k): str(v) for k, v in context.invocation_metadata()})
        sent, ends = -1, self._ends
        async with self._told:
            self.opened += 1
            self._told.notify_all()
        while True:
            seen = self._changes
            if self.refusal is not None:
                await context.abort(self.refusal, "no identity issued")
            if self._ends != ends:
                return
            if not self.silent and sent != self._version:
                sent = self._version
                yield compose()
            else:
                await self._until_changed(seen)

    async def _until_changed(self, seen: int) -> None:
        async with self._told:
            await self._told.wait_for(lambda: self._changes != seen)
