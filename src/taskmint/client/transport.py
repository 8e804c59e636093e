"""One request to a daemon on a Unix socket, and its answer: a connection each, with a deadline."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from .errors import BadAnswer, Interrupted, Refused, Unreachable
from .http1 import LONGEST_HEAD, NOT_TASKMINT, Head, encode, parse_head

_HEADERS: Final[Mapping[str, str]] = {
    # The guard against requests that a browser or a fooled proxy was made to send.
    "X-Taskmint-Request": "true",
    "Accept": "application/json, application/problem+json",
    "User-Agent": "taskmint-client",
}


async def call(
    socket: str,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    seconds: float,
) -> dict[str, Any]:
    """
    Send a request and return the JSON object that answers it.

    Raises Unreachable, Interrupted, BadAnswer, and Refused for a problem.
    """
    request = encode(method, target, {**_HEADERS, **(headers or {})}, body)
    sent = False
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(socket, limit=LONGEST_HEAD)
            try:
                sent = True
                writer.write(request)
                head = parse_head(await reader.readuntil(b"\r\n\r\n"))
                content = await reader.readexactly(head.length)
            finally:
                writer.close()
    except asyncio.LimitOverrunError as error:
        raise BadAnswer("the answer's headers are too long", fix=NOT_TASKMINT) from error
    except (OSError, EOFError) as error:  # TimeoutError is an OSError; IncompleteRead an EOFError
        raise _broken(socket, error, seconds, sent=sent) from error
    return _read(head, content)


def _broken(socket: str, error: Exception, seconds: float, *, sent: bool) -> Unreachable:
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


def _read(head: Head, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise BadAnswer("the answer is not JSON", fix=NOT_TASKMINT) from error
    if not isinstance(value, dict):
        raise BadAnswer("the answer is not a JSON object", fix=NOT_TASKMINT)
    if head.headers.get("content-type", "").startswith("application/problem+json"):
        raise Refused(
            head.status,
            str(value.get("code", "")),
            str(value.get("detail", "")),
            fix=str(value.get("fix", "")),
            retry_after=_whole_seconds(head.headers.get("retry-after", "")),
        )
    return value


def _whole_seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() else None
