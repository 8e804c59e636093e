"""
The SPIFFE Workload API for the development trust domain: who calls decides what is answered.

Behaves as SPIRE's agent does where a client can tell: the security header, the status codes,
PERMISSION_DENIED for whoever has no entry, full sets on every stream message, the same cached
token for every process of an entry, streams that push what changes. Federation is not here.

The one module of devstack that imports spiffe's generated messages: a process refuses a second
copy. The service is described here rather than by the generated stub, which has no types.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
import jwt
from spiffe._proto import workload_pb2

from .agent_relay import Relay
from .agent_state import AgentState
from .registration import Entry

_SERVICE: Final = "SpiffeWorkloadAPI"  # workload.proto has no package
_HEADER: Final = ("workload.spiffe.io", "true")  # SPIFFE Workload Endpoint, section 3
_LOOK_AGAIN_SECONDS: Final = 5.0  # how late a certificate's half life may be noticed

M = TypeVar("M")


class WorkloadService:
    """Answers from `state`; `relay` says whose a connection is."""

    def __init__(self, state: AgentState, relay: Relay) -> None:
        self._state = state
        self._relay = relay

    def handler(self) -> Any:
        """Describe the five calls to gRPC."""
        pb = workload_pb2
        stream, unary = grpc.unary_stream_rpc_method_handler, grpc.unary_unary_rpc_method_handler
        calls: dict[str, tuple[Any, Any, Any]] = {
            "FetchX509SVID": (stream, self.fetch_x509_svid, pb.X509SVIDRequest),
            "FetchX509Bundles": (stream, self.fetch_x509_bundles, pb.X509BundlesRequest),
            "FetchJWTSVID": (unary, self.fetch_jwt_svid, pb.JWTSVIDRequest),
            "FetchJWTBundles": (stream, self.fetch_jwt_bundles, pb.JWTBundlesRequest),
            "ValidateJWTSVID": (unary, self.validate_jwt_svid, pb.ValidateJWTSVIDRequest),
        }
        handlers = {
            name: kind(
                behaviour,
                request_deserializer=request.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            for name, (kind, behaviour, request) in calls.items()
        }
        return grpc.method_handlers_generic_handler(_SERVICE, handlers)

    async def fetch_x509_svid(
        self, request: workload_pb2.X509SVIDRequest, context: Any
    ) -> AsyncIterator[workload_pb2.X509SVIDResponse]:
        """Stream the caller's certificates with keys and bundle; again when one is replaced."""
        del request

        def compose(entries: tuple[Entry, ...]) -> workload_pb2.X509SVIDResponse:
            bundle = self._state.trust_domain.x509_bundle()
            held = [self._state.certificate(entry.spiffe_id) for entry in entries]
            return workload_pb2.X509SVIDResponse(
                svids=[
                    workload_pb2.X509SVID(
                        spiffe_id=svid.spiffe_id,
                        x509_svid=svid.certificate,
                        x509_svid_key=svid.key,
                        bundle=bundle,
                    )
                    for svid in held
                ]
            )

        async for message in self._pushed(context, compose):
            yield message

    async def fetch_x509_bundles(
        self, request: workload_pb2.X509BundlesRequest, context: Any
    ) -> AsyncIterator[workload_pb2.X509BundlesResponse]:
        """Stream the X.509 bundle; again when it changes."""
        del request
        domain = self._state.trust_domain
        async for message in self._pushed(
            context,
            lambda _: workload_pb2.X509BundlesResponse(bundles={domain.id: domain.x509_bundle()}),
        ):
            yield message

    async def fetch_jwt_bundles(
        self, request: workload_pb2.JWTBundlesRequest, context: Any
    ) -> AsyncIterator[workload_pb2.JWTBundlesResponse]:
        """Stream the JWT bundle; again when it changes."""
        del request
        domain = self._state.trust_domain
        async for message in self._pushed(
            context,
            lambda _: workload_pb2.JWTBundlesResponse(bundles={domain.id: domain.jwt_bundle()}),
        ):
            yield message

    async def fetch_jwt_svid(
        self, request: workload_pb2.JWTSVIDRequest, context: Any
    ) -> workload_pb2.JWTSVIDResponse:
        """Return a token for each of the caller's entries, or for the one it asks for."""
        entries = await self._entitled(context)
        if not request.audience:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "audience must be specified")
        wanted = [e for e in entries if request.spiffe_id in {"", e.spiffe_id}]
        if not wanted:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        tokens = [self._state.token(entry.spiffe_id, request.audience) for entry in wanted]
        return workload_pb2.JWTSVIDResponse(
            svids=[workload_pb2.JWTSVID(spiffe_id=t.spiffe_id, svid=t.token) for t in tokens]
        )

    async def validate_jwt_svid(
        self, request: workload_pb2.ValidateJWTSVIDRequest, context: Any
    ) -> workload_pb2.ValidateJWTSVIDResponse:
        """Return the subject and the claims of a token that is valid for the audience."""
        await self._entitled(context)
        for name in ("audience", "svid"):
            if not getattr(request, name):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{name} must be specified")
        try:
            claims = self._state.trust_domain.validate_jwt(request.svid, request.audience)
        except jwt.InvalidTokenError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        answer = workload_pb2.ValidateJWTSVIDResponse(spiffe_id=claims["sub"])
        answer.claims.update(claims)
        return answer

    async def _entitled(self, context: Any) -> tuple[Entry, ...]:
        """
        Say who calls, anew for every call and message.

        1. Without the security header: INVALID_ARGUMENT.
        2. Attest the process: uid, executable, still alive.
        3. No entry means it: PERMISSION_DENIED.
        """
        values = [v for k, v in context.invocation_metadata() if k == _HEADER[0]]
        if values != [_HEADER[1]]:  # 1.
            text = "security header missing from request"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        entries = self._state.entitled(self._relay.caller(context.peer()))  # 2.
        if not entries:  # 3.
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        return entries

    async def _pushed(
        self, context: Any, compose: Callable[[tuple[Entry, ...]], M]
    ) -> AsyncIterator[M]:
        """Yield the full set now, and again whenever it differs from what was sent last."""
        sent = None
        while True:
            seen = self._state.version
            message = compose(await self._entitled(context))
            if message != sent:
                yield message
                sent = message
            await self._state.changed_since(seen, _LOOK_AGAIN_SECONDS)
