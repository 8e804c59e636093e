"""
HTTP/1.1 for one request and its answer on one connection (RFC 9112): bytes in, bytes out, no I/O.

Written for the daemon's own answers, which always carry Content-Length, and are in HTTP/1.0 when it
could not read what was sent (RFC 9110, section 2.5); whatever else comes is refused. aiohttp would
do it too, and costs `taskmint run` 130 ms of imports on every start.
"""

from collections.abc import Mapping
from typing import Final

from .errors import BadAnswer

LONGEST_HEAD: Final = 32 * 1024
LONGEST_BODY: Final = 8 * 1024 * 1024

_VERSIONS: Final = frozenset({"HTTP/1.0", "HTTP/1.1"})
_MOST_DIGITS: Final = 9
_END_OF_HEAD: Final = b"\r\n\r\n"
_FIX: Final = "check that the socket belongs to taskmint"


def encode(method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """
    Write a request that asks for the connection to be closed.

    Raises ValueError for what would not stay on its line.
    """
    always = {"Host": "taskmint", "Connection": "close", "Content-Length": str(len(body))}
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in {**always, **headers}.items()]
    if " " in target or not all(line.isascii() and line.isprintable() for line in lines):
        raise ValueError("a request's target and headers are printable ASCII")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


class Answer:
    """Feed it what arrives until it is `complete`; then read `status`, `headers` and `body`."""

    def __init__(self) -> None:
        self._data = b""
        self._length: int | None = None  # known once the head is complete
        self.status = 0
        self.headers: dict[str, str] = {}

    @property
    def complete(self) -> bool:
        """Whether nothing more is expected."""
        return self._length is not None and len(self._data) >= self._length

    @property
    def body(self) -> bytes:
        """The body, as long as the head said."""
        return self._data[: self._length]

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises BadAnswer."""
        self._data += data
        if self._length is not None:
            return
        head, end, rest = self._data.partition(_END_OF_HEAD)
        if end:
            self._read_head(head)
            self._data = rest
        elif len(self._data) > LONGEST_HEAD:
            raise BadAnswer("the answer's headers are too long", fix=_FIX)

    def _read_head(self, head: bytes) -> None:
        status_line, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = status_line.partition(" ")
        status = rest[:3]
        if version not in _VERSIONS or not is_number(status) or rest[3:4] not in {"", " "}:
            raise BadAnswer("the answer is not HTTP/1.1", fix=_FIX)
        self.status = int(status)
        for line in lines:
            name, colon, value = line.partition(":")
            name = name.lower()
            if not colon or not name.replace("-", "").isalnum() or name in self.headers:
                raise BadAnswer("the answer's headers are malformed or repeated", fix=_FIX)
            self.headers[name] = value.strip(" \t")
        length = self.headers.get("content-length", "")
        if "transfer-encoding" in self.headers or not is_number(length):
            raise BadAnswer("the answer does not say how long it is", fix=_FIX)
        if int(length) > LONGEST_BODY:
            raise BadAnswer(f"the answer is longer than {LONGEST_BODY} bytes", fix=_FIX)
        self._length = int(length)


def is_number(text: str) -> bool:
    """Whether it is a short row of ASCII digits: `isdigit` alone takes others, and int() not."""
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
