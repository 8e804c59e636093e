"""Tokens from the Workload API: endpoints, messages, and every way of getting none."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spiffe._proto import workload_pb2

from taskmint.client import svid
from taskmint.client.errors import NoIdentity
from taskmint.client.protobuf import first_jwt_svid, jwt_svid_request
from taskmint.client.workload_api import WorkloadApi

from fakes.spiffe_agent import FakeAgent, unsigned_token


@given(st.text(max_size=300))
def test_requests_are_what_protobuf_writes(audience: str) -> None:
    """The request equals that of the generated code."""
    expected = workload_pb2.JWTSVIDRequest(audience=[audience]).SerializeToString()

    assert jwt_svid_request(audience) == expected


@given(st.lists(st.tuples(st.text(max_size=20), st.text("abc.-_", max_size=300)), min_size=1))
def test_answers_are_what_protobuf_reads(svids: list[tuple[str, str]]) -> None:
    """The first token of an answer with any number of identities."""
    svids = [(name, token or "t") for name, token in svids]
    message = workload_pb2.JWTSVIDResponse(
        svids=[workload_pb2.JWTSVID(spiffe_id=name, svid=token, hint="h") for name, token in svids]
    )

    assert first_jwt_svid(message.SerializeToString()) == svids[0][1]


@given(st.binary(max_size=60))
def test_other_messages_are_refused(message: bytes) -> None:
    """Whatever comes, a ValueError or a token."""
    with contextlib.suppress(ValueError):
        svid.read(message)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("unix:///run/a.sock", ("/run/a.sock", "", 0)),
        ("unix:/run/a.sock", ("/run/a.sock", "", 0)),
        ("tcp://127.0.0.1:8081", (None, "127.0.0.1", 8081)),
        ("tcp://[::1]:8081", (None, "::1", 8081)),
    ],
)
def test_endpoints(text: str, where: tuple[str | None, str, int]) -> None:
    """The forms of the SPIFFE Workload Endpoint, section 4."""
    assert svid.endpoint(text) == where


@pytest.mark.parametrize(
    "text", ["/run/a.sock", "unix:a.sock", "tcp://x", "http://x:1", "tcp://:1"]
)
def test_what_is_no_endpoint(text: str) -> None:
    """Said with what to write instead."""
    with pytest.raises(NoIdentity, match="no endpoint") as raised:
        svid.endpoint(text)

    assert "unix:///" in raised.value.fix


async def test_a_token_is_kept_for_half_its_life(agent: FakeAgent) -> None:
    """Asked again only then, or when the caller wants a fresh one."""
    source = WorkloadApi(agent.endpoint)
    first = await source.token()
    assert await source.token() == first
    assert await source.token(fresh=True) != first

    agent.life_seconds = 0.0
    await source.token(fresh=True)
    before = len(agent.requests)
    await source.token()
    assert len(agent.requests) == before + 1


async def test_what_is_asked(agent: FakeAgent) -> None:
    """Our audience, and the header that guards the Workload API."""
    await WorkloadApi(agent.endpoint).token()

    assert agent.requests == [["taskmint"]]
    assert agent.metadata["workload.spiffe.io"] == "true"


async def test_an_answer_of_several_frames(agent: FakeAgent) -> None:
    """An answer larger than one HTTP/2 frame is put together."""
    agent.padding = 40_000

    assert await WorkloadApi(agent.endpoint).token() == agent.tokens[0]


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "issues no identity"),
        (grpc.StatusCode.UNAVAILABLE, "starting up"),
        (grpc.StatusCode.INVALID_ARGUMENT, "starting up"),
    ],
)
async def test_a_refusal_is_a_sentence(
    agent: FakeAgent, status: grpc.StatusCode, sentence: str
) -> None:
    """What the agent said, and what to do."""
    agent.refusal = (status, "starting up")
    with pytest.raises(NoIdentity, match=sentence) as raised:
        await WorkloadApi(agent.endpoint).token()

    assert raised.value.fix


@contextlib.asynccontextmanager
async def something_else(path: Path, says: bytes) -> AsyncIterator[None]:
    """A server that says a few bytes and hangs up, or says nothing at all."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        writer.close()

    server = await asyncio.start_unix_server(answer, path)
    async with server:
        yield


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n" * 40])
async def test_something_else_on_the_socket(tmp_path: Path, says: bytes) -> None:
    """Not an agent: a sentence, no traceback."""
    async with something_else(tmp_path / "other.sock", says):
        with pytest.raises(NoIdentity, match="Workload API at"):
            await WorkloadApi(f"unix://{tmp_path}/other.sock").token()


async def test_an_endpoint_on_tcp(agent: FakeAgent) -> None:
    """The other transport of the standard: here a relay to the same agent."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = agent.endpoint.removeprefix("unix://")
        back, forth = await asyncio.open_unix_connection(path)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(4096):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, forth), pump(back, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        token = await WorkloadApi(f"tcp://127.0.0.1:{port}").token()

    assert token == agent.tokens[0]


@pytest.mark.parametrize("token", ["a.b", "a.!.c", "a.e30.c", "a.W10.c", "a.eyJleHAiOiJ4In0.c"])
def test_a_token_without_an_expiry_is_refused(token: str) -> None:
    """A wrong number of parts, no base64, no expiry, no object, no number."""
    message = workload_pb2.JWTSVIDResponse(svids=[workload_pb2.JWTSVID(svid=token)])
    with pytest.raises(ValueError, match=r"."):
        svid.read(message.SerializeToString())


def test_a_token_does_not_print() -> None:
    """It is a bearer token: a log line must not hold it."""
    token = unsigned_token(0, 60)

    assert token not in repr(svid.Svid(token, 0.0))
