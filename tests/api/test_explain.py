"""What would be decided, asked of the daemon: codes for the caller, the trace for an operator."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from taskmint.api.roles import Members, Role
from taskmint.errors import Code

from api.server import HEADERS, Http, admin_socket, task_socket
from tasks.world import REPORT, ask, caller

START = {"task": "report", "parameters": {"region": "eu"}, "purpose": "nightly"}
OPERATOR = {Role.OPERATOR: Members(uids=frozenset({os.getuid()}))}
AUDITOR = {Role.AUDITOR: Members(uids=frozenset({os.getuid()}))}
APPROVER = {Role.APPROVER: Members(uids=frozenset({os.getuid()}))}
JOB = "spiffe://example.org/job"
AWAITED = REPORT.replace("ends:", 'approval: {from: ["group:leads"], within: 1h}\n    ends:')
SHADOWED = REPORT + REPORT.split("tasks:\n")[1].replace(
    "report:", "report.shadow:\n    shadow: true"
).replace("enum: [eu, us]", "enum: [us]")
ONCE = REPORT.replace("ends:", "limits: {starts_per_minute: 1}\n    ends:").replace(
    "ends:", "when: history.grants + history.denials == 0\n    ends:"
)


async def test_what_would_be_granted_is_told_without_paths(tmp_path: Path) -> None:
    """The lifetime, the end and the kinds; neither mounts, paths nor the trace."""
    async with task_socket(tmp_path) as http:
        answer = await http.ask("POST", "/v1/explain", json={**START, "ttl_seconds": 90})

        assert (answer.status, answer.body) == (
            200,
            {
                "task": "report",
                "decision": "grant",
                "lifetime_seconds": 90,
                "bind": "peer",
                "heartbeat_seconds": 60,
                "reprove_seconds": None,
                "entitlements": {"warehouse": "secret", "archive": "secret"},
            },
        )


async def test_explaining_mints_records_and_counts_nothing(tmp_path: Path) -> None:
    """Neither limits nor `history` know of it: the one start allowed is still allowed."""
    async with task_socket(tmp_path, ONCE) as http:
        for _ in range(3):
            assert (await http.ask("POST", "/v1/explain", json=START)).status == 200
            refused = await http.ask("POST", "/v1/explain", json={**START, "ttl_seconds": 7200})
            assert refused.status == 422

        assert http.world.vault.calls == []
        assert http.world.ledger.events() == []
        assert (await http.ask("POST", "/v1/tasks", json=START)).status == 201


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({**START, "task": "unknown"}, HEADERS),
        (START, {**HEADERS, "Authorization": "Bearer /other"}),
        ({**START, "parameters": {"region": "mars"}}, HEADERS),
        ({**START, "ttl_seconds": 7200}, HEADERS),
        ({**START, "bind": "unit"}, HEADERS),
        ({**START, "surprise": 1}, HEADERS),
        (START, {"X-Taskmint-Request": "true"}),
        (START, {"Authorization": "Bearer /job"}),
    ],
)
async def test_a_refusal_is_word_for_word_that_of_a_start(
    tmp_path: Path, body: dict[str, Any], headers: dict[str, str]
) -> None:
    """P12: no oracle; explaining tells nothing that a start would not."""
    async with task_socket(tmp_path) as http:
        explained = await http.ask("POST", "/v1/explain", json=body, headers=headers)
        started = await http.ask("POST", "/v1/tasks", json=body, headers=headers)

        assert (explained.status, explained.body) == (started.status, started.body)
        assert explained.status in {400, 401, 403, 422}


async def test_what_waits_for_an_approval_is_told_as_such(tmp_path: Path) -> None:
    """Everything else is there: that is an answer, not a refusal."""
    async with task_socket(tmp_path, AWAITED) as http:
        answer = await http.ask("POST", "/v1/explain", json=START)

        assert answer.status == 200
        assert answer.body["decision"] == "approval"
        assert answer.body["entitlements"] is None


@pytest.mark.parametrize("roles", [OPERATOR, AUDITOR])
async def test_an_operator_sees_the_whole_trace(tmp_path: Path, roles: Any) -> None:
    """Clause by clause, with paths, what it was decided from, and what the shadow would change."""
    async with admin_socket(tmp_path, roles, text=SHADOWED) as http:
        await http.service.start(caller(), ask(), None)
        told = (await http.ask("POST", "/v1/admin/explain", json={**START, "spiffe_id": JOB})).body

        assert told["decision"]["granted"] is True
        assert told["decision"]["trace"][1] == f"who: {JOB} matches {JOB}"
        assert told["decision"]["scope"]["warehouse"] == "GET database/creds/orders-ro-eu"
        assert told["decision"]["lease_seconds"] == 60
        assert told["history"] == {"grants": 1, "denials": 0, "processes": 1}
        assert told["verdict"] == "would_refuse"
        assert told["shadow"]["code"] == Code.PARAMETER_INVALID
        assert http.world.ledger.events() == ["intent", "accessor", "active"]


async def test_an_operator_sees_why_a_caller_is_refused(tmp_path: Path) -> None:
    """Where the caller reads `not_permitted`, the operator reads which clause it was."""
    async with admin_socket(tmp_path, OPERATOR) as http:
        body = {**START, "spiffe_id": "spiffe://example.org/other"}
        told = (await http.ask("POST", "/v1/admin/explain", json=body)).body

        assert told["decision"]["granted"] is False
        assert told["decision"]["code"] == Code.NOT_PERMITTED
        assert told["decision"]["trace"][-1].startswith("who: no pattern matches")
        assert told["shadow"] is None


async def test_the_trace_is_for_operators_and_auditors(tmp_path: Path) -> None:
    """Others are refused, and what is no identity is refused."""
    async with admin_socket(tmp_path, APPROVER) as http:
        answer = await http.ask("POST", "/v1/admin/explain", json={**START, "spiffe_id": JOB})
        assert answer.body["code"] == Code.ROLE_MISSING
    async with admin_socket(tmp_path / "..", OPERATOR) as http:
        answer = await http.ask("POST", "/v1/admin/explain", json={**START, "spiffe_id": "job"})
        assert (answer.status, answer.body["code"]) == (400, Code.MALFORMED_REQUEST)


async def taskmint(http: Http, *more: str) -> tuple[int | None, str]:
    """Run `taskmint explain` for the nightly job."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", "explain", "--socket", http.path, "--as", JOB),
        *("--task", "report", "-p", "region=eu", *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_the_command_prints_the_trace(tmp_path: Path) -> None:
    """0 when it would be granted, 1 when not; for people and for programs."""
    async with admin_socket(tmp_path, OPERATOR, text=SHADOWED) as http:
        granted = await taskmint(http)
        refused = await taskmint(http, "--ttl", "2h", "--output", "json")
        usage = await taskmint(http, "--ttl", "1500ms")

        assert granted[0] == 0
        assert f"    who: {JOB} matches {JOB}\n" in granted[1]
        assert "granted for 300s, on a lease of 60s:\n    warehouse: GET database/" in granted[1]
        assert "in the last hour 0 grants, 0 denials, 0 processes; policy " in granted[1]
        assert "shadow, which grants nothing: would_refuse\n" in granted[1]
        assert "denied, parameter_invalid\n" in granted[1]
        assert refused[0] == 1
        assert json.loads(refused[1])["decision"]["code"] == Code.TTL_EXCEEDS_POLICY
        assert usage[0] == 2
