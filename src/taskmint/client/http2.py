"""
One unary gRPC call on a connection of its own (HTTP/2, RFC 9113): bytes in, bytes out, no I/O.

It does what one small call needs and refuses the rest. grpcio would do it too, and costs
`taskmint run` 65 ms of imports on every start, and forks badly once it has run.

    1. preface, SETTINGS without push, HEADERS and DATA of the request
    2. SETTINGS and PING of the server are acknowledged
    3. HEADERS say 200 and application/grpc, DATA holds one message, trailers say grpc-status 0
    4. whatever else ends the call with GrpcFailure: another status, RST_STREAM, GOAWAY,
       a stream not ours, frames beyond 16 KiB, an answer beyond 60 KiB (so that no window of
       64 KiB is ever used up), headers that HPACK cannot read; unknown frames mean nothing
"""

import enum
import struct
import urllib.parse
from collections.abc import Iterable
from typing import Final

import hpack

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STREAM: Final = 1
_STREAM_ID: Final = 0x7FFF_FFFF
_LARGEST_FRAME: Final = 16384  # SETTINGS_MAX_FRAME_SIZE, which we leave at its default
_LARGEST_ANSWER: Final = 60 * 1024
_FRAME_HEAD: Final = 9
_MESSAGE_HEAD: Final = 5  # gRPC over HTTP/2: a flag and four bytes of length

_END_STREAM: Final = 0x1
_ACK: Final = 0x1
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_PRIORITY: Final = 0x20


class Frame(enum.IntEnum):
    """The frame types of RFC 9113, section 6, that mean something to one call."""

    DATA = 0x0
    HEADERS = 0x1
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PING = 0x6
    GOAWAY = 0x7
    CONTINUATION = 0x9


