"""
One gRPC call on a connection of its own (HTTP/2, RFC 9113): bytes in, bytes out, no I/O.

It does what one small call needs and refuses the rest. grpcio would do it too, and costs
`taskmint run` 65 ms of imports on every start, and forks badly once it has run.

    1. preface, SETTINGS without push, HEADERS and DATA of the request
    2. SETTINGS and PING of the server are acknowledged
    3. HEADERS, DATA with exactly one uncompressed message, HEADERS that end the stream: the answer
    4. the stream ends without a message: the headers say why (trailers.py)
       (of a call that streams, the first message is the answer)
    5. whatever else ends the call with GrpcFailure: RST_STREAM, GOAWAY, a stream not ours, frames
       beyond 16 KiB, an answer beyond 60 KiB (so that no window of 64 KiB is ever used up);
       unknown frames mean nothing

A server that sent its message and a status other than 0 would be believed. What we ask for is a
token that somebody else verifies, so that costs nothing; reading HPACK each time costs 8 ms.
"""

import struct
from collections.abc import Iterable
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STREAM: Final = 1
_STREAM_ID: Final = 0x7FFF_FFFF
_LARGEST_FRAME: Final = 16384  # SETTINGS_MAX_FRAME_SIZE, which we leave at its default
_LARGEST_ANSWER: Final = 60 * 1024
_LONGEST_LITERAL: Final = 127
_FRAME_HEAD: Final = 9
_MESSAGE_HEAD: Final = 5  # gRPC over HTTP/2: a flag and four bytes of length

_END_STREAM: Final = 0x1
_ACK: Final = 0x1
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_PRIORITY: Final = 0x20


# The frame types of RFC 9113, section 6, that mean something to one call.
_DATA: Final = 0x0
_HEADERS: Final = 0x1
_RST_STREAM: Final = 0x3
_SETTINGS: Final = 0x4
_PING: Final = 0x6
_GOAWAY: Final = 0x7
_CONTINUATION: Final = 0x9


class GrpcFailure(Exception):
    """The call failed: a gRPC status code (grpc/status), or -1 for what is not gRPC."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


NOT_GRPC: Final = -1
_STREAM_FRAMES: Final = frozenset({_DATA, _HEADERS, _RST_STREAM, _CONTINUATION})


class UnaryCall:
    """Feed it what the server sends until `answer` is there; send what it returns."""

    def __init__(
        self,
        method: str,
        message: bytes,
        metadata: Iterable[tuple[str, str]],
        *,
        streaming: bool = False,
    ) -> None:
        self._opening = _request(method, message, metadata)
        self._streaming = streaming
        self._buffer = b""
        self._blocks: list[bytes] = []  # header blocks, as they came
        self._continued: int | None = None  # flags of a HEADERS frame that is not complete yet
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
        if self._continued is not None and kind != _CONTINUATION:
            raise GrpcFailure(NOT_GRPC, "headers are interrupted by another frame")
        if kind in _STREAM_FRAMES:
            if stream != _STREAM:
                raise GrpcFailure(NOT_GRPC, "the server answers a call that was not made")
            self._on_stream(kind, flags, payload)
        elif kind in {_SETTINGS, _PING} and not flags & _ACK:
            return _frame(kind, _ACK, 0, payload if kind == _PING else b"")
        elif kind == _GOAWAY and int.from_bytes(payload[:4]) & _STREAM_ID < _STREAM:
            raise GrpcFailure(NOT_GRPC, "the server closes the connection")
        return b""

    def _on_stream(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _DATA:
            self._on_data(flags, _unpadded(flags, payload))
        elif kind == _HEADERS:
            block = _unpadded(flags, payload)
            self._on_headers(flags, block[5:] if flags & _PRIORITY else block)
        elif kind == _CONTINUATION:
            self._on_continuation(flags, payload)
        else:
            raise GrpcFailure(NOT_GRPC, "the server reset the call")

    def _on_data(self, flags: int, data: bytes) -> None:
        self._data += data
        if not self._blocks or len(self._data) > _LARGEST_ANSWER:
            raise GrpcFailure(NOT_GRPC, "data without headers, or too much of it")
        if flags & _END_STREAM:
            raise GrpcFailure(NOT_GRPC, "the answer ends without a gRPC status")
        if self._streaming and len(self._data) >= _MESSAGE_HEAD + self._length():
            self.answer = self._data[_MESSAGE_HEAD : _MESSAGE_HEAD + self._length()]

    def _on_headers(self, flags: int, block: bytes) -> None:
        self._blocks.append(block)
        self._on_block(flags)

    def _on_continuation(self, flags: int, block: bytes) -> None:
        started, self._continued = self._continued, None
        if started is None or len(self._blocks[-1]) + len(block) > _LARGEST_FRAME:
            raise GrpcFailure(NOT_GRPC, "a continuation of nothing, or too long")
        self._blocks[-1] += block
        self._on_block(started | flags & _END_HEADERS)

    def _on_block(self, flags: int) -> None:
        if not flags & _END_HEADERS:
            self._continued = flags
        elif flags & _END_STREAM:
            self._finish()

    def _finish(self) -> None:
        if not self._data:
            from .trailers import refusal  # noqa: PLC0415 - 8 ms that only a refusal is worth

            raise GrpcFailure(*refusal(self._blocks))
        if self._length() != len(self._data) - _MESSAGE_HEAD:
            raise GrpcFailure(NOT_GRPC, "the answer is not one uncompressed message")
        self.answer = self._data[_MESSAGE_HEAD:]

    def _length(self) -> int:
        """Return the first message's length; more than can be there while that is not known."""
        if len(self._data) < _MESSAGE_HEAD:
            return _LARGEST_ANSWER
        flag, length = struct.unpack(">BI", self._data[:_MESSAGE_HEAD])
        if flag:
            raise GrpcFailure(NOT_GRPC, "the answer is not one uncompressed message")
        return int(length)


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
    block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in headers)
    body = struct.pack(">BI", 0, len(message)) + message
    if len(block) > _LARGEST_FRAME or len(body) > _LARGEST_FRAME:
        raise ValueError("the request does not fit into a frame")
    no_push = struct.pack(">HI", 0x2, 0)  # SETTINGS_ENABLE_PUSH
    return b"".join(
        (
            _PREFACE,
            _frame(_SETTINGS, 0, 0, no_push),
            _frame(_HEADERS, _END_HEADERS, _STREAM, block),
            _frame(_DATA, _END_STREAM, _STREAM, body),
        )
    )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(text: str) -> bytes:
    """Write an HPACK string of less than 127 bytes without Huffman coding (RFC 7541, 5.2)."""
    raw = text.encode("ascii")
    if len(raw) >= _LONGEST_LITERAL:
        raise ValueError("a header is longer than one small call needs")
    return bytes((len(raw),)) + raw


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise GrpcFailure(NOT_GRPC, "a frame's padding is longer than the frame")
    return payload[1 : len(payload) - payload[0]]
