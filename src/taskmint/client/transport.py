"""One request to a daemon on a Unix socket, and its answer: a connection each, with a deadline."""

import asyncio
import ssl
from typing import Any, Final

from . import calls, mutual_tls
from .http1 import Answer

_CHUNK: Final = 65536


async def exchange(
    socket: str, request: bytes, seconds: float, terms: mutual_tls.Terms | None = None
) -> dict[str, Any]:
    """
    Send a request, over TLS where there are terms, and return the JSON object that answers it.

    Raises Unreachable, Interrupted, BadAnswer, WrongDaemon, and Refused for a problem.
    """
    answer = Answer()
    sent = False
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await _open(socket, terms)
            try:
                if terms is not None:
                    mutual_tls.verify(writer.get_extra_info("ssl_object"), terms.daemon)
                sent = True
                writer.write(request)
                while not answer.complete:
                    data = await reader.read(_CHUNK)
                    if not data:
                        raise EOFError
                    answer.feed(data)
            finally:
                writer.close()
    except ssl.SSLCertVerificationError as error:
        raise mutual_tls.unverified(error) from error
    except (OSError, EOFError) as error:  # TimeoutError is an OSError
        raise calls.broken(socket, error, seconds, sent=sent) from error
    return calls.read(answer)


async def _open(
    socket: str, terms: mutual_tls.Terms | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if terms is None:
        return await asyncio.open_unix_connection(socket)
    return await asyncio.open_unix_connection(socket, ssl=terms.context, server_hostname="")
