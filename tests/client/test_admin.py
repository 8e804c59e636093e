"""The operator's commands: what they print, and what their exit codes mean to a monitor."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

TASK = "tm_01k00000000000000000000000"


def ready(status: str = "ready") -> dict[str, Any]:
    """A status reply as the daemon's StatusReply."""
    part = {"status": "ok", "reason": None}
    if status != "ready":
        part = {"status": "not_ready", "reason": "sealed\x1b[31m"}
    return {
        "ready": {"status": status, "components": {"vault": part}},
        "node": "n1",
        "version": "0.1.0",
        "policy_digest": "sha256:abc",
        "uptime_seconds": 61.5,
        "live_tasks": 2,
        "revoking_tasks": 0,
        "backlog": {
            "mints_waiting": 3,
            "approvals_waiting": 2,
            "revocations_unproven": 0,
            "oldest_unproven_seconds": 0.0,
            "unproven_at": {},
            "ledger_queue": 5,
        },
    }


def task_reply(number: int = 0, **more: Any) -> dict[str, Any]:
    """A task as the daemon's OperatorTask."""
    return {
        "id": TASK[:-1] + str(number),
        "definition": "orders",
        "state": "active",
        "spiffe_id": "spiffe://example.org/w",
        "uid": 1000,
        "started_seconds_ago": 12.3,
        "expires_at": "2026-11-22T00:00:00+00:00",
        "end_cause": None,
        "user_names": [],
        "revocation_attempts_failed": 0,
        "last_problem": "",
        **more,
    }


@dataclass
class FakeAdmin:
    """Answers each path with what a test put there, and keeps what it was asked."""

    socket: Path
    replies: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeAdmin"]:
        """Serve on the socket."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.UnixSite(runner, str(self.socket)).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.method, request.path, request.headers.get("X-Taskmint-Request")))
        if text := await request.text():
            self.bodies.append(json.loads(text))
        status, body = self.replies[request.path]
        kind = "application/problem+json" if status >= 400 else "application/json"
        return web.Response(status=status, body=json.dumps(body).encode(), content_type=kind)


@pytest_asyncio.fixture
async def admin(tmp_path: Path) -> AsyncIterator[FakeAdmin]:
    """An admin socket of this test alone."""
    async with FakeAdmin(tmp_path / "admin.sock").serving() as serving:
        yield serving


async def taskmint(socket: Path, *arguments: str) -> tuple[int | None, str, str]:
    """Run a command; returns code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", *arguments),
        env={**os.environ, "TASKMINT_ADMIN_SOCKET": str(socket)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_status_of_a_ready_daemon(admin: FakeAdmin) -> None:
    """0, and every component with its state; each request carries the guard header."""
    admin.replies["/v1/admin/status"] = (200, ready())
    code, out, err = await taskmint(admin.socket, "status")

    assert (code, err) == (0, "")
    assert re.search("^vault +ok$", out, re.MULTILINE)
    assert "2 live, 0 revoking" in out
    assert "3 starts wait for Vault, 5 rows for the disk, 2 requests for an approval" in out
    assert admin.asked == [("GET", "/v1/admin/status", "true")]


async def test_status_of_a_daemon_that_is_not_ready(admin: FakeAdmin) -> None:
    """1 and the reason; what a terminal would act on is replaced."""
    admin.replies["/v1/admin/status"] = (200, ready("not_ready"))
    code, out, _ = await taskmint(admin.socket, "status")

    assert code == 1
    assert "sealed\\u001b[31m" in out


async def test_json_is_what_the_daemon_said(admin: FakeAdmin) -> None:
    """--output json is for programs: nothing is left out."""
    admin.replies["/v1/admin/status"] = (200, ready())
    code, out, _ = await taskmint(admin.socket, "status", "--output", "json")

    assert code == 0
    assert json.loads(out) == ready()


async def test_tasks_are_listed(admin: FakeAdmin) -> None:
    """One line each, or a word that there is none."""
    task = task_reply()
    admin.replies["/v1/admin/tasks"] = (200, {"tasks": [task]})
    code, out, _ = await taskmint(admin.socket, "tasks")
    assert code == 0
    assert out.splitlines()[1].split()[:5] == [
        *(TASK, "active", "orders", "spiffe://example.org/w", "12s")
    ]

    admin.replies["/v1/admin/tasks"] = (200, {"tasks": []})
    assert (await taskmint(admin.socket, "tasks"))[1] == "no live tasks\n"


async def test_status_tells_of_revocations_that_are_not_proven(admin: FakeAdmin) -> None:
    """How many, for how long, and at which mount."""
    backlog = ready()["backlog"] | {
        "revocations_unproven": 4,
        "oldest_unproven_seconds": 90.2,
        "unproven_at": {"database": 4},
    }
    admin.replies["/v1/admin/status"] = (200, ready() | {"backlog": backlog})
    _, out, _ = await taskmint(admin.socket, "status")

    assert "4 unproven, the oldest for 90 s; 4 at database" in out


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        ((), "021"),
        (("--reverse",), "120"),
        (("--sort", "deadline"), "102"),
        (("--sort", "definition"), "102"),
        (("--sort", "caller"), "201"),
        (("--sort", "state"), "021"),
        (("--definition", "orders"), "02"),
        (("--caller", "/b"), "0"),
        (("--state", "revoking"), "1"),
        (("--state", "revoking", "--definition", "orders"), ""),
    ],
)
async def test_tasks_are_chosen_and_ordered(
    admin: FakeAdmin, arguments: tuple[str, ...], numbers: str
) -> None:
    """By definition, caller, state; by age unless something else is asked for. JSON alike."""
    day = "2026-11-{:02}T00:00:00+00:00"
    listed = [
        task_reply(0, started_seconds_ago=30, expires_at=day.format(2), spiffe_id="spiffe://d/b"),
        task_reply(
            1,
            started_seconds_ago=10,
            expires_at=day.format(1),
            definition="a",
            state="revoking",
            spiffe_id="spiffe://d/c",
        ),
        task_reply(2, started_seconds_ago=20, expires_at=day.format(3), spiffe_id="spiffe://d/a"),
    ]
    admin.replies["/v1/admin/tasks"] = (200, {"tasks": listed})
    _, text, _ = await taskmint(admin.socket, "tasks", *arguments)
    code, out, _ = await taskmint(admin.socket, "tasks", "--output", "json", *arguments)

    assert code == 0
    assert [task["id"][-1] for task in json.loads(out)["tasks"]] == list(numbers)
    assert re.findall(r"^tm_\w+(\d) ", text, re.MULTILINE) == list(numbers)


