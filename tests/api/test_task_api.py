"""The task socket, over real HTTP: what comes in badly is answered well (issue row: bad input)."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from taskmint.errors import Code
from taskmint.ports import Event

from api.server import HEADERS, Answer, Http, task_socket
from fakes.vault import away, refused
from tasks.world import REPORT

START = {"task": "report", "parameters": {"region": "eu"}, "purpose": "nightly"}


@pytest_asyncio.fixture
async def http(tmp_path: Path) -> AsyncIterator[Http]:
    """A task socket of its own for each test."""
    async with task_socket(tmp_path) as running:
        yield running


def assert_problem(answer: Answer, status: int, code: Code) -> None:
    """RFC 9457, with our code, a fix and Vault's errors array."""
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.body["code"] == code
    assert answer.body["type"] == f"urn:taskmint:error:{code}"
    assert answer.body["status"] == status
    assert answer.body["errors"] == [answer.body["detail"]]
    assert answer.body["fix"]


async def test_a_whole_task_over_http(http: Http) -> None:
    """201 with credentials, heartbeat, state, DELETE with proof."""
    started = await http.ask("POST", "/v1/tasks", json=START)
    task = started.body["id"]
    beat = await http.ask("POST", f"/v1/tasks/{task}/heartbeat")
    shown = await http.ask("GET", f"/v1/tasks/{task}")
    ended = await http.ask("DELETE", f"/v1/tasks/{task}?outcome=failed")

    assert started.status == 201
    assert started.body["credentials"]["warehouse"]["data"]["username"] == "u"
    assert started.body["credentials"]["warehouse"]["revocable"] is True
    assert started.body["expires_at"].endswith("Z")
    assert started.body["heartbeat_seconds"] == 60
    assert beat.body["credentials"] is None
    assert shown.body["state"] == "active"
    assert (ended.status, ended.body["state"], ended.body["end_cause"]) == (
        200,
        "revoked",
        "failed",
    )
    assert http.world.vault.alive == set()


async def test_each_answer_names_its_request_and_what_it_set_in_motion_does_too(
    http: Http, capsys: pytest.CaptureFixture[str]
) -> None:
    """X-Request-Id of the answer stands as `request` in the log, the revocation included."""
    started = await http.ask("POST", "/v1/tasks", json=START)
    task = started.body["id"]
    ended = await http.ask("DELETE", f"/v1/tasks/{task}")
    refused = await http.ask("GET", "/v1/tasks/tm_none")
    numbers = [one.headers["X-Request-Id"] for one in (started, ended, refused)]
    lines = capsys.readouterr().out.splitlines()

    assert len(set(numbers)) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", number) for number in numbers)
    (line,) = [line for line in lines if "task_started" in line]
    assert numbers[0] in line
    for event in ("task_ending", "task_revoked"):
        (line,) = [line for line in lines if event in line]
        assert numbers[1] in line


async def test_an_end_that_is_not_proven_yet_is_answered_202(http: Http) -> None:
    """The task stays `revoking`; asking again later gives the proof."""
    task = (await http.ask("POST", "/v1/tasks", json=START)).body["id"]
    http.world.vault.stubborn = True
    ended = await http.ask("DELETE", f"/v1/tasks/{task}")
    http.world.vault.stubborn = False
    shown = await http.ask("GET", f"/v1/tasks/{task}?wait=30s")

    assert (ended.status, ended.body["state"]) == (202, "revoking")
    assert shown.body["state"] == "revoked"


async def test_waiting_for_the_end_answers_when_it_comes(http: Http) -> None:
    """`?wait=` is a long poll."""
    task = (await http.ask("POST", "/v1/tasks", json=START)).body["id"]
    waiting = asyncio.create_task(http.ask("GET", f"/v1/tasks/{task}?wait=30s"))
    await asyncio.sleep(0)
    http.world.processes.watches[0].exit()

    assert (await waiting).body["state"] == "revoked"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b'{"task": "report", "task": "report"}',
        b'{"task": "report", "parameters": {"region": "eu", "region": "us"}}',
        b'{"task": "report", "surprise": 1}',
        b'{"task": 7}',
        b'{"task": "report", "ttl_seconds": NaN}',
        b'{"task": "report", "ttl_seconds": Infinity}',
        b'{"task": "report", "ttl_seconds": 1e999}',
        b'{"task": "report", "ttl_seconds": -5}',
        b'{"task": "report", "ttl_seconds": true}',
        b'{"task": "report", "ttl_seconds": 1.5}',
        b'{"task": "report", "ttl_seconds": ' + b"9" * 5000 + b"}",
        b'{"task": "report", "purpose": "\\ud800"}',
        b'{"task": "report", "purpose": "a\\u0000b"}',
        b'{"task": "report", "bind": "everything"}',
        b'{"task": "report", "context": {"a/b": "c"}}',
        json.dumps({"task": "report", "purpose": "x" * 257}).encode(),
        json.dumps({"task": "report", "context": {f"k{i}": "v" for i in range(17)}}).encode(),
        b"[" * 50_000,
        b'{"task": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
        b"\xff\xfe",
    ],
)
async def test_a_body_that_cannot_be_read_is_400(http: Http, body: bytes) -> None:
    """One stable code, a sentence that says what to do, no half-started task."""
    answer = await http.ask("POST", "/v1/tasks", data=body)

    assert_problem(answer, 400, Code.MALFORMED_REQUEST)
    assert http.world.vault.calls == []
    assert http.world.ledger.events() == []


