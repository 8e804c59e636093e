"""
A JWT-SVID from the SPIFFE Workload API (FetchJWTSVID): what is asked and what is read, no I/O.

What comes is not verified here: the daemon does that.
"""

import base64
import json
import os
import time
from typing import Final, NamedTuple

from .errors import NoIdentity
from .http2 import GrpcFailure, UnaryCall
from .protobuf import first_jwt_svid, jwt_svid_request

ENDPOINT_VARIABLE: Final = "SPIFFE_ENDPOINT_SOCKET"  # SPIFFE Workload Endpoint, section 4
DEFAULT_AUDIENCE: Final = "taskmint"
FETCH_SECONDS: Final = 5.0
METADATA: Final = (("workload.spiffe.io", "true"),)  # SPIFFE Workload Endpoint, section 3

_METHOD: Final = "/SpiffeWorkloadAPI/FetchJWTSVID"
_PERMISSION_DENIED: Final = 7
_FIX: Final = f"is the SPIFFE agent running, and does {ENDPOINT_VARIABLE} name its socket?"


class Svid(NamedTuple):
    """A JWT-SVID and when, by the wall clock, it is time to ask for another."""

    token: str
    refresh_at: float

    def __repr__(self) -> str:
        return f"Svid(refresh_at={self.refresh_at})"


class Endpoint(NamedTuple):
    """Where the Workload API is: a Unix socket's path, or an IP address and a port."""

    path: str | None
    host: str
    port: int


def endpoint(text: str | None) -> Endpoint:
    """
    Read an endpoint, by default SPIFFE_ENDPOINT_SOCKET (SPIFFE Workload Endpoint, section 4).

    `unix:` with an absolute path, or `tcp://IP:PORT`. Raises NoIdentity.
    """
    text = text or os.environ.get(ENDPOINT_VARIABLE, "")
    scheme, _, rest = text.partition(":")
    rest = rest.removeprefix("//")
    if scheme == "unix" and rest.startswith("/"):
        return Endpoint(rest, "", 0)
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and host and port.isascii() and port.isdigit():
        return Endpoint(None, host.strip("[]"), int(port))
    raise NoIdentity(
        f"{ENDPOINT_VARIABLE} is {f'{text!r}, which is no endpoint' if text else 'not set'}",
        fix=f"set {ENDPOINT_VARIABLE} to unix:///path/of/the/agent.sock",
    )


def question(audience: str) -> UnaryCall:
    """Return the call that asks for a token."""
    return UnaryCall(_METHOD, jwt_svid_request(audience), METADATA)


def read(message: bytes) -> Svid:
    """Read the answer. Raises ValueError."""
    token = first_jwt_svid(message)
    _, payload, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    try:
        expires = float(claims["exp"])
    except (KeyError, TypeError) as error:
        raise ValueError("the token says no expiry") from error
    now = time.time()
    return Svid(token, now + (expires - now) / 2)


def failure(where: str, error: Exception) -> NoIdentity:
    """Say why there is no SVID: a GrpcFailure, an OSError or a ValueError of the calls above."""
    if isinstance(error, GrpcFailure) and error.status == _PERMISSION_DENIED:
        return NoIdentity(
            "the Workload API issues no identity to this process",
            fix="register the workload (SPIRE: `spire-server entry create`)",
        )
    what = error.strerror if isinstance(error, OSError) else ""
    if isinstance(error, TimeoutError):
        what = "no answer in time"
    return NoIdentity(f"the Workload API at {where}: {what or error}", fix=_FIX)
