"""
The calls of the task socket that a workload makes: values to bytes, bytes to values, no I/O.

`client` sends them from asyncio and `blocking` from a plain socket.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, Final, Literal

from .errors import BadAnswer, Interrupted, Refused, Unreachable
from .http1 import Answer, encode, is_number
from .proof import Proof

Outcome = Literal["succeeded", "failed", "cancelled"]

SOCKET_VARIABLE: Final = "TASKMINT_SOCKET"
DAEMON_VARIABLE: Final = "TASKMINT_DAEMON_ID"
DEFAULT_SOCKET: Final = "/run/taskmint/task.sock"

START_SECONDS: Final = 70.0  # the daemon gives up minting after 60
HEARTBEAT_SECONDS: Final = 10.0
END_SECONDS: Final = 10.0  # the daemon answers 202 after 8
POLL_SECONDS: Final = 30  # how long the daemon is asked to wait for a change
LOOK_SECONDS: Final = POLL_SECONDS + 10.0

_UNAUTHORIZED: Final = 401
_ALWAYS: Final[Mapping[str, str]] = {
    # The guard against requests that a browser or a fooled proxy was made to send.
    "X-Taskmint-Request": "true",
    "Accept": "application/json, application/problem+json",
    "User-Agent": "taskmint-client",
}
_FIX: Final = "check that the socket belongs to taskmint"


def default_socket() -> str:
    """Return the path in TASKMINT_SOCKET, or where a packaged daemon listens."""
    return os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET


def expected_daemon() -> str | None:
    """Return the SPIFFE ID in TASKMINT_DAEMON_ID: named, the daemon is spoken to by mutual TLS."""
    return os.environ.get(DAEMON_VARIABLE) or None


def start(proof: Proof, body: Mapping[str, object], key: str) -> bytes:
    """`POST /v1/tasks`; the same key starts the same task."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    return request("POST", "/v1/tasks", _proving(proof) | headers, json.dumps(body).encode())


def heartbeat(proof: Proof, task: str) -> bytes:
    """`POST /v1/tasks/{id}/heartbeat`; the proof is a new one of who we are."""
    return request("POST", f"/v1/tasks/{task}/heartbeat", _proving(proof))


def look(proof: Proof, task: str) -> bytes:
    """`GET /v1/tasks/{id}?wait=`: answered when a request is approved or over, or as it is."""
    return request("GET", f"/v1/tasks/{task}?wait={POLL_SECONDS}s", _proving(proof))


def end(proof: Proof, task: str, outcome: Outcome) -> bytes:
    """`DELETE /v1/tasks/{id}`: answered when revocation is proven, or is taking long."""
    return request("DELETE", f"/v1/tasks/{task}?outcome={outcome}", _proving(proof))


def request(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Write any request with the headers that every one carries."""
    return encode(method, target, {**_ALWAYS, **headers}, body)


def _proving(proof: Proof) -> dict[str, str]:
    return {} if proof.token is None else {"Authorization": f"Bearer {proof.token}"}


def read(answer: Answer) -> dict[str, Any]:
    """Return the JSON object of an answer. Raises Refused for a problem, BadAnswer."""
    try:
        value = json.loads(answer.body)
    except ValueError as error:
        raise BadAnswer("the answer is not JSON", fix=_FIX) from error
    if not isinstance(value, dict):
        raise BadAnswer("the answer is not a JSON object", fix=_FIX)
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        retry_after = answer.headers.get("retry-after", "")
        raise Refused(
            answer.status,
            str(value.get("code", "")),
            str(value.get("detail", "")),
            fix=str(value.get("fix", "")),
            retry_after=float(retry_after) if is_number(retry_after) else None,
        )
    return value


def wants_another_svid(error: Refused) -> bool:
    """Whether a newer SVID may help."""
    return error.status == _UNAUTHORIZED


def broken(socket: str, error: Exception, seconds: float, *, sent: bool) -> Unreachable:
    """Say what became of a request that got no answer; `sent` if the daemon may have read it."""
    if isinstance(error, TimeoutError):
        what = f"{socket} did not answer within {seconds:g} s"
    elif isinstance(error, EOFError):
        what = f"{socket} closed the connection before its answer was complete"
    else:
        what = f"{socket}: {error.strerror if isinstance(error, OSError) else error}"
    if sent:
        return Interrupted(what, fix="see the daemon's log")
    fix = "is the daemon running, and may this user connect? (group taskmint by default)"
    return Unreachable(what, fix=fix)