@pytest.mark.parametrize(
    "shown",
    [
        ["Basic L2pvYjp4"],
        ["DPoP /job"],
        ["Bearer"],
        ["Bearer "],
        [""],
        ["/job"],
        ["Bearer /job", "Bearer /job"],
        ["Bearer /job", "Basic L2pvYjp4"],
    ],
)
async def test_another_credential_is_not_the_same_as_none(http: Http, shown: list[str]) -> None:
    """With delegation the agent would be asked who else that may be; refused, and in a row."""
    headers = [("X-Taskmint-Request", "true"), *(("Authorization", value) for value in shown)]
    answer = await http.ask("POST", "/v1/tasks", json=START, headers=headers)
    async with asyncio.timeout(5):
        while not http.world.ledger.entries:
            await asyncio.sleep(0.01)

    assert_problem(answer, 401, Code.CREDENTIAL_INVALID)
    [entry] = http.world.ledger.entries
    assert entry.facts["code"] == Code.CREDENTIAL_INVALID
    assert "/job" not in str(entry)


async def test_a_body_over_the_cap_is_413(http: Http) -> None:
    """64 KiB is the default cap."""
    answer = await http.ask("POST", "/v1/tasks", data=b" " * 70_000)

    assert_problem(answer, 413, Code.BODY_TOO_LARGE)


async def test_a_compressed_body_is_415(http: Http) -> None:
    """Bodies are not decompressed: a bomb stays small."""
    headers = {**HEADERS, "Content-Encoding": "gzip"}
    answer = await http.ask("POST", "/v1/tasks", data=b"\x1f\x8b", headers=headers)

    assert_problem(answer, 415, Code.ENCODING_NOT_SUPPORTED)


@pytest.mark.parametrize("value", [None, "1", "TRUE", ""])
async def test_without_the_header_nothing_is_read(http: Http, value: str | None) -> None:
    """The guard against forged requests comes before identity and body."""
    headers = {} if value is None else {"X-Taskmint-Request": value}
    for method, path in (("POST", "/v1/tasks"), ("GET", "/v1/health"), ("GET", "/nowhere")):
        answer = await http.ask(method, path, headers=headers)

        assert_problem(answer, 400, Code.REQUEST_HEADER_MISSING)


async def test_without_a_credential_it_is_401(http: Http) -> None:
    """The identity's refusal comes through, with the challenge."""
    headers = {"X-Taskmint-Request": "true"}
    answer = await http.ask("POST", "/v1/tasks", json=START, headers=headers)

    assert_problem(answer, 401, Code.CREDENTIAL_MISSING)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    [entry] = http.world.ledger.entries
    assert (entry.event, entry.facts["code"]) == (Event.UNPROVEN, "credential_missing")
    assert (entry.facts["uid"], entry.facts["pid"]) == (os.getuid(), os.getpid())


async def test_p12_credentials_reach_no_heir_of_a_socket(http: Http) -> None:
    """The process that asked exited while we minted: whoever holds its socket gets a 401."""
    http.identity.gone_when_asked_again = True
    answer = await http.ask("POST", "/v1/tasks", json=START)

    assert_problem(answer, 401, Code.PEER_UNATTESTED)
    async with asyncio.timeout(10):
        while http.world.ledger.events()[-1] != "revoked":
            await asyncio.sleep(0.01)


