"""Approvals over HTTP and from the command line: 202, what is shown, what is signed, by whom."""

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest_asyncio

from taskmint.api.roles import Members, Role
from taskmint.canonical import digest
from taskmint.identity.approver_keys import read_jwk_set
from taskmint.identity.approvers import ApproverRecord, Approvers, directory_of
from taskmint.model.scope import RequestFacts
from taskmint.tasks.task import IdempotencyKey
from taskmint.tasks.views import TaskView

from api.server import HEADERS, Http, admin_socket, task_socket
from tasks.approvals import (
    ANN,
    BOB,
    PEOPLE,
    a_world,
    asked,
    policy_text,
    says,
)
from tasks.world import caller

KEYED = {**HEADERS, "Idempotency-Key": "k1"}
BODY = {"task": "report", "parameters": {"region": "eu"}, "purpose": "nightly"}
MINE = Members(uids=frozenset({os.getuid()}))
APPROVER = {Role.APPROVER: MINE}


async def test_202_with_what_to_show_then_201(tmp_path: Path) -> None:
    """The whole way over the task socket: asked, waited for, followed, collected; by the caller."""
    world = a_world()
    async with task_socket(tmp_path, policy_text(quorum=1), world) as http:
        first = await http.ask("POST", "/v1/tasks", json=BODY, headers=KEYED)
        assert first.status == 202
        shown = first.body["approval"]
        assert first.body["state"] == "awaiting_approval"
        assert first.body["credentials"] is None
        assert shown["plan"]["purpose"] == "nightly"
        assert digest(shown["plan"]) == shown["scope_digest"]
        task = f"/v1/tasks/{first.body['id']}"
        waiting = asyncio.create_task(http.ask("GET", f"{task}?wait=10s"))
        view = await http.service.show(caller(uid=os.getuid()), first.body["id"], timedelta())
        await http.service.approving.receive(0, says(world, view, BOB))
        assert (await waiting).body["state"] == "approved"
        last = await http.ask("POST", "/v1/tasks", json=BODY, headers=KEYED)
        assert (last.status, last.body["id"]) == (201, first.body["id"])
        assert last.body["approval"] is None
        assert last.body["credentials"]
        other = {**BODY, "purpose": "another"}
        assert (await http.ask("POST", "/v1/tasks", json=other, headers=KEYED)).status == 409


async def test_without_a_key_it_is_malformed_and_cancelled_it_is_over(tmp_path: Path) -> None:
    """400 with what to send instead; DELETE answers 200 at once, for nothing is to be revoked."""
    async with task_socket(tmp_path, policy_text(), a_world()) as http:
        bare = await http.ask("POST", "/v1/tasks", json=BODY)
        assert (bare.status, bare.body["code"]) == (400, "malformed_request")
        first = await http.ask("POST", "/v1/tasks", json=BODY, headers=KEYED)
        task = f"/v1/tasks/{first.body['id']}"
        beat = await http.ask("POST", f"{task}/heartbeat")
        assert (beat.status, beat.body["code"]) == (409, "task_changing")
        ended = await http.ask("DELETE", f"{task}?outcome=cancelled")
        assert (ended.status, ended.body["state"]) == (200, "failed")
        again = await http.ask("POST", "/v1/tasks", json=BODY, headers=KEYED)
        assert (again.status, again.body["code"]) == (409, "task_ended")


async def test_the_stream_of_a_request_tells_of_its_approval(tmp_path: Path) -> None:
    """Server-sent events, until it is over."""
    world = a_world()
    async with task_socket(tmp_path, policy_text(quorum=1), world) as http:
        first = await http.ask("POST", "/v1/tasks", json=BODY, headers=KEYED)
        url = f"http://localhost/v1/tasks/{first.body['id']}/events"
        states = []
        async with http.session.get(url, headers=HEADERS) as stream:
            async for line in stream.content:
                if line.startswith(b"data: "):
                    states.append(json.loads(line[6:])["state"])
                    if states == ["awaiting_approval"]:
                        await http.ask("DELETE", f"/v1/tasks/{first.body['id']}")

    assert states == ["awaiting_approval", "failed"]


async def test_who_may_look_and_who_may_bring(tmp_path: Path) -> None:
    """Looking needs a role; a signed statement needs none; a word by user id the approver's."""
    world = a_world()
    async with admin_socket(tmp_path, {}, text=policy_text(), world=world) as http:
        view = await asked(http.service)
        local = {
            "task": view.id, "scope_digest": "0" * 64, "policy_digest": "0" * 64,
            "outcome": "approve",
        }  # fmt: skip
        for method, path, body in (
            ("GET", "/v1/admin/approvals", None),
            ("GET", f"/v1/admin/approvals/{view.id}", None),
            ("POST", "/v1/admin/approvals/local", local),
        ):
            refused = await http.ask(method, path, json=body)
            assert (refused.status, refused.body["code"]) == (403, "role_missing")
        text = says(world, view, ANN)
        brought = await http.ask("POST", "/v1/admin/approvals", json={"statement": text})
        assert (brought.status, brought.body["approved_by"]) == (200, ["ann"])
        again = await http.ask("POST", "/v1/admin/approvals", json={"statement": text})
        assert (again.status, again.body["code"]) == (403, "approval_refused")
        forged = await http.ask("POST", "/v1/admin/approvals", json={"statement": text[:-4]})
        assert (forged.status, forged.body["code"]) == (403, "approval_invalid")
    second = tmp_path / "second"
    second.mkdir()
    async with admin_socket(second, APPROVER, text=policy_text(), world=a_world()) as http:
        view = await asked(http.service)
        refused = await http.ask("POST", "/v1/admin/approvals/local", json=local)
        assert (refused.status, refused.body["code"]) == (403, "approval_refused")
        unknown = await http.ask("GET", "/v1/admin/approvals/tm_none")
        assert (unknown.status, unknown.body["code"]) == (404, "task_not_found")


