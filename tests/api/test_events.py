"""The event stream, changes and the kill switch over real HTTP."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from taskmint.api.roles import Members, Role
from taskmint.errors import Code

from api.server import HEADERS, Answer, Http, admin_socket, task_socket
from tasks.world import SHORT, ask, caller

START = {"task": "report", "parameters": {"region": "eu"}, "purpose": "nightly"}
BOUND = SHORT.replace("DEADLINE", "5m").replace("ENDS", "{connection: true}")
OPERATOR = {Role.OPERATOR: Members(uids=frozenset({os.getuid()}))}
AUDITOR = {Role.AUDITOR: Members(uids=frozenset({os.getuid()}))}


@pytest_asyncio.fixture
async def http(tmp_path: Path) -> AsyncIterator[Http]:
    """A task socket of its own for each test."""
    async with task_socket(tmp_path) as running:
        yield running


@dataclass
class Stream:
    """An open event stream, read event by event."""

    reply: aiohttp.ClientResponse

    async def event(self) -> tuple[str, dict[str, Any]]:
        """The next event: its name and its data."""
        name = data = ""
        async with asyncio.timeout(20):
            while line := (await self.reply.content.readline()).decode().rstrip("\n"):
                field, _, value = line.partition(": ")
                name, data = (value, data) if field == "event" else (name, value)
        return name, json.loads(data) if data else {}


@asynccontextmanager
async def events(http: Http, task: str, headers: dict[str, str] = HEADERS) -> AsyncIterator[Stream]:
    """Open a stream; hang up at the end."""
    url = f"http://localhost/v1/tasks/{task}/events"
    async with http.session.get(url, headers=headers) as reply:
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "text/event-stream"
        assert reply.headers["Cache-Control"] == "no-store"
        yield Stream(reply)
        reply.close()


def assert_problem(answer: Answer, status: int, code: Code) -> None:
    """Status and code."""
    assert (answer.status, answer.body.get("code")) == (status, code)


async def test_states_come_as_server_sent_events_and_the_stream_ends_with_the_task(
    http: Http,
) -> None:
    """Each event carries the task without credentials; after the last the server closes."""
    task = (await http.ask("POST", "/v1/tasks", json=START)).body["id"]
    async with events(http, task) as stream:
        name, first = await stream.event()
        assert (name, first["state"], first["guarantee"]) == ("state", "active", "kept")
        assert first["credentials"] is None
        changed = await http.ask("PATCH", f"/v1/tasks/{task}", json={})
        assert (await stream.event())[1]["revision"] == changed.body["revision"] == 2
        await http.ask("DELETE", f"/v1/tasks/{task}")
        states = [(await stream.event())[1]["state"] for _ in range(2)]

        assert states == ["revoking", "revoked"]
        assert await stream.reply.content.read() == b""


async def test_p4_hanging_up_ends_a_task_bound_to_its_stream(tmp_path: Path) -> None:
    """P4: the kernel tells the daemon; it begins to revoke within a second."""
    async with task_socket(tmp_path, BOUND) as http:
        task = (await http.ask("POST", "/v1/tasks", json=START)).body["id"]
        async with events(http, task) as stream:
            await stream.event()
            assert (await http.ask("GET", f"/v1/tasks/{task}")).body["state"] == "active"
        async with asyncio.timeout(1):
            ended = await http.ask("GET", f"/v1/tasks/{task}?wait=5s")

        assert ended.body["end_cause"] == "connection_lost"


def request_events(task: str) -> bytes:
    """An honest request for events, byte by byte."""
    lines = [f"GET /v1/tasks/{task}/events HTTP/1.1", "Host: t"]
    lines += [f"{name}: {value}" for name, value in HEADERS.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_p4_what_follows_on_a_streams_connection_cannot_hide_a_hang_up(
    tmp_path: Path,
) -> None:
    """P4: bytes that nobody reads would lie before the end of the connection; so they end it."""
    async with task_socket(tmp_path, BOUND) as http:
        task = (await http.ask("POST", "/v1/tasks", json=START)).body["id"]
        reader, writer = await asyncio.open_unix_connection(http.path)
        writer.write(request_events(task))
        await reader.readuntil(b"event: state")
        writer.write(b"G")
        async with asyncio.timeout(1):
            await reader.read()
            ended = await http.ask("GET", f"/v1/tasks/{task}?wait=5s")
        writer.close()

        assert ended.body["end_cause"] == "connection_lost"


async def test_p4_a_caller_that_closed_its_side_follows_nothing(tmp_path: Path) -> None:
    """P4: its hang-up could not be seen any more; the task goes on, for it was never followed."""
    async with task_socket(tmp_path, BOUND) as http:
        task = (await http.ask("POST", "/v1/tasks", json=START)).body["id"]
        reader, writer = await asyncio.open_unix_connection(http.path)
        writer.write(request_events(task))
        writer.write_eof()
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        shown = await http.ask("GET", f"/v1/tasks/{task}")

        assert answer.startswith(b"HTTP/1.1 400")
        assert b'"code": "malformed_request"' in answer
        assert shown.body["state"] == "active"


async def test_p4_a_stream_behind_which_too_much_waits_is_refused(tmp_path: Path) -> None:
    """P4: sent in one go, more than is read ahead; the task goes on, for it was never followed."""
    async with task_socket(tmp_path, BOUND) as http:
        task = (await http.ask("POST", "/v1/tasks", json=START)).body["id"]
        reader, writer = await asyncio.open_unix_connection(http.path)
        writer.write(request_events(task) + b"GET /v1/health HTTP/1.1\r\nHost: t\r\n\r\n" * 64)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            problem = json.loads(await reader.readuntil(b"}"))
        writer.close()
        shown = await http.ask("GET", f"/v1/tasks/{task}")

        assert head.startswith(b"HTTP/1.1 400")
        assert problem["code"] == Code.MALFORMED_REQUEST
        assert shown.body["state"] == "active"


async def test_p8_streams_are_closed_when_the_daemon_stops(tmp_path: Path) -> None:
    """The server says goodbye at once, so that a stop is not held up, and nothing is lost."""
    async with task_socket(tmp_path, BOUND) as http:
        task = (await http.ask("POST", "/v1/tasks", json=START)).body["id"]
        async with events(http, task) as stream:
            await stream.event()
            http.service.hang_up()
            async with asyncio.timeout(1):
                assert await stream.reply.content.read() == b""
        shown = await http.ask("GET", f"/v1/tasks/{task}?wait=500ms")

        assert shown.body["state"] == "active"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/tasks/tm_00000000000000000000000000/events", 404, Code.TASK_NOT_FOUND),
        ("/v1/tasks/x/events", 404, Code.TASK_NOT_FOUND),
    ],
)
async def test_a_stream_of_nothing_is_a_problem(
    http: Http, path: str, status: int, code: Code
) -> None:
    """Before the first byte of a stream, errors are what they are everywhere."""
    assert_problem(await http.ask("GET", path), status, code)


async def test_anothers_stream_is_not_there(http: Http) -> None:
    """404, as for everything of somebody else's."""
    task = (await http.ask("POST", "/v1/tasks", json=START)).body["id"]
    headers = {**HEADERS, "Authorization": "Bearer /other"}
    answer = await http.ask("GET", f"/v1/tasks/{task}/events", headers=headers)

    assert_problem(answer, 404, Code.TASK_NOT_FOUND)


