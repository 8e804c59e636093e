"""The daemon's answers as bytes: read in any pieces, refused when they are something else."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmint.client.errors import BadAnswer
from taskmint.client.http1 import LONGEST_HEAD, Answer, encode

GOOD = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\nX-A: b \r\n\r\nhello"


def fed(pieces: Iterable[bytes]) -> Answer:
    """An answer that was given these pieces."""
    answer = Answer()
    for piece in pieces:
        answer.feed(piece)
    return answer


@given(st.lists(st.integers(0, len(GOOD)), max_size=6))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    """However the bytes are cut, the same answer comes out, and only at the end is it complete."""
    edges = [0, *sorted(cuts), len(GOOD)]
    answer = fed(GOOD[start:end] for start, end in itertools.pairwise(edges))

    assert answer.complete
    assert (answer.status, answer.body) == (201, b"hello")
    assert answer.headers == {"content-length": "5", "x-a": "b"}
    assert not fed([GOOD[:-1]]).complete


def test_what_the_daemon_could_not_read_is_answered_in_an_older_version() -> None:
    """As for a token too long for a header: the problem is read, not called something else."""
    answer = fed([b"HTTP/1.0 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}"])

    assert answer.complete
    assert (answer.status, answer.body) == (400, b"{}")


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for(data: bytes) -> None:
    """Whatever comes: no other error than ours, and never an answer that was not complete."""
    answer = Answer()
    try:
        answer.feed(data)
    except BadAnswer:
        return
    if answer.complete:
        assert data.startswith((b"HTTP/1.1 ", b"HTTP/1.0 "))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.0 200 OK\r\n\r\n", "how long"),
        (b"HTTP/1.1 2000\r\nContent-Length: 0\r\n\r\n", "not HTTP/1.1"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "how long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "how long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n", "how long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "longer than"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "how long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "repeated"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "malformed"),
        (b"x" * (LONGEST_HEAD + 1), "too long"),
    ],
)
def test_what_the_daemon_never_sends_is_refused(data: bytes, sentence: str) -> None:
    """One meaning or none."""
    with pytest.raises(BadAnswer, match=sentence):
        fed([data])


@pytest.mark.parametrize(
    ("target", "value"), [("/v1 /x", "a"), ("/v1\r\nX: y", "a"), ("/v1", "a\r\nX: y"), ("/v1", "é")]
)
def test_a_request_stays_on_its_lines(target: str, value: str) -> None:
    """Nothing that a caller passes in can add a header or a request."""
    with pytest.raises(ValueError, match="printable ASCII"):
        encode("GET", target, {"A": value}, b"")


def test_a_request_asks_for_one_answer() -> None:
    """One request, one connection; the length is always said."""
    assert encode("POST", "/v1/tasks", {"A": "b"}, b"{}") == (
        b"POST /v1/tasks HTTP/1.1\r\nHost: taskmint\r\nConnection: close\r\nContent-Length: 2\r\n"
        b"A: b\r\n\r\n{}"
    )
