"""
What a refused gRPC call says in its headers: imported only when one was refused.

HPACK (RFC 7541) keeps a table across blocks, so they are read in the order in which they came.
"""

from collections.abc import Iterable
from typing import Final

import hpack

NOT_GRPC: Final = -1
_LONGEST_LIST: Final = 16384


def refusal(blocks: Iterable[bytes]) -> tuple[int, str]:
    """Return the gRPC status and message, or NOT_GRPC and why. Never raises."""
    decoder = hpack.Decoder(max_header_list_size=_LONGEST_LIST)
    headers: dict[str, str] = {}
    try:
        for block in blocks:
            fields = decoder.decode(block, raw=True)
            headers.update((name.decode(), value.decode()) for name, value in fields)
    except (hpack.HPACKError, UnicodeDecodeError):
        return NOT_GRPC, "the headers cannot be read"
    media = headers.get("content-type", "")
    if headers.get(":status") != "200" or not media.startswith("application/grpc"):
        return NOT_GRPC, "the server does not speak gRPC"
    status = headers.get("grpc-status", "")
    if not status.isascii() or not status.isdigit() or status == "0":
        return NOT_GRPC, "the answer holds no message"
    return int(status), headers.get("grpc-message", "")  # percent-encoded (gRPC over HTTP/2)
