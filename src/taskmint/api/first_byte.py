"""A socket in, its first byte out, which stays there for whoever reads next."""

import asyncio
import socket
from typing import Final

FIRST_OF_TLS: Final = b"\x16"  # a handshake record (RFC 8446, section 5.1); no HTTP begins so


async def first_byte(sock: socket.socket) -> bytes:
    """
    Wait for the first byte of a non-blocking socket; empty when the caller hangs up first.

    The socket has SO_OOBINLINE: else one urgent byte wakes this loop again and again.
    """
    while True:
        try:
            return sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            await _readable(sock)


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)