# --- PATCH -----------------------------------------------------------------------------------


async def test_a_change_over_http(http: Http) -> None:
    """New credentials under the same id; GET delivers them again until they are acknowledged."""
    started = await http.ask("POST", "/v1/tasks", json=START)
    one = f"/v1/tasks/{started.body['id']}"
    body = {"parameters": {"region": "us"}, "ticket": "INC-7", "ttl_seconds": 60}
    changed = await http.ask("PATCH", one, json=body)
    shown = await http.ask("GET", one)
    beat = await http.ask("POST", f"{one}/heartbeat?revision=2")
    after = await http.ask("GET", one)

    assert changed.status == 200
    assert changed.body["revision"] == 2
    assert changed.body["credentials"] != started.body["credentials"]
    assert changed.body["expires_at"] < started.body["expires_at"]
    assert shown.body["credentials"] == changed.body["credentials"]
    assert beat.body["credentials"] is None
    assert after.body["credentials"] is None


async def test_a_change_without_a_body_issues_anew(http: Http) -> None:
    """Nothing is different but the credentials; the same key gives the same ones."""
    started = await http.ask("POST", "/v1/tasks", json=START)
    one = f"/v1/tasks/{started.body['id']}"
    headers = {**HEADERS, "Idempotency-Key": "k"}
    changed = await http.ask("PATCH", one, headers=headers)
    again = await http.ask("PATCH", one, headers=headers)
    other = await http.ask("PATCH", one, headers=headers, json={"purpose": "else"})

    assert (changed.body["revision"], again.body["revision"]) == (2, 2)
    assert_problem(other, 409, Code.IDEMPOTENCY_MISMATCH)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[]", 400, Code.MALFORMED_REQUEST),
        (b'{"task": "report"}', 400, Code.MALFORMED_REQUEST),
        (b'{"bind": "peer"}', 400, Code.MALFORMED_REQUEST),
        (b'{"ttl_seconds": 0}', 400, Code.MALFORMED_REQUEST),
        (b'{"parameters": {"region": null}}', 400, Code.MALFORMED_REQUEST),
        (b'{"parameters": {"region": "mars"}}', 422, Code.PARAMETER_INVALID),
        (b'{"parameters": {"more": "eu"}}', 422, Code.PARAMETER_INVALID),
        (b'{"ttl_seconds": 7200}', 422, Code.TTL_EXCEEDS_POLICY),
    ],
)
async def test_a_bad_change_is_refused_and_changes_nothing(
    http: Http, body: bytes, status: int, code: Code
) -> None:
    """What cannot be read is 400, what the policy refuses 422."""
    started = await http.ask("POST", "/v1/tasks", json=START)
    one = f"/v1/tasks/{started.body['id']}"

    assert_problem(await http.ask("PATCH", one, data=body), status, code)
    assert (await http.ask("GET", one)).body["revision"] == 1


