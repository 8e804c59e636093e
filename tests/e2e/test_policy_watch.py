"""`policy.watch: true` on the real daemon: a change of the files is a reload, all or nothing."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from taskmint.devstack.stack import Stack

from e2e.ground import Workload, admin, daemon_log

pytestmark = pytest.mark.real


@contextmanager
def watching(stack: Stack) -> Iterator[None]:
    """Switch it on; put config and policy back afterwards."""
    policy, config = stack.paths.policy / "e2e.yaml", stack.paths.config
    before = {file: file.read_text() for file in (policy, config)}
    told = json.loads(before[config])
    told["policy"]["watch"] = True
    config.write_text(json.dumps(told))
    try:
        yield
    finally:
        for file, text in before.items():
            file.write_text(text)
        policy.chmod(0o644)


async def rows(stack: Stack) -> list[dict[str, Any]]:
    """What the ledger says of the policy, oldest first."""
    words = ("audit", "tail", "-n", "50", "--ledger", str(stack.paths.ledger), "--output", "json")
    _, out = await admin(stack, *words)
    told = [json.loads(line) for line in out.splitlines()]
    return [row for row in told if row["event"].startswith("policy_")]


async def after(stack: Stack, count: int) -> list[dict[str, Any]]:
    """The rows about the policy, once there are so many."""
    async with asyncio.timeout(30):
        while len(found := await rows(stack)) < count:
            await asyncio.sleep(0.2)
    return found


async def test_p11_a_change_of_the_files_is_a_reload_all_or_nothing(
    stack: Stack, workload: Workload
) -> None:
    """P11: refused for what is wrong with it, and for its mode; then adopted, ending a task."""
    policy = stack.paths.policy / "e2e.yaml"
    text = policy.read_text()
    with watching(stack):
        async with stack.daemon() as daemon:
            task = await workload.start()
            known = len(await rows(stack))
            policy.write_text(text.replace("owner:", "ovner:", 1))
            wrong = (await after(stack, known + 1))[-1]
            policy.write_text(text.replace("enum: [eu, us]", "enum: [us]", 1))
            policy.chmod(0o664)
            open_to_others = (await after(stack, known + 2))[-1]
            still = await workload.ask("GET", f"/v1/tasks/{task['id']}")
            policy.chmod(0o644)
            ended = await workload.ask("GET", f"/v1/tasks/{task['id']}?wait=20s")
            adopted = await after(stack, known + 3)
            policy.write_text(text)
            widened = await after(stack, known + 4)

    assert [row["event"] for row in widened[known:]] == [
        *("policy_refused", "policy_refused", "policy_loaded", "policy_loaded")
    ]
    assert any("ovner" in finding for finding in wrong["facts"]["findings"])
    assert "is writable by group or others" in open_to_others["facts"]["findings"][0]
    assert wrong["facts"]["policy_digest"] == open_to_others["facts"]["policy_digest"]
    assert adopted[-1]["facts"]["policy_digest"] != wrong["facts"]["policy_digest"]
    assert still.body["state"] == "active"
    assert ended.body["end_cause"] == "policy_narrowed"
    refusals = [line for line in daemon_log(daemon) if line["event"] == "policy_refused"]
    assert [line["level"] for line in refusals[-2:]] == ["error", "error"]