async def test_credentials_are_shown_to_no_heir_of_a_socket(http: Http) -> None:
    """The same for a look at a task within its delivery window."""
    keyed = {**HEADERS, "Idempotency-Key": "k"}
    task = (await http.ask("POST", "/v1/tasks", json=START, headers=keyed)).body
    http.identity.gone_when_asked_again = True
    answer = await http.ask("GET", f"/v1/tasks/{task['id']}")

    assert_problem(answer, 401, Code.PEER_UNATTESTED)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"task": "unknown"}, 403, Code.NOT_PERMITTED),
        ({"parameters": {"region": "mars"}}, 422, Code.PARAMETER_INVALID),
        ({"parameters": {}}, 422, Code.PARAMETER_INVALID),
        ({"parameters": {"region": "eu", "extra": 1}}, 422, Code.PARAMETER_INVALID),
        ({"ttl_seconds": 7200}, 422, Code.TTL_EXCEEDS_POLICY),
        ({"bind": "unit"}, 422, Code.BIND_REFUSED),
    ],
)
async def test_what_the_policy_refuses_has_its_status(
    http: Http, change: dict[str, Any], status: int, code: Code
) -> None:
    """403 without an oracle, 422 for what is out of range."""
    answer = await http.ask("POST", "/v1/tasks", json={**START, **change})

    assert_problem(answer, status, code)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(refused(), 502, Code.VAULT_ERROR), (away(), 503, Code.VAULT_UNAVAILABLE)],
)
async def test_a_failing_vault_is_502_and_an_absent_one_503(
    http: Http, fault: Exception, status: int, code: Code
) -> None:
    """An absent dependency says when to retry."""
    http.world.vault.faults["create_task_token"].append(fault)
    answer = await http.ask("POST", "/v1/tasks", json=START)

    assert_problem(answer, status, code)
    assert ("Retry-After" in answer.headers) is (status == 503)


async def test_p10_over_a_limit_the_answer_is_429_and_says_when_to_come_again(
    tmp_path: Path,
) -> None:
    """P10: over HTTP, as any client reads it."""
    text = REPORT.replace("ends:", "limits: {concurrent_per_identity: 1}\n    ends:")
    async with task_socket(tmp_path, text) as http:
        first = await http.ask("POST", "/v1/tasks", json=START)
        answer = await http.ask("POST", "/v1/tasks", json=START)

        assert first.status == 201
        assert_problem(answer, 429, Code.LIMIT_EXCEEDED)
        assert int(answer.headers["Retry-After"]) >= 1


async def test_p7_a_ledger_that_cannot_write_answers_503_and_ends_go_on(http: Http) -> None:
    """P7, row 65: no new task, a time to come again, and the old one is still taken back."""
    task = (await http.ask("POST", "/v1/tasks", json=START)).body["id"]
    http.world.ledger.full = True
    refused_start = await http.ask("POST", "/v1/tasks", json=START)
    ended = await http.ask("DELETE", f"/v1/tasks/{task}")
    http.world.ledger.full = False

    assert_problem(refused_start, 503, Code.LEDGER_UNAVAILABLE)
    assert int(refused_start.headers["Retry-After"]) >= 1
    assert (ended.status, ended.body["state"]) == (200, "revoked")
    assert http.world.vault.alive == set()


@pytest.mark.parametrize("half_closes", [False, True])
async def test_credentials_for_whoever_hung_up_are_taken_back(
    http: Http, *, half_closes: bool
) -> None:
    """Nobody can ask for them again without a key, also when it had closed its own side before."""
    http.world.vault.gates["create_task_token"] = gate = asyncio.Event()
    body = json.dumps(START).encode()
    lines = ["POST /v1/tasks HTTP/1.1", "Host: t", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in HEADERS.items()]
    _, writer = await asyncio.open_unix_connection(http.path)
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
    async with asyncio.timeout(10):
        while "create_task_token" not in http.world.vault.calls:
            await asyncio.sleep(0.01)
        if half_closes:
            writer.write_eof()
            await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.1)
        gate.set()
        while "revoked" not in http.world.ledger.events():
            await asyncio.sleep(0.01)

    assert http.world.vault.alive == set()


async def test_two_acknowledgements_at_once_change_nothing_more_than_one(http: Http) -> None:
    """An honest retry, or a caller that means harm: the daemon goes on."""
    started = await http.ask("POST", "/v1/tasks", json=START)
    task = f"/v1/tasks/{started.body['id']}"
    await http.ask("PATCH", task)
    beats = [http.ask("POST", f"{task}/heartbeat?revision=2") for _ in range(4)]
    assert {beat.status for beat in await asyncio.gather(*beats)} == {200}
    ended = await http.ask("DELETE", f"{task}?wait=10s")

    assert ended.body["state"] == "revoked"
    assert http.world.crashes == []