async def test_show_tells_everything_about_a_task(admin: FakeAdmin) -> None:
    """What is empty is left out; what a terminal would act on is replaced."""
    detail = {"purpose": "nightly\x1b[2J", "ticket": None, "context": {"run": "7"}}
    given = {"warehouse": {"kind": "secret", "path": "database/creds/ro", "proof": "sessions"}}
    reply = task_reply() | detail | {"entitlements": given}
    admin.replies[f"/v1/admin/tasks/{TASK[:-1]}0"] = (200, reply)
    code, out, _ = await taskmint(admin.socket, "show", TASK[:-1] + "0")

    assert code == 0
    assert "nightly\\u001b[2J" in out
    assert "ticket" not in out
    assert '{"run": "7"}' in out
    assert re.search("^warehouse +secret database/creds/ro, proof: sessions$", out, re.MULTILINE)


@pytest.mark.parametrize(("state", "status", "code"), [("revoked", 200, 0), ("revoking", 202, 1)])
async def test_end_says_whether_it_is_proven(
    admin: FakeAdmin, state: str, status: int, code: int
) -> None:
    """0 only when the credentials are gone."""
    reply = {"id": TASK, "state": state, "end_cause": "operator", "revocation_seconds": 0.02}
    admin.replies[f"/v1/admin/tasks/{TASK}/end"] = (status, reply)
    exit_code, out, _ = await taskmint(admin.socket, "end", TASK)

    assert exit_code == code
    assert ("20 ms" in out) == (state == "revoked")


async def test_reload_says_what_is_in_force(admin: FakeAdmin) -> None:
    """The digest, and how many tasks the narrower policy ended."""
    admin.replies["/v1/admin/reload"] = (200, {"policy_digest": "sha256:def", "ended": 3})
    code, out, _ = await taskmint(admin.socket, "reload")

    assert (code, out) == (0, "policy sha256:def is in force; 3 tasks ended\n")


async def test_a_refusal_is_1_with_code_and_fix(admin: FakeAdmin) -> None:
    """A caller without the role hears which one is missing."""
    problem = {"code": "role_missing", "detail": "uid 7 holds no role", "fix": "add it"}
    admin.replies["/v1/admin/reload"] = (403, problem)

    assert await taskmint(admin.socket, "reload") == (
        1,
        "",
        "taskmint: uid 7 holds no role (role_missing); add it\n",
    )


