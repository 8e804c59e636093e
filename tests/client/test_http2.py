"""One gRPC call as bytes: what a server may send, in any pieces, and what it may not."""

import contextlib
import itertools
import struct

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmint.client.http2 import NOT_GRPC, GrpcFailure, UnaryCall

MESSAGE = b"a message"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, PADDED, PRIORITISED, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
START = [(":status", "200"), ("content-type", "application/grpc+proto")]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def message(data: bytes = MESSAGE, *, compressed: int = 0) -> bytes:
    """One gRPC message."""
    return struct.pack(">BI", compressed, len(data)) + data


def headers(encoder: hpack.Encoder, fields: list[tuple[str, str]], flags: int) -> bytes:
    """A HEADERS frame on our stream."""
    return frame(HEADERS, flags | END_HEADERS, 1, encoder.encode(fields))


def good_answer() -> bytes:
    """Settings, an update of the window, headers, the message in two frames, trailers."""
    encoder, body = hpack.Encoder(), message()
    return b"".join(
        (
            frame(SETTINGS, 0, 0, b""),
            frame(SETTINGS, ACK, 0, b""),
            frame(8, 0, 0, struct.pack(">I", 1000)),
            headers(encoder, START, 0),
            frame(DATA, 0, 1, body[:7]),
            frame(PING, 0, 0, b"12345678"),
            frame(DATA, PADDED, 1, b"\x02" + body[7:] + b"\0\0"),
            headers(encoder, [("grpc-status", "0")], END_STREAM),
        )
    )


def call() -> UnaryCall:
    """A call that waits for its answer."""
    return UnaryCall("/S/M", b"request", [("workload.spiffe.io", "true")])


def failure(data: bytes) -> GrpcFailure:
    """What a call makes of this."""
    with pytest.raises(GrpcFailure) as raised:
        call().receive(data)
    return raised.value


@given(st.lists(st.integers(0, len(good_answer())), max_size=6))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    """However the bytes are cut, the message comes out, and settings and ping are acknowledged."""
    data, waiting = good_answer(), call()
    edges = [0, *sorted(cuts), len(data)]
    replies = b"".join(waiting.receive(data[start:end]) for start, end in itertools.pairwise(edges))

    assert waiting.answer == MESSAGE
    assert replies == frame(SETTINGS, ACK, 0, b"") + frame(PING, ACK, 0, b"12345678")


@given(st.binary(max_size=300))
def test_garbage_fails_in_our_words(data: bytes) -> None:
    """Whatever comes, no other error than ours."""
    with contextlib.suppress(GrpcFailure):
        call().receive(data)


@given(st.integers(0, len(good_answer()) - 1), st.integers(0, 255))
def test_a_flipped_byte_fails_in_our_words(at: int, value: int) -> None:
    """A damaged answer is a failure of ours or a message of that length, never another error."""
    data = bytearray(good_answer())
    data[at] = value
    waiting = call()
    with contextlib.suppress(GrpcFailure):
        waiting.receive(bytes(data))

    assert waiting.answer is None or len(waiting.answer) == len(MESSAGE)


def test_the_request_is_one_that_any_server_reads() -> None:
    """Preface, settings without push, headers in the order gRPC asks for, the message."""
    opening = call().opening()
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"\0\2\0\0\0\0")
    assert opening.startswith(preface)

    rest = opening.removeprefix(preface)
    length = int.from_bytes(rest[:3], "big")
    fields = dict(hpack.Decoder().decode(rest[9 : 9 + length], raw=True))
    assert fields[b":method"] == b"POST"
    assert fields[b":path"] == b"/S/M"
    assert fields[b"te"] == b"trailers"
    assert fields[b"workload.spiffe.io"] == b"true"
    assert rest[9 + length :] == frame(DATA, END_STREAM, 1, message(b"request"))


def test_a_refusal_has_its_status_and_message() -> None:
    """Headers that end the stream, in one block or continued, with priority or without."""
    fields = [*START, ("grpc-status", "7"), ("grpc-message", "no identity issued")]
    block = hpack.Encoder().encode(fields)
    whole = frame(HEADERS, END_HEADERS | END_STREAM | PRIORITISED, 1, b"\0\0\0\0\0" + block)
    parts = (
        frame(HEADERS, END_STREAM, 1, block[:3])
        + frame(CONTINUATION, 0, 1, block[3:9])
        + frame(CONTINUATION, END_HEADERS, 1, block[9:])
    )
    for data in (whole, parts):
        error = failure(data)
        assert (error.status, error.message) == (7, "no identity issued")


def test_trailers_after_headers_say_why() -> None:
    """HPACK's table is carried from the first block to the second."""
    encoder = hpack.Encoder()
    data = headers(encoder, START, 0) + headers(encoder, [("grpc-status", "14")], END_STREAM)

    assert failure(data).status == 14


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff"), "cannot be read"),
        (headers(hpack.Encoder(), [(":status", "404")], END_STREAM), "does not speak gRPC"),
        (headers(hpack.Encoder(), START, END_STREAM), "no message"),
        (headers(hpack.Encoder(), [*START, ("grpc-status", "0")], END_STREAM), "no message"),
        (frame(DATA, 0, 1, message()), "data without headers"),
        (headers(hpack.Encoder(), START, 0) + frame(DATA, END_STREAM, 1, message()), "status"),
        (frame(DATA, 0, 3, message()), "call that was not made"),
        (frame(RST_STREAM, 0, 1, b"\0\0\0\7"), "reset"),
        (frame(GOAWAY, 0, 0, b"\0" * 8), "closes the connection"),
        (frame(HEADERS, 0, 1, b"") + frame(PING, 0, 0, b"12345678"), "interrupted"),
        (frame(CONTINUATION, 0, 1, b""), "continuation of nothing"),
        (frame(HEADERS, PADDED, 1, b"\5abc"), "padding"),
        (frame(HEADERS, PADDED, 1, b""), "padding"),
        (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", "larger than HTTP/2 allows"),
        (
            headers(hpack.Encoder(), START, 0) + frame(DATA, 0, 1, b"x" * 16384) * 4,
            "too much of it",
        ),
    ],
)
def test_what_no_grpc_server_sends(data: bytes, sentence: str) -> None:
    """Each has its sentence; none is taken for an answer."""
    error = failure(data)

    assert error.status == NOT_GRPC
    assert sentence in error.message


@pytest.mark.parametrize("body", [message()[:-1], message() + b"x", message(compressed=1), b"abc"])
def test_anything_but_one_plain_message_is_refused(body: bytes) -> None:
    """Truncated, too long, compressed, too short for its own head."""
    encoder = hpack.Encoder()
    data = (
        headers(encoder, START, 0)
        + frame(DATA, 0, 1, body)
        + headers(encoder, [("grpc-status", "0")], END_STREAM)
    )

    assert "not one uncompressed message" in failure(data).message


def test_a_goodbye_that_still_answers_is_no_failure() -> None:
    """GOAWAY with our stream included: the answer comes yet."""
    waiting = call()
    waiting.receive(frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0)) + good_answer())

    assert waiting.answer == MESSAGE


def test_what_does_not_fit_is_not_sent() -> None:
    """A request beyond one frame, a header beyond one length byte."""
    with pytest.raises(ValueError, match="does not fit"):
        UnaryCall("/S/M", b"x" * 16384, [])
    with pytest.raises(ValueError, match="longer than"):
        UnaryCall("/S/M", b"", [("name", "x" * 127)])
