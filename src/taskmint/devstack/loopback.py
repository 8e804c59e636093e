"""
Loopback ports that nobody else is given while we hold them.

A bound socket that does not listen keeps its port out of everybody's automatic choice, and a server
that sets SO_REUSEADDR, as OpenBao and PostgreSQL do, may still listen on it (socket(7), Linux).
So the port is free of races at the start and stays ours while the server is stopped for a test.
"""

import contextlib
import socket
from collections.abc import Iterator
from typing import Final

HOST: Final = "127.0.0.1"


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """Hold a free TCP port on the loopback address for as long as the context lasts."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, 0))
        yield holder.getsockname()[1]
