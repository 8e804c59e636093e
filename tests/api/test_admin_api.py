"""The admin socket: roles from the kernel's word on the peer, and what each may do."""

import asyncio
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from identity.workload import Workload, workload
from taskmint.api.roles import Members, Role
from taskmint.errors import Code, ConfigError, Finding
from taskmint.identity.peers import PidfdSource
from taskmint.ports import Event
from taskmint.tasks.task import EndedBy

from api.server import Http, admin_socket
from tasks.world import ask, caller

OPERATOR = {Role.OPERATOR: Members(uids=frozenset({os.getuid()}))}
AUDITOR = {Role.AUDITOR: Members(gids=frozenset({os.getgid()}))}
RELOAD = (
    b"POST /v1/admin/reload HTTP/1.1\r\nHost: x\r\nX-Taskmint-Request: true\r\n"
    b"Content-Length: 0\r\n\r\n"
)


async def test_an_operator_sees_and_ends_a_task(tmp_path: Path) -> None:
    """Listed with what ties it to the database's log; ended with proof."""
    async with admin_socket(tmp_path, OPERATOR) as http:
        view = await http.service.start(caller(), ask(), None)
        listed = (await http.ask("GET", "/v1/admin/tasks")).body["tasks"]
        ended = await http.ask("POST", f"/v1/admin/tasks/{view.id}/end")

        assert [task["id"] for task in listed] == [view.id]
        assert listed[0]["user_names"] == ["u", "u"]
        assert "accessor" not in str(listed)
        assert ended.body["end_cause"] == "operator"
        assert ended.body["credentials"] is None
        assert (await http.ask("GET", "/v1/admin/tasks")).body["tasks"] == []


async def test_status_names_every_component_and_its_reason(tmp_path: Path) -> None:
    """Readiness, node, version, digest and counts."""
    async with admin_socket(tmp_path, AUDITOR) as http:
        http.world.vault.not_ready = "sealed"
        status = (await http.ask("GET", "/v1/admin/status")).body

        assert status["ready"]["components"]["vault"]["reason"] == "sealed"
        assert status["live_tasks"] == 0
        assert status["node"] == "node-a"


async def test_one_task_is_shown_whole(tmp_path: Path) -> None:
    """Why, for whom, bound to what, minted where, and how far its end will be proven; no secret."""
    async with admin_socket(tmp_path, AUDITOR) as http:
        asked = replace(ask(), ticket="CHG-7", context={"run": "12"})
        view = await http.service.start(caller(), asked, None)
        shown = await http.ask("GET", f"/v1/admin/tasks/{view.id}")
        unknown = await http.ask("GET", "/v1/admin/tasks/tm_00000000000000000000000000")

        assert shown.status == 200
        assert (shown.body["purpose"], shown.body["ticket"]) == ("nightly", "CHG-7")
        assert shown.body["context"] == {"run": "12"}
        assert shown.body["parameters"] == {"region": "eu"}
        assert shown.body["bound"] == "peer 4242"
        assert shown.body["guarantee"] == "kept"
        assert shown.body["entitlements"]["warehouse"] == {
            "kind": "secret",
            "path": "database/creds/orders-ro-eu",
            "proof": "login",
        }
        assert "canary" not in str(shown.body)
        assert "accessor" not in str(shown.body)
        assert (unknown.status, unknown.body["code"]) == (404, Code.TASK_NOT_FOUND)


async def test_status_answers_while_starts_wait_for_vault_and_names_the_backlog(
    tmp_path: Path,
) -> None:
    """Every place for a mint taken, others queueing, revocations unproven: one call tells it."""
    async with admin_socket(tmp_path, OPERATOR) as http:
        http.world.vault.stubborn = True
        ended = await http.service.start(caller(), ask(), None)
        await http.service.operators.end(ended.id, EndedBy(0), timedelta(milliseconds=50))
        http.world.vault.gates["create_task_token"] = gate = asyncio.Event()
        starts = [asyncio.create_task(http.service.start(caller(), ask(), None)) for _ in range(40)]
        async with asyncio.timeout(5):
            while not (await http.ask("GET", "/v1/admin/status")).body["backlog"]["mints_waiting"]:
                await asyncio.sleep(0.01)
        status = (await http.ask("GET", "/v1/admin/status")).body
        gate.set()
        http.world.vault.stubborn = False
        await asyncio.gather(*starts)

        assert status["backlog"]["mints_waiting"] == 8
        assert status["backlog"]["revocations_unproven"] == 1
        assert status["backlog"]["oldest_unproven_seconds"] >= 0
        assert sum(status["backlog"]["unproven_at"].values()) > 0
        assert (status["live_tasks"], status["revoking_tasks"]) == (0, 1)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/admin/status"),
        ("GET", "/v1/admin/tasks"),
        ("GET", "/v1/admin/tasks/tm_00000000000000000000000000"),
        ("GET", "/metrics"),
        ("POST", "/v1/admin/tasks/tm_00000000000000000000000000/end"),
        ("POST", "/v1/admin/revoke"),
        ("GET", "/v1/admin/revoke/1"),
        ("POST", "/v1/admin/reload"),
    ],
)
async def test_without_a_role_everything_is_403(tmp_path: Path, method: str, path: str) -> None:
    """Root or not: who is not named has no role here."""
    async with admin_socket(tmp_path, {}) as http:
        answer = await http.ask(method, path)

        assert answer.status == 403
        assert answer.body["code"] == Code.ROLE_MISSING


