"""
HTTP/1.1 for one request and its answer on one connection (RFC 9112): bytes in, bytes out, no I/O.

Written for the daemon's own answers, which always carry Content-Length; whatever else comes is
refused. aiohttp would do it too, and costs `taskmint run` 130 ms of imports on every start.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .errors import BadAnswer

LONGEST_HEAD: Final = 32 * 1024
LONGEST_BODY: Final = 8 * 1024 * 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2})(?: [^\r\n]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_TARGET = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*")
_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Head:
    """A status and headers, their names in lower case."""

    status: int
    headers: Mapping[str, str]

    @property
    def length(self) -> int:
        """The body's length in bytes. Raises BadAnswer when it is not said, or too large."""
        text = self.headers.get("content-length", "")
        if "transfer-encoding" in self.headers or not re.fullmatch(r"[0-9]{1,9}", text):
            raise BadAnswer("the answer does not say how long it is", fix=NOT_TASKMINT)
        if int(text) > LONGEST_BODY:
            raise BadAnswer(f"the answer is longer than {LONGEST_BODY} bytes", fix=NOT_TASKMINT)
        return int(text)


NOT_TASKMINT: Final = "check that the socket belongs to taskmint"


def encode(method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Write a request that asks for the connection to be closed. Raises ValueError."""
    if not _TARGET.fullmatch(target):
        raise ValueError("a request target is a path and a query, percent-encoded")
    lines = [f"{method} {target} HTTP/1.1"]
    always = {"Host": "taskmint", "Connection": "close", "Content-Length": str(len(body))}
    for name, value in {**always, **headers}.items():
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of {name} is not printable ASCII")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def parse_head(data: bytes) -> Head:
    """Read what stands before the body, its empty line included. Raises BadAnswer."""
    status_line, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    status = _STATUS_LINE.fullmatch(status_line)
    if status is None:
        raise BadAnswer("the answer is not HTTP/1.1", fix=NOT_TASKMINT)
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        name = header[1].decode("ascii").lower() if header else ""
        if header is None or name in headers:
            raise BadAnswer("the answer's headers are malformed or repeated", fix=NOT_TASKMINT)
        headers[name] = header[2].decode("latin-1")
    return Head(int(status[1]), headers)