async def test_nobody_there_is_3(tmp_path: Path) -> None:
    """A monitor can tell an absent daemon from one that is not ready."""
    code, out, err = await taskmint(tmp_path / "nobody.sock", "status")

    assert (code, out) == (3, "")
    assert "No such file" in err


async def test_another_program_on_the_socket_is_3(admin: FakeAdmin) -> None:
    """What answers is not a daemon of this version: said in a sentence, not in a traceback."""
    admin.replies["/v1/admin/tasks"] = (200, {"tasks": [{"id": 1}]})
    assert (await taskmint(admin.socket, "tasks"))[0] == 3

    admin.replies["/v1/admin/tasks"] = (200, ["not", "an", "object"])
    code, _, err = await taskmint(admin.socket, "tasks")
    assert code == 3
    assert "not a JSON object" in err


async def test_a_wrong_task_id_is_wrong_use(admin: FakeAdmin) -> None:
    """2, and nothing is asked: no text of a caller becomes a path."""
    code, _, _ = await taskmint(admin.socket, "end", "../reload?")

    assert code == 2
    assert admin.asked == []


# --- the kill switch -------------------------------------------------------------------------


def order(proven: int, matched: int, *waiting: str) -> dict[str, Any]:
    """How far an order has come, as the daemon's OrderReply."""
    return {
        "order": 7,
        "matched": matched,
        "proven": proven,
        "unrecorded": 0,
        "waiting": [
            {"id": one, "state": "revoking", "definition": "d", "last_problem": "still there\x1b"}
            for one in waiting
        ],
    }


async def test_the_kill_switch_waits_until_everything_is_proven(admin: FakeAdmin) -> None:
    """0; progress on standard error, the result on standard output; what was asked is sent."""
    admin.replies["/v1/admin/revoke"] = (202, order(1, 2, TASK))
    admin.replies["/v1/admin/revoke/7"] = (200, order(2, 2))
    arguments = ("--spiffe-id", "spiffe://example.org/**", "--reason", "drill", "--signal")
    code, out, err = await taskmint(admin.socket, "revoke", *arguments)

    assert (code, out) == (0, "2 ended; nothing of them is left\n")
    assert err == "1 of 2 proven\n"
    assert admin.bodies[0] == {
        "spiffe_id": "spiffe://example.org/**",
        "reason": "drill",
        "cause": "external_signal",
    }


async def test_the_kill_switch_says_what_is_not_proven_in_time(admin: FakeAdmin) -> None:
    """1, and each task with its problem, printable."""
    admin.replies["/v1/admin/revoke"] = (202, order(0, 1, TASK))
    admin.replies["/v1/admin/revoke/7"] = (200, order(0, 1, TASK))
    code, out, _ = await taskmint(admin.socket, "revoke", "--all", "--timeout", "0.1")

    assert code == 1
    assert f"{TASK}  revoking  d  still there\\u001b" in out
    assert admin.bodies[0]["all"] is True


async def test_the_kill_switch_says_what_a_crash_would_forget(admin: FakeAdmin) -> None:
    """While the ledger cannot be written the order stands in memory alone: the operator is told."""
    admin.replies["/v1/admin/revoke"] = (202, {**order(0, 2, TASK), "unrecorded": 2})
    admin.replies["/v1/admin/revoke/7"] = (200, order(2, 2))
    code, _, err = await taskmint(admin.socket, "revoke", "--all")

    assert code == 0
    assert "2 of these ends are known to the daemon's memory alone" in err


async def test_the_kill_switch_that_selects_nothing_says_so(admin: FakeAdmin) -> None:
    """0: nothing is left of nothing; --output json is what the daemon said."""
    admin.replies["/v1/admin/revoke"] = (202, order(0, 0))

    assert (await taskmint(admin.socket, "revoke", "--ticket", "INC-1"))[:2] == (
        0,
        "no live task was selected\n",
    )
    code, out, _ = await taskmint(admin.socket, "revoke", "--task", TASK, "--output", "json")
    assert (code, json.loads(out)) == (0, order(0, 0))


@pytest.mark.parametrize("arguments", [(), ("--all", "--ticket", "INC-1")])
async def test_the_kill_switch_wants_exactly_one_way_to_select(
    admin: FakeAdmin, arguments: tuple[str, ...]
) -> None:
    """2, and the daemon is not asked."""
    assert (await taskmint(admin.socket, "revoke", *arguments))[0] == 2
    assert admin.asked == []
