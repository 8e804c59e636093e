"""One request to a daemon on a Unix socket, and its answer: a connection each, with a deadline."""

import asyncio
from typing import Any, Final

from . import calls
from .http1 import Answer

_CHUNK: Final = 65536


async def exchange(socket: str, request: bytes, seconds: float) -> dict[str, Any]:
    """
    Send a request and return the JSON object that answers it.

    Raises Unreachable, Interrupted, BadAnswer, and Refused for a problem.
    """
    answer = Answer()
    sent = False
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                sent = True
                writer.write(request)
                while not answer.complete:
                    data = await reader.read(_CHUNK)
                    if not data:
                        raise EOFError
                    answer.feed(data)
            finally:
                writer.close()
    except (OSError, EOFError) as error:  # TimeoutError is an OSError
        raise calls.broken(socket, error, seconds, sent=sent) from error
    return calls.read(answer)