async def test_row_47_ends_and_heartbeats_out_of_order(http: Http) -> None:
    """Row 47: an end before a begin, twice, with another outcome; a heartbeat and a PATCH after."""
    nothing = await http.ask("DELETE", "/v1/tasks/tm_00000000000000000000000000")
    task = (await http.ask("POST", "/v1/tasks", json=START)).body["id"]
    once = await http.ask("DELETE", f"/v1/tasks/{task}?outcome=failed")
    twice = await http.ask("DELETE", f"/v1/tasks/{task}?outcome=succeeded")
    beat = await http.ask("POST", f"/v1/tasks/{task}/heartbeat")
    change = await http.ask("PATCH", f"/v1/tasks/{task}", json={"parameters": {"region": "us"}})

    assert_problem(nothing, 404, Code.TASK_NOT_FOUND)
    assert (once.status, once.body["end_cause"]) == (200, "failed")
    assert (twice.status, twice.body["end_cause"]) == (200, "failed")  # the first one won
    assert_problem(beat, 409, Code.TASK_ENDED)
    assert_problem(change, 409, Code.TASK_ENDED)
    assert http.world.vault.calls.count("create_task_token") == 1


async def test_row_46_no_call_takes_a_lease_id(http: Http) -> None:
    """Row 46: what to revoke or renew is never the caller's word."""
    lease = {"lease_id": "database/creds/orders-ro-eu/abc"}
    start = await http.ask("POST", "/v1/tasks", json={**START, **lease})
    task = (await http.ask("POST", "/v1/tasks", json=START)).body["id"]
    change = await http.ask("PATCH", f"/v1/tasks/{task}", json=lease)

    assert_problem(start, 400, Code.MALFORMED_REQUEST)
    assert_problem(change, 400, Code.MALFORMED_REQUEST)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, Code.PATH_NOT_FOUND),
        ("GET", "/v1/tasks", 405, Code.METHOD_NOT_ALLOWED),
        ("PUT", "/v1/tasks/x", 405, Code.METHOD_NOT_ALLOWED),
        ("GET", "/v1/tasks/tm_00000000000000000000000000", 404, Code.TASK_NOT_FOUND),
        ("GET", "/v1/tasks/..%2F..%2Fsys", 404, Code.TASK_NOT_FOUND),
        ("DELETE", "/v1/tasks/x?outcome=maybe", 400, Code.MALFORMED_REQUEST),
        ("GET", "/v1/tasks/x?wait=forever", 400, Code.MALFORMED_REQUEST),
    ],
)
async def test_paths_methods_and_queries(
    http: Http, method: str, path: str, status: int, code: Code
) -> None:
    """Whatever the router refuses is a problem document as well."""
    assert_problem(await http.ask(method, path), status, code)


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256])
async def test_a_bad_idempotency_key_is_400(http: Http, key: str) -> None:
    """1 to 255 visible ASCII characters."""
    headers = {**HEADERS, "Idempotency-Key": key}
    answer = await http.ask("POST", "/v1/tasks", json=START, headers=headers)

    assert_problem(answer, 400, Code.MALFORMED_REQUEST)


async def test_the_body_is_compared_canonically_under_a_key(http: Http) -> None:
    """Order and spacing do not make another request (RFC 8785); a value does."""
    headers = {**HEADERS, "Idempotency-Key": "k"}
    first = await http.ask("POST", "/v1/tasks", json=START, headers=headers)
    turned = json.dumps(dict(reversed(START.items())), indent=3).encode()
    second = await http.ask("POST", "/v1/tasks", data=turned, headers=headers)
    other = await http.ask("POST", "/v1/tasks", json={**START, "purpose": "else"}, headers=headers)

    assert first.body["id"] == second.body["id"]
    assert_problem(other, 409, Code.IDEMPOTENCY_MISMATCH)


async def test_health_and_readiness_need_no_identity(http: Http) -> None:
    """Live is 200; ready is 503 with the reason of whatever is away."""
    headers = {"X-Taskmint-Request": "true"}
    assert (await http.ask("GET", "/v1/health", headers=headers)).body == {"status": "live"}
    assert (await http.ask("GET", "/v1/ready", headers=headers)).status == 200
    http.world.vault.not_ready = "sealed"
    answer = await http.ask("GET", "/v1/ready", headers=headers)

    assert answer.status == 503
    assert answer.body["components"]["vault"] == {"status": "not_ready", "reason": "sealed"}


async def test_a_mistake_of_ours_is_500_and_shows_nothing(http: Http) -> None:
    """No traceback, no exception text: both may carry secrets."""
    http.world.vault.faults["mint"].append(ZeroDivisionError("canary-internals"))
    answer = await http.ask("POST", "/v1/tasks", json=START)

    assert_problem(answer, 500, Code.INTERNAL_ERROR)
    assert "canary" not in json.dumps(answer.body)
    assert isinstance(http.world.crashes.pop(), ZeroDivisionError)


async def test_garbage_on_the_wire_is_400_and_closed(http: Http) -> None:
    """What is not HTTP is answered once, and the connection is over."""
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ):
        reader, writer = await asyncio.open_unix_connection(http.path)
        writer.write(garbage + b"\r\n\r\n")
        reply = await reader.read()
        writer.close()

        assert reply.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
        assert b"Traceback" not in reply