class GrpcFailure(Exception):
    """The call failed: a gRPC status code (grpc/status), or -1 for what is not gRPC."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


NOT_GRPC: Final = -1
_STREAM_FRAMES: Final = frozenset({Frame.DATA, Frame.HEADERS, Frame.RST_STREAM, Frame.CONTINUATION})


class UnaryCall:
    """Feed it what the server sends until `answer` is there; send what it returns."""

    def __init__(self, method: str, message: bytes, metadata: Iterable[tuple[str, str]]) -> None:
        self._opening = _request(method, message, metadata)
        self._hpack = hpack.Decoder(max_header_list_size=_LARGEST_FRAME)
        self._buffer = b""
        self._headers = b""
        self._headers_flags: int | None = None  # of a HEADERS frame that is being continued
        self._accepted = False
        self._data = b""
        self.answer: bytes | None = None

    def opening(self) -> bytes:
        """The bytes that start the connection and the call."""
        return self._opening

    def receive(self, data: bytes) -> bytes:
        """Take what came; return what must be sent. Raises GrpcFailure."""
        self._buffer += data
        replies = b""
        while len(self._buffer) >= _FRAME_HEAD and self.answer is None:
            length = int.from_bytes(self._buffer[:3])
            if length > _LARGEST_FRAME:
                raise GrpcFailure(NOT_GRPC, "a frame is larger than HTTP/2 allows here")
            if len(self._buffer) < _FRAME_HEAD + length:
                break
            kind, flags, stream = struct.unpack(">BBI", self._buffer[3:_FRAME_HEAD])
            payload = self._buffer[_FRAME_HEAD : _FRAME_HEAD + length]
            self._buffer = self._buffer[_FRAME_HEAD + length :]
            replies += self._frame(kind, flags, stream & _STREAM_ID, payload)
        return replies

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if self._headers_flags is not None and kind != Frame.CONTINUATION:
            raise GrpcFailure(NOT_GRPC, "headers are interrupted by another frame")
        if kind in _STREAM_FRAMES:
            if stream != _STREAM:
                raise GrpcFailure(NOT_GRPC, "the server answers a call that was not made")
            self._on_stream(kind, flags, payload)
        elif kind in {Frame.SETTINGS, Frame.PING} and not flags & _ACK:
            return _frame(Frame(kind), _ACK, 0, payload if kind == Frame.PING else b"")
        elif kind == Frame.GOAWAY and int.from_bytes(payload[:4]) & _STREAM_ID < _STREAM:
            raise GrpcFailure(NOT_GRPC, "the server closes the connection")
        return b""

    def _on_stream(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == Frame.DATA:
            self._on_data(flags, _unpadded(flags, payload))
        elif kind == Frame.HEADERS:
            block = _unpadded(flags, payload)
            self._on_headers(flags, block[5:] if flags & _PRIORITY else block)
        elif kind == Frame.CONTINUATION:
            self._on_continuation(flags, payload)
        else:
            raise GrpcFailure(NOT_GRPC, "the server reset the call")

    def _on_data(self, flags: int, data: bytes) -> None:
        self._data += data
        if not self._accepted or len(self._data) > _LARGEST_ANSWER:
            raise GrpcFailure(NOT_GRPC, "data without headers, or too much of it")
        if flags & _END_STREAM:
            raise GrpcFailure(NOT_GRPC, "the answer ends without a gRPC status")

    def _on_headers(self, flags: int, block: bytes) -> None:
        self._headers = block
        if not flags & _END_HEADERS:
            self._headers_flags = flags
        else:
            self._on_header_list(ends=bool(flags & _END_STREAM))

    def _on_continuation(self, flags: int, block: bytes) -> None:
        started = self._headers_flags
        self._headers += block
        if started is None or len(self._headers) > _LARGEST_FRAME:
            raise GrpcFailure(NOT_GRPC, "a continuation of nothing, or too long")
        if flags & _END_HEADERS:
            self._headers_flags = None
            self._on_header_list(ends=bool(started & _END_STREAM))

    def _on_header_list(self, *, ends: bool) -> None:
        try:
            headers = {str(name): str(value) for name, value in self._hpack.decode(self._headers)}
        except (hpack.HPACKError, UnicodeDecodeError) as error:
            raise GrpcFailure(NOT_GRPC, "the headers cannot be read") from error
        if not self._accepted:
            media = headers.get("content-type", "")
            if headers.get(":status") != "200" or not media.startswith("application/grpc"):
                raise GrpcFailure(NOT_GRPC, "the server does not speak gRPC")
            self._accepted = True
        if ends:
            self._on_status(headers)

    def _on_status(self, headers: dict[str, str]) -> None:
        status = headers.get("grpc-status", "")
        if not status.isascii() or not status.isdigit():
            raise GrpcFailure(NOT_GRPC, "the answer ends without a gRPC status")
        if status != "0":
            message = urllib.parse.unquote(headers.get("grpc-message", ""), errors="replace")
            raise GrpcFailure(int(status), message)
        flag, length = struct.unpack(">BI", self._data[:_MESSAGE_HEAD].ljust(_MESSAGE_HEAD, b"\1"))
        if flag or length != len(self._data) - _MESSAGE_HEAD:
            raise GrpcFailure(NOT_GRPC, "the answer is not one uncompressed message")
        self.answer = self._data[_MESSAGE_HEAD:]


def _request(method: str, message: bytes, metadata: Iterable[tuple[str, str]]) -> bytes:
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "taskmint-client"),
        *metadata,
    ]
    block = hpack.Encoder().encode(headers)
    body = struct.pack(">BI", 0, len(message)) + message
    if len(block) > _LARGEST_FRAME or len(body) > _LARGEST_FRAME:
        raise ValueError("the request does not fit into a frame")
    no_push = struct.pack(">HI", 0x2, 0)  # SETTINGS_ENABLE_PUSH
    return b"".join(
        (
            _PREFACE,
            _frame(Frame.SETTINGS, 0, 0, no_push),
            _frame(Frame.HEADERS, _END_HEADERS, _STREAM, block),
            _frame(Frame.DATA, _END_STREAM, _STREAM, body),
        )
    )


def _frame(kind: Frame, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise GrpcFailure(NOT_GRPC, "a frame's padding is longer than the frame")
    return payload[1 : len(payload) - payload[0]]