async def reload_answered(by: Workload) -> bytes:
    """Let a process ask for a reload on the socket that it holds; returns what it is answered."""
    by.tell("send", RELOAD.hex())
    async with asyncio.timeout(10):
        return await asyncio.to_thread(by.receive)


def hand_over(giver: Workload, taker: Workload, path: Path) -> None:
    """Pass the connection on, and leave."""
    taker.tell("take", path)
    giver.tell("give", path)
    giver.exit()


async def assert_refused(http: Http, answer: bytes) -> None:
    """A problem with the code, and a row that says of whom."""
    assert answer.startswith(b"HTTP/1.1 401")
    assert b'"code": "peer_unattested"' in answer
    async with asyncio.timeout(5):
        while Event.UNPROVEN not in {one.event for one in http.world.ledger.entries}:
            await asyncio.sleep(0.01)
    entry = http.world.ledger.entries[-1]
    assert entry.facts["code"] == Code.PEER_UNATTESTED


async def test_a_connection_that_an_operator_hands_over_commands_nothing(tmp_path: Path) -> None:
    """Row 25: alive it may reload; once it has exited, whoever has its connection may not."""
    async with admin_socket(tmp_path, OPERATOR) as http:
        with workload() as operator, workload() as taker:
            operator.tell("connect", http.path)
            assert (await reload_answered(operator)).startswith(b"HTTP/1.1 200")
            hand_over(operator, taker, tmp_path / "handover")

            await assert_refused(http, await reload_answered(taker))


async def test_a_process_that_the_kernel_does_not_name_commands_nothing(tmp_path: Path) -> None:
    """Rows 26 and 27: an operator's uid alone, without the process that has it, is no role."""
    async with admin_socket(tmp_path, OPERATOR, source=PidfdSource.FALLBACK) as http:
        with workload() as operator, workload() as taker:
            operator.tell("connect", http.path)  # accepted when the loop turns, after its exit
            hand_over(operator, taker, tmp_path / "handover")

            await assert_refused(http, await reload_answered(taker))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a process groups")
async def test_a_role_is_held_by_whoever_has_its_group_among_others(tmp_path: Path) -> None:
    """`usermod --append --groups` is enough: a group need not be the process's own."""
    ops = {Role.OPERATOR: Members(gids=frozenset({4242}))}
    async with admin_socket(tmp_path, ops) as http:
        with workload() as member, workload() as other:
            member.tell("groups", 4241, 4242).tell("connect", http.path)
            other.tell("groups", 4241).tell("connect", http.path)

            assert (await reload_answered(member)).startswith(b"HTTP/1.1 200")
            refused = await reload_answered(other)

    assert refused.startswith(b"HTTP/1.1 403")
    assert b'"code": "role_missing"' in refused


@pytest.mark.parametrize(
    "path", ["/v1/admin/tasks/tm_00000000000000000000000000/end", "/v1/admin/reload"]
)
async def test_an_auditor_changes_nothing(tmp_path: Path, path: str) -> None:
    """Reading is the auditor's, acting the operator's."""
    async with admin_socket(tmp_path, AUDITOR) as http:
        assert (await http.ask("POST", path)).status == 403


async def test_an_operator_reloads_and_scrapes(tmp_path: Path) -> None:
    """What the daemon plugged in is called."""
    async with admin_socket(tmp_path, OPERATOR) as http:
        assert (await http.ask("POST", "/v1/admin/reload")).body == {
            "policy_digest": "d",
            "ended": 0,
        }
        async with http.session.get(
            "http://localhost/metrics", headers={"X-Taskmint-Request": "true"}
        ) as reply:
            assert await reply.text() == "# nothing\n"


async def test_a_refused_policy_is_answered_with_every_finding(tmp_path: Path) -> None:
    """422: where, what, and what to write; found as a bare 500 by the end-to-end test."""
    findings = (Finding("a.yaml", 3, 5, "tasks.x.ovner", "is not a known key", "write owner"),)
    refusal = ConfigError(Code.POLICY_INVALID, findings)
    async with admin_socket(tmp_path, OPERATOR, refusal) as http:
        answer = await http.ask("POST", "/v1/admin/reload")

        assert (answer.status, answer.body["code"]) == (422, Code.POLICY_INVALID)
        assert answer.body["detail"] == (
            "a.yaml:3:5: tasks.x.ovner: is not a known key; write owner"
        )
        assert answer.body["fix"]
