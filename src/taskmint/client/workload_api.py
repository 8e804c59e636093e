"""
A JWT-SVID for this process, from the SPIFFE Workload API (FetchJWTSVID), kept while it is fresh.

What it fetches it does not verify: the daemon does. Nothing of it is written anywhere.
"""

import asyncio
import base64
import json
import os
import re
import time
from dataclasses import dataclass
from typing import Final, Protocol

from .errors import NoIdentity
from .http2 import NOT_GRPC, GrpcFailure, UnaryCall
from .protobuf import first_jwt_svid, jwt_svid_request

ENDPOINT_VARIABLE: Final = "SPIFFE_ENDPOINT_SOCKET"  # SPIFFE Workload Endpoint, section 4
DEFAULT_AUDIENCE: Final = "taskmint"

_METHOD: Final = "/SpiffeWorkloadAPI/FetchJWTSVID"
_METADATA: Final = (("workload.spiffe.io", "true"),)  # SPIFFE Workload Endpoint, section 3
_FETCH_SECONDS: Final = 5.0
_CHUNK: Final = 65536
_PERMISSION_DENIED: Final = 7
_TCP = re.compile(r"tcp://\[?([0-9a-fA-F.:]+?)\]?:([0-9]{1,5})")


class SvidSource(Protocol):
    """Where a client takes its JWT-SVIDs from."""

    async def token(self, *, fresh: bool = False) -> str:
        """Return a JWT-SVID; `fresh` asks the source again. Raises NoIdentity."""


@dataclass(frozen=True, slots=True)
class Svid:
    """A JWT-SVID and when, by the wall clock, it is time to ask for another."""

    token: str
    refresh_at: float


class WorkloadApi:
    """
    Fetches JWT-SVIDs from `endpoint` (`unix:///path` or `tcp://IP:PORT`).

    Without one, SPIFFE_ENDPOINT_SOCKET says where it is. A token is kept for half its life.
    """

    def __init__(self, endpoint: str | None = None, audience: str = DEFAULT_AUDIENCE) -> None:
        self._endpoint = endpoint
        self._audience = audience
        self._held: Svid | None = None

    async def token(self, *, fresh: bool = False) -> str:
        """Return a JWT-SVID; `fresh` asks the Workload API again. Raises NoIdentity."""
        held = self._held
        if fresh or held is None or time.time() >= held.refresh_at:
            held = self._held = await self._fetch()
        return held.token

    async def _fetch(self) -> Svid:
        endpoint = self._endpoint or os.environ.get(ENDPOINT_VARIABLE, "")
        call = UnaryCall(_METHOD, jwt_svid_request(self._audience), _METADATA)
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                token = first_jwt_svid(await _exchange(endpoint, call))
            return Svid(token, _half_life(token))
        except GrpcFailure as error:
            raise _refused(error) from error
        except TimeoutError as error:
            raise NoIdentity("the Workload API did not answer in time", fix=_AGENT) from error
        except OSError as error:
            what = f"the Workload API at {endpoint}: {error.strerror or error}"
            raise NoIdentity(what, fix=_AGENT) from error
        except ValueError as error:
            raise NoIdentity(f"the Workload API's answer: {error}", fix=_AGENT) from error


_AGENT: Final = f"is the SPIFFE agent running, and does {ENDPOINT_VARIABLE} name its socket?"


async def _exchange(endpoint: str, call: UnaryCall) -> bytes:
    reader, writer = await _connect(endpoint)
    try:
        writer.write(call.opening())
        while call.answer is None:
            data = await reader.read(_CHUNK)
            if not data:
                raise GrpcFailure(
                    NOT_GRPC, "the connection was closed before the answer was complete"
                )
            writer.write(call.receive(data))
        return call.answer
    finally:
        writer.close()


async def _connect(endpoint: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open the endpoint (SPIFFE Workload Endpoint, section 4: unix with a path, tcp with an IP)."""
    if endpoint.startswith("unix:"):
        path = endpoint.removeprefix("unix:").removeprefix("//")
        return await asyncio.open_unix_connection(path)
    tcp = _TCP.fullmatch(endpoint)
    if tcp is None:
        raise NoIdentity(
            f"{ENDPOINT_VARIABLE} is not set" if not endpoint else f"{endpoint!r} is no endpoint",
            fix=f"set {ENDPOINT_VARIABLE} to unix:///path/of/the/agent.sock",
        )
    return await asyncio.open_connection(tcp[1], int(tcp[2]))


def _refused(error: GrpcFailure) -> NoIdentity:
    if error.status == _PERMISSION_DENIED:
        return NoIdentity(
            "the Workload API issues no identity to this process",
            fix="register the workload (SPIRE: `spire-server entry create`)",
        )
    return NoIdentity(f"the Workload API refused: {error.message}", fix=_AGENT)


def _half_life(token: str) -> float:
    """Return the wall-clock time at which half of the token's life is over. Raises ValueError."""
    _, payload, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    try:
        expires = float(claims["exp"])
    except (KeyError, TypeError) as error:
        raise ValueError("the token says no expiry") from error
    now = time.time()
    return now + (expires - now) / 2