async def test_what_is_unusual_is_told(tmp_path: Path) -> None:
    """What the identity was given before, how often; and what never."""
    text = policy_text(quorum=1, automatic='request.parameters.region == "us"')
    async with admin_socket(tmp_path, APPROVER, text=text, world=a_world()) as http:
        us = RequestFacts("report", {"region": "us"})
        for number in range(2):
            await http.service.start(caller(), us, IdempotencyKey(f"k{number}", "body"))
        view = await asked(http.service)
        shown = (await http.ask("GET", f"/v1/admin/approvals/{view.id}")).body

    assert shown["unusual"] == {
        "starts": 2, "before": {}, "never": ["GET database/creds/orders-ro-eu"],
    }  # fmt: skip


async def taskmint(*arguments: str, told: str = "") -> tuple[int, str, str]:
    """Run the command as a person would."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", "approvals", *arguments),
        env={"PATH": os.environ["PATH"]},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(told.encode())
    return process.returncode or 0, out.decode(), err.decode()


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[tuple[Http, TaskView, str]]:
    """An admin socket where a request waits, and the file of an approver's new key."""
    key = tmp_path / "carol.jwk"
    _, public, _ = await taskmint("keys", "--new", str(key))
    carol = ApproverRecord("carol", key_set=public.encode(), groups=frozenset({"leads"}))
    world = a_world()
    directory = directory_of((*PEOPLE, carol))
    world.approvers = Approvers(directory, dict, world.clock, local=True)
    async with admin_socket(tmp_path, APPROVER, text=policy_text(), world=world) as http:
        yield http, await asked(http.service), str(key)


async def test_the_command_shows_signs_and_brings(desk: tuple[Http, TaskView, str]) -> None:
    """List, show, approve with a key in a file; the same again is refused with exit 1."""
    http, view, key = desk
    at = ("--socket", http.path)
    code, listed, _ = await taskmint("list", *at)
    assert (code, view.id in listed) == (0, True)
    code, shown, _ = await taskmint("show", *at, view.id)
    assert code == 0
    for text in ("spiffe://example.org/job", "nightly", "creds/orders-ro-eu", "300 s", "NEW"):
        assert text in shown
    code, out, err = await taskmint("approve", *at, view.id, "--key", f"jwk:{key}", told="y\n")
    assert (code, out) == (0, f"{view.id}: awaiting_approval, 1 of 2 have approved\n")
    assert "creds/orders-ro-eu" in err
    code, _, err = await taskmint("approve", *at, view.id, "--key", f"jwk:{key}", "--yes")
    assert code == 1
    assert "has approved already (approval_refused)" in err
    code, out, _ = await taskmint(
        "withdraw", *at, view.id, "--key", f"jwk:{key}", "--yes", "--output", "json"
    )
    assert (code, json.loads(out)["approved_by"]) == (0, [])
    code, out, _ = await taskmint("deny", *at, view.id, "--key", f"jwk:{key}", "--yes")
    assert (code, "denied" in out) == (0, True)
    assert (await taskmint("list", *at))[1] == "nothing waits for an approval\n"


async def test_a_statement_can_be_signed_elsewhere(desk: tuple[Http, TaskView, str]) -> None:
    """--print says what is to be signed, --statement brings what was; no asks, nothing signed."""
    http, view, _ = desk
    at = ("--socket", http.path)
    code, said, _ = await taskmint("approve", *at, view.id, "--print", "--valid", "5")
    assert code == 0
    text = ANN.sign(said.strip().encode())
    code, out, _ = await taskmint("approve", *at, view.id, "--statement", "-", told=text)
    assert (code, "1 of 2" in out) == (0, True)
    code, _, _ = await taskmint("approve", *at, view.id, "--key", "jwk:/none", told="n\n")
    assert code == 1
    assert (await taskmint("approve", *at, view.id))[0] == 2
    assert (await taskmint("approve", *at, view.id, "--key", "pgp:me", "--yes"))[0] == 2
    assert (await taskmint("approve", *at, view.id, "--local", "--yes"))[0] == 1


async def test_a_digest_that_is_not_the_plans_is_not_signed(
    desk: tuple[Http, TaskView, str], tmp_path: Path
) -> None:
    """What is signed is what was printed: a daemon that shows another digest gets nothing."""
    http, view, key = desk
    honest = (await http.ask("GET", f"/v1/admin/approvals/{view.id}")).body
    honest["approval"]["plan"]["scope"]["lifetime_seconds"] = 1

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(honest).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        writer.write(head.encode() + b"\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    liar = str(tmp_path / "liar.sock")
    async with await asyncio.start_unix_server(lie, liar):
        code, out, err = await taskmint(
            "approve", "--socket", liar, view.id, "--key", f"jwk:{key}", "--yes"
        )

    assert (code, out) == (1, "")
    assert "nothing was signed" in err


async def test_a_new_key_is_private_and_never_overwrites(tmp_path: Path) -> None:
    """Mode 0600; the public half goes to standard output alone."""
    path = tmp_path / "key.jwk"
    code, public, _ = await taskmint("keys", "--new", str(path))
    assert code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["d"] not in public
    (key,) = read_jwk_set(public.encode())
    assert json.loads(public)["keys"][0]["kid"] == key.thumbprint
    assert (await taskmint("keys", "--key", f"jwk:{path}"))[1] == public
    code, _, err = await taskmint("keys", "--new", str(path))
    assert (code, "File exists" in err) == (1, True)
    path.write_text("{}")
    assert (await taskmint("keys", "--key", f"jwk:{path}"))[0] == 1
