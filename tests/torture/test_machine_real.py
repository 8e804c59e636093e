"""
The life of tasks against a model, on the real stack; Hypothesis decides what happens, and when.

The machine in virtual time (tests/tasks/test_machine.py) goes deeper; this one sees to it that what
it rests on is so: daemon, OpenBao, PostgreSQL, and the network between them.
"""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from faults.tcp_proxy import TcpProxy
from stack import auditor_of
from torture.campaign import SETTLE_SECONDS, ground
from torture.leftovers import left_over
from torture.lives import BROKEN
from torture.nodes import Node, Told, nodes
from torture.weather import Weather

DEFINITIONS: Final = ["torture-database", "torture-token", "torture-role"]
STRIKES: Final = [
    "lost reply of a creating call",
    "lost reply of an ending call",
    "network cut",
    "Vault sealed",
    "Vault killed",
    "Vault frozen",
    "database killed",
    "policy reload",
]
# Renewed at a third of five seconds, credentials live at least this long without their daemon.
SURVIVABLE: Final = 3.0


class Ground:
    """The stack, one node on it, and the loop that everything runs on."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.exits = AsyncExitStack()
        self.runner.run(self._enter())

    async def _enter(self) -> None:
        stack = await self.exits.enter_async_context(ground())
        address = urlsplit(stack.bao.address)
        host, port = str(address.hostname), int(address.port or 0)
        proxy = await self.exits.enter_async_context(TcpProxy.before(host, port))
        self.auditor = auditor_of(stack)
        self.before = await asyncio.to_thread(self.auditor.inventory)
        vault = f"http://{host}:{proxy.port}"
        (self.node,) = await self.exits.enter_async_context(nodes(stack, 1, vault))
        self.weather = Weather(stack, proxy, [self.node], random.Random(0))

    def close(self) -> None:
        """Take everything down."""
        self.runner.run(self.exits.aclose())
        self.runner.close()


class RealLife(RuleBasedStateMachine):
    """One node; `sure` are the tasks that nothing has happened to that they need not survive."""

    ground: Ground

    @initialize()
    def begin(self) -> None:
        """A daemon with two tasks."""
        self.sure: set[str] = set()
        self._run(self.node.start())
        for definition in DEFINITIONS[:2]:
            self.start(definition, "eu")

    @property
    def node(self) -> Node:
        """The one there is."""
        return self.ground.node

    def _run(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return self.ground.runner.run(awaited())

    def _told(self) -> list[Told]:
        return [one for one in self.node.told.values() if one.ulid not in self.node.ends]

    @rule(definition=st.sampled_from(DEFINITIONS), region=st.sampled_from(["eu", "us"]))
    def start(self, definition: str, region: str) -> None:
        """A caller starts a task."""
        before = set(self.node.told)
        assert self._run(self.node.begin(definition, region)) in {201, 502, 503}
        self.sure |= set(self.node.told) - before

    @precondition(lambda self: self._told())
    @rule(data=st.data(), acknowledged=st.booleans())
    def change(self, data: st.DataObject, acknowledged: bool) -> None:
        """A caller changes a task, and perhaps says that the new credentials have arrived."""
        told = data.draw(st.sampled_from(self._told()))
        status = self._run(self.node.change(told, "us"))
        assert status in {200, 404, 409, 429, 502, 503}
        if status == 200 and acknowledged:
            assert self._run(self.node.acknowledge(told)) in {200, 409}

    @precondition(lambda self: self._told())
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A caller ends a task; 200 is a proof."""
        told = data.draw(st.sampled_from(self._told()))
        assert self._run(self.node.end(told)) in {200, 202, 404}

    @rule(definition=st.sampled_from(DEFINITIONS), seconds=st.sampled_from([0.0, 0.01, 0.03, 0.1]))
    def kill_the_daemon(self, definition: str, seconds: float) -> None:
        """`kill -9` while a task is being started, and the next daemon (P8)."""
        self._absence(self._killed(definition, seconds))

    async def _killed(self, definition: str, seconds: float) -> None:
        request = asyncio.create_task(self.node.begin(definition, "eu"))
        await asyncio.sleep(seconds)
        self.node.signal(signal.SIGKILL)
        assert await self.node.ended() == -signal.SIGKILL
        (outcome,) = await asyncio.gather(request, return_exceptions=True)
        assert outcome == 201 or isinstance(outcome, BROKEN)
        assert await self.node.start()

    @rule()
    def restart(self) -> None:
        """SIGTERM, and the next daemon."""
        self._absence(self._restarted())

    async def _restarted(self) -> None:
        self.node.signal(signal.SIGTERM)
        assert await self.node.ended() == 0
        assert await self.node.start()

    @rule(strike=st.sampled_from(STRIKES))
    def strike(self, strike: str) -> None:
        """Something happens to the servers, and heals."""
        self._absence(self.ground.weather.bring(strike))

    def _absence(self, happening: Awaitable[None]) -> None:
        """Nobody could renew meanwhile: after too long of that, no task need have lived on."""
        begun = time.monotonic()
        self._run(happening)
        if time.monotonic() - begun > SURVIVABLE:
            self.sure.clear()

    def teardown(self) -> None:
        """What lives and could be kept alive is; when all is ended, nothing is left."""
        if self.node.alive:
            self._run(self._compare())

    def _orphans(self) -> list[str]:
        return left_over(self.ground.before, self.ground.auditor)[0]

    async def _compare(self) -> None:
        node = self.node
        for told in self._told():
            state = await node.state(told)
            assert state == "active" or told.id not in self.sure, (told.id, state)
        assert await node.pull_kill_switch(SETTLE_SECONDS) == ""
        node.told.clear()
        deadline = time.monotonic() + SETTLE_SECONDS
        while orphans := await asyncio.to_thread(self._orphans):
            assert time.monotonic() < deadline, orphans
            await asyncio.sleep(0.2)
        node.signal(signal.SIGTERM)
        assert await node.ended() == 0


@pytest.mark.real
@pytest.mark.timeout(300)
def test_p4_p8_whatever_happens_in_whatever_order_nothing_is_left() -> None:
    """Two stories of a dozen steps; `--hypothesis-profile=explore` tells many more."""
    RealLife.ground = Ground()
    explore = settings().max_examples > 100
    try:
        run_state_machine_as_test(
            RealLife,
            settings=settings(
                max_examples=40 if explore else 2,
                stateful_step_count=12,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        RealLife.ground.close()
