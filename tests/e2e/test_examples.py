"""The worked examples that need no approval, on the real stack (e2e/examples.py)."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from taskmint.devstack.daemon_process import Daemon
from taskmint.devstack.stack import Stack

from e2e.conftest import Ground
from e2e.examples import CLOSES
from e2e.ground import Workload, admin
from plugins.canaries import Canaries

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("daemon")]


STEP = """
import asyncio, http.client, json, os, socket, sys
from taskmint.client.workload_api import WorkloadApi

token = asyncio.run(WorkloadApi().token())
connection = http.client.HTTPConnection("taskmint")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(os.environ["TASKMINT_SOCKET"])
headers = {"X-Taskmint-Request": "true", "Authorization": f"Bearer {token}"}
connection.request("POST", "/v1/tasks", body=sys.argv[1], headers=headers)
print(connection.getresponse().read().decode(), flush=True)
"""


@asynccontextmanager
async def pipeline(stack: Stack, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """A shell, one step of which starts a task bound to it; the shell ends with the context."""
    shell = await asyncio.create_subprocess_exec(
        *("sh", "-c", '"$1" -c "$2" "$3"; read -r line', "sh", sys.executable, STEP),
        json.dumps(body),
        env={**os.environ, **stack.environment()},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert shell.stdout is not None
    try:
        async with asyncio.timeout(30):
            answer: dict[str, Any] = json.loads(await shell.stdout.readline())
        yield answer
    finally:
        shell.kill()
        await shell.wait()


async def test_the_nightly_report_reads_within_its_window(workload: Workload) -> None:
    """With a purpose, no longer than the window is open; afterwards the login is gone."""
    asked: dict[str, Any] = {"task": "nightly-report", "parameters": {"region": "eu"}}
    refused = await workload.ask("POST", "/v1/tasks", json=asked)
    task = await workload.start(**asked, purpose="nightly totals", ttl_seconds=1800)

    assert refused.status == 403
    assert datetime.fromisoformat(task["expires_at"]) <= CLOSES
    assert (await workload.query(task)).status == 0
    assert (await workload.end(task)).status == 200
    assert (await workload.query(task)).status == 2


async def test_a_deployment_lives_in_its_release_window_until_the_pipeline_exits(
    ground: Ground, workload: Workload, canaries: Canaries
) -> None:
    """Only for the tag whose window is open; the shell's exit ends it, unasked. P4, P5."""
    body = {"task": "deploy-web", "parameters": {"environment": "staging"}, "bind": "parent"}
    refused = [
        await workload.ask("POST", "/v1/tasks", json={**body, "context": context})
        for context in ({}, {"tag": "v2.15.0"})
    ]
    async with pipeline(ground.stack, {**body, "context": {"tag": "v2.14.0"}}) as task:
        token = task["credentials"]["vault"]["data"]["token"]
        canaries.plant(token, "the deployment's token")
        canaries.plant(task["credentials"]["inventory"]["data"]["password"], "its password")
        inventory = {"credentials": {"warehouse": task["credentials"]["inventory"]}}
        assert (await workload.query(inventory)).status == 0
    ended = await workload.ask("GET", f"/v1/tasks/{task['id']}?wait=20s")
    _, story = await admin(
        ground.stack, "audit", "show", task["id"], "--ledger", str(ground.stack.paths.ledger)
    )

    assert [reply.status for reply in refused] == [403, 403]
    assert (ended.body["state"], ended.body["end_cause"]) == ("revoked", "process_exited")
    assert (await workload.query(inventory)).status == 2
    assert "would_refuse: not_permitted" in story


async def test_maintenance_does_not_outlive_a_planned_stop(
    daemon: Daemon, workload: Workload
) -> None:
    """`daemon_stop: revoke`: nothing of it is left while the daemon is down."""
    task = await workload.start(task="db-maintenance", parameters={"database": "orders"})
    admin_login = {"credentials": {"warehouse": task["credentials"]["admin"]}}
    assert (await workload.query(admin_login)).status == 0
    await daemon.stop()
    left = await workload.query(admin_login)
    await daemon.start()

    assert left.status == 2
