"""Requests that are none: answered like every refusal, counted, told of in a few lines."""

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from taskmint.api.listener import Listener, ListenerLimits
from taskmint.api.metrics_listener import serving_metrics
from taskmint.api.serving import serving_http
from taskmint.api.unreadable import LINES
from taskmint.errors import Code
from taskmint.identity.peers import PeerReader

from api.server import task_socket

CANARY = b"canary"
START = b"POST /v1/tasks HTTP/1.1\r\nHost: t\r\nX-Taskmint-Request: true\r\n"
GARBAGE = b"GET / HTTP/1.1\r\ncanary without a colon\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """What came back, and whether the connection was closed behind it."""

    status: int
    headers: dict[str, str]
    body: bytes


def read(raw: bytes) -> Answer:
    """Take one answer apart; nothing may follow it."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(body) == int(headers["content-length"])
    return Answer(int(status_line.split()[1]), headers, body)


async def say(path: str, sent: bytes) -> bytes:
    """Send on a connection of its own; returns all that comes until it is closed."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


@dataclass(frozen=True)
class Served:
    """A door behind which every body is read."""

    path: str
    listener: Listener
    entered: asyncio.Event


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[Served]:
    """Serve `POST /`."""
    path, entered = str(directory / "door"), asyncio.Event()

    async def body(request: web.Request) -> web.Response:
        entered.set()
        return web.Response(body=await request.read())

    app = web.Application()
    app.add_routes([web.post("/", body)])
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        async with serving_http(
            listening,
            lambda _: app,
            limits=ListenerLimits(drain=1),
            reader=PeerReader(),
            inherited=False,
        ) as listener:
            yield Served(path, listener, entered)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(GARBAGE, id="no header"),
        pytest.param(b"canary\r\n\r\n", id="no request line"),
        pytest.param(b"\x00\x01\x02canary", id="no text"),
        pytest.param(b"GET http://[canary HTTP/1.1\r\nHost: t\r\n\r\n", id="no target"),
        pytest.param(
            START + b"Authorization: Bearer " + CANARY * 2000 + b"\r\n\r\n", id="too long"
        ),
        pytest.param(START + b"".join(b"A%d: canary\r\n" % n for n in range(200)), id="too many"),
        pytest.param(START + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", id="two lengths"),
        pytest.param(START + b"Content-Length: -1\r\n\r\n{}", id="a length below nothing"),
        pytest.param(START + b"Transfer-Encoding: chunked\r\n\r\ncanary\r\n", id="no chunk"),
        pytest.param(START + b"Expect: canary\r\nContent-Length: 0\r\n\r\n", id="expects too much"),
        pytest.param(b"GET /x HTTP/1.1\r\nHost: t\r\nExpect: canary\r\n\r\n", id="on no path"),
    ],
)
async def test_what_cannot_be_read_is_a_problem_like_any_other(tmp_path: Path, sent: bytes) -> None:
    """RFC 9457, a code, a number that the log has too; not a word of what was sent; then closed."""
    with capture_logs() as lines:
        async with task_socket(tmp_path) as http:
            answer = read(await say(http.path, sent))
    problem = json.loads(answer.body)

    assert (answer.status, problem["status"]) == (400, 400)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["code"] == Code.MALFORMED_REQUEST
    assert problem["detail"]
    assert problem["fix"]
    assert CANARY not in answer.body
    [line] = [one for one in lines if one["event"] == "request_unreadable"]
    assert line["request"] == answer.headers["x-request-id"]
    assert (line["uid"], line["pid"]) == (os.getuid(), os.getpid())
    assert "canary" not in str(line)


async def test_p10_a_flood_of_garbage_is_counted_and_fills_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """P10: each is answered and counted; few are told of, and no traceback comes."""
    with capture_logs() as lines:
        async with served(tmp_path) as door:
            for _ in range(LINES * 3):
                assert read(await say(door.path, GARBAGE)).status == 400
            assert door.listener.counts.unreadable == LINES * 3

    assert len(lines) == LINES
    assert {line["log_level"] for line in lines} == {"warning"}
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


async def test_garbage_after_a_good_request_ends_the_connection(tmp_path: Path) -> None:
    """The request was answered; what follows is refused, and nothing after it is listened to."""
    async with served(tmp_path) as door:
        reader, writer = await asyncio.open_unix_connection(door.path)
        writer.write(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\ngood")
        async with asyncio.timeout(5):
            first = await reader.readuntil(b"good")
            writer.write(GARBAGE + GARBAGE)
            second = read(await reader.read())
        writer.close()

    assert first.startswith(b"HTTP/1.1 200 OK")
    assert second.status == 400


async def test_who_hangs_up_within_a_body_is_no_error_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Everybody may do that as often as they like: nothing is logged."""
    with capture_logs() as lines:
        async with served(tmp_path) as door:
            _, writer = await asyncio.open_unix_connection(door.path)
            writer.write(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf")
            await door.entered.wait()
            writer.close()
            async with asyncio.timeout(5):
                while door.listener.connections:
                    await asyncio.sleep(0.01)

    assert lines == []
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


async def test_garbage_on_the_metrics_port_is_no_traceback_either(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same answer and the same few lines; TCP does not say whose it was."""
    with capture_logs() as lines:
        async with serving_metrics("127.0.0.1:0", _page) as where:
            for _ in range(LINES + 1):
                reader, writer = await asyncio.open_connection(*where)
                writer.write(GARBAGE)
                async with asyncio.timeout(5):
                    answer = read(await reader.read())
                writer.close()
                assert json.loads(answer.body)["code"] == Code.MALFORMED_REQUEST

    told = [line for line in lines if line["event"] == "request_unreadable"]
    assert len(told) == LINES
    assert "uid" not in told[0]
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


async def _page() -> bytes:
    return b"# nothing\n"
