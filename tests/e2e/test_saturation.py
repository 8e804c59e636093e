"""A daemon that can do no more still tells an operator how it is."""

import asyncio
import json
import signal
import socket

import pytest

from taskmint.devstack.stack import Stack

from e2e.ground import Workload, admin

pytestmark = pytest.mark.real

STARTS = 100  # more than `limits.mints_in_flight`
TASK = {"task": "e2e-report", "parameters": {"region": "eu"}}


def fill(stack: Stack) -> list[socket.socket]:
    """Connect to the task socket and say nothing, until the daemon refuses one more."""
    silent: list[socket.socket] = []
    while True:
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.settimeout(0.3)
        one.connect(str(stack.paths.task_socket))
        silent.append(one)
        try:
            refusal = one.recv(200)
        except TimeoutError:
            silent += [connected(stack) for _ in range(20)]
            continue
        assert b"429" in refusal
        return silent


def connected(stack: Stack) -> socket.socket:
    """One connection more."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.connect(str(stack.paths.task_socket))
    return one


async def test_p10_status_answers_while_the_daemon_is_saturated(
    stack: Stack, workload: Workload
) -> None:
    """Vault hangs, every place to mint and every connection is taken: the admin socket answers."""
    async with stack.daemon():
        stack.bao.signal(signal.SIGSTOP)
        silent: list[socket.socket] = []
        try:
            starts = [
                asyncio.create_task(workload.ask("POST", "/v1/tasks", json=TASK))
                for _ in range(STARTS)
            ]
            await asyncio.sleep(0.5)
            silent = await asyncio.to_thread(fill, stack)
            async with asyncio.timeout(10):
                code, shown = await admin(stack, "status", "--output", "json")
                listed = await admin(stack, "tasks")
        finally:
            stack.bao.signal(signal.SIGCONT)
            for one in silent:
                one.close()
        answers = await asyncio.gather(*starts)
        granted = [answer.body for answer in answers if answer.status == 201]
        ended = await asyncio.gather(*(workload.end(task) for task in granted))

    assert code in {0, 1}
    assert json.loads(shown)["ready"]["components"].keys() >= {
        "identity",
        "mutual_tls",
        "vault",
        "ledger",
    }
    assert listed[0] == 0
    assert {answer.status for answer in answers} <= {201, 429, 503}
    assert granted
    assert {answer.status for answer in ended} <= {200, 202}