@pytest.mark.parametrize("revision", ["0", "-1", "x", "1.0", "9999999999", ""])
async def test_a_bad_acknowledgement_is_400(http: Http, revision: str) -> None:
    """A number from 1."""
    started = await http.ask("POST", "/v1/tasks", json=START)
    path = f"/v1/tasks/{started.body['id']}/heartbeat?revision={revision}"

    assert_problem(await http.ask("POST", path), 400, Code.MALFORMED_REQUEST)


async def test_p4_a_change_that_an_end_overtakes_is_409(http: Http) -> None:
    """PATCH racing DELETE: nothing is handed over, nothing is left."""
    started = await http.ask("POST", "/v1/tasks", json=START)
    one = f"/v1/tasks/{started.body['id']}"
    http.world.vault.gates["mint"] = asyncio.Event()
    changing = asyncio.create_task(http.ask("PATCH", one))
    await http.world.vault.until_called("mint", times=3)
    second = await http.ask("PATCH", one)
    ending = await http.ask("DELETE", one)
    http.world.vault.gates["mint"].set()
    proven = await http.ask("GET", f"{one}?wait=20s")

    assert_problem(second, 409, Code.TASK_CHANGING)
    assert ending.status == 202
    assert_problem(await changing, 409, Code.TASK_ENDED)
    assert proven.body["state"] == "revoked"
    assert http.world.vault.alive == set()


# --- the kill switch -------------------------------------------------------------------------


async def test_the_kill_switch_over_http(tmp_path: Path) -> None:
    """202 with an order; asked again, it says that everything is proven."""
    async with admin_socket(tmp_path, OPERATOR) as http:
        view = await http.service.start(caller(), ask(), None)
        body = {"spiffe_id": "spiffe://example.org/*", "reason": "drill"}
        order = await http.ask("POST", "/v1/admin/revoke", json=body)
        assert (order.status, order.body["matched"]) == (202, 1)
        path = f"/v1/admin/revoke/{order.body['order']}"
        while (answer := await http.ask("GET", path)).body["proven"] < 1:
            assert answer.body["waiting"][0]["id"] == view.id
        assert answer.body["waiting"] == []
        signal = {"ticket": "INC-1", "cause": "external_signal"}
        assert (await http.ask("POST", "/v1/admin/revoke", json=signal)).body["matched"] == 0
        assert (await http.ask("POST", "/v1/admin/revoke", json={"all": True})).status == 202
        assert (await http.ask("POST", "/v1/admin/revoke", json={"task": view.id})).status == 202


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"all": False},
        {"all": True, "definition": "report"},
        {"spiffe_id": "example.org"},
        {"spiffe_id": "spiffe://example.org/**/x"},
        {"task": "tm_x"},
        {"definition": ""},
        {"ticket": ""},
        {"all": True, "cause": "deadline"},
        {"everything": True},
    ],
)
async def test_a_kill_switch_that_is_not_clear_ends_nothing(
    tmp_path: Path, body: dict[str, Any]
) -> None:
    """Exactly one way to select, spelled right, or 400."""
    async with admin_socket(tmp_path, OPERATOR) as http:
        await http.service.start(caller(), ask(), None)

        answer = await http.ask("POST", "/v1/admin/revoke", json=body)
        assert_problem(answer, 400, Code.MALFORMED_REQUEST)
        assert len(http.service.operators.overview()) == 1


async def test_only_an_operator_pulls_the_kill_switch(tmp_path: Path) -> None:
    """An auditor may look at an order; one that is not there is 404."""
    async with admin_socket(tmp_path, AUDITOR) as http:
        refused = await http.ask("POST", "/v1/admin/revoke", json={"all": True})

        assert_problem(refused, 403, Code.ROLE_MISSING)
        for number in ("7", "0", "x", "-1", "99999999999"):
            answer = await http.ask("GET", f"/v1/admin/revoke/{number}")
            assert_problem(answer, 404, Code.TASK_NOT_FOUND)
