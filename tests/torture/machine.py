"""
The life of tasks against a model, on the real stack; Hypothesis decides what happens, and when.

The machine in virtual time (tests/tasks/test_machine.py) goes deeper; this one sees to it that what
it rests on is so: daemon, OpenBao, PostgreSQL, callers' processes, and the network between them.
`make test` tells two stories, `make torture` as many as there is time for.
"""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from taskmint.failpoints import Failpoint

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
NOTICED: Final = 20.0  # seconds, by which a workload's death has been noticed; P4 says one
STEPS: Final = 12
STORIES: Final = 5  # of one seed


class Ground:
    """The stack, one node on it, and the loop that everything runs on."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.exits = AsyncExitStack()
        self.stories = 0
        self.done: Counter[str] = Counter()  # what happened, by the rule
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
        self.ground.stories += 1
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
        self.ground.done["start"] += 1
        before = set(self.node.told)
        assert self._run(self.node.begin(definition, region)) in {201, 502, 503}
        self.sure |= set(self.node.told) - before

    @precondition(lambda self: self._told())
    @rule(data=st.data(), acknowledged=st.booleans())
    def change(self, data: st.DataObject, acknowledged: bool) -> None:
        """A caller changes a task, and perhaps says that the new credentials have arrived."""
        told = data.draw(st.sampled_from(self._told()))
        self.ground.done["change"] += 1
        status = self._run(self.node.change(told, "us"))
        assert status in {200, 404, 409, 429, 502, 503}
        if status == 200 and acknowledged:
            assert self._run(self.node.acknowledge(told)) in {200, 409}

    @precondition(lambda self: self._told())
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A caller ends a task; 200 is a proof."""
        told = data.draw(st.sampled_from(self._told()))
        self.ground.done["end"] += 1
        assert self._run(self.node.end(told)) in {200, 202, 404}

    @rule(definition=st.sampled_from(DEFINITIONS), seconds=st.sampled_from([0.0, 0.01, 0.03, 0.1]))
    def kill_the_daemon(self, definition: str, seconds: float) -> None:
        """`kill -9` while a task is being started, and the next daemon (P8)."""
        self._absence("daemon killed", self._killed(definition, seconds))

    async def _killed(self, definition: str, seconds: float) -> None:
        request = asyncio.create_task(self.node.begin(definition, "eu"))
        await asyncio.sleep(seconds)
        self.node.signal(signal.SIGKILL)
        assert await self.node.ended() == -signal.SIGKILL
        (outcome,) = await asyncio.gather(request, return_exceptions=True)
        assert outcome in {201, 502, 503} or isinstance(outcome, BROKEN)
        assert await self.node.start()

    @rule(daemon_is_away=st.booleans())
    def kill_a_workload(self, daemon_is_away: bool) -> None:
        """`kill -9` of a task's own process, also while there is no daemon to notice (P4, P8)."""
        self._absence("workload killed", self._widowed(daemon_is_away))

    async def _widowed(self, daemon_is_away: bool) -> None:
        async with self.node.workload("torture-bound") as told:
            if daemon_is_away:
                self.node.signal(signal.SIGKILL)
                assert await self.node.ended() == -signal.SIGKILL
        if daemon_is_away:
            assert await self.node.start()
        if told is None:
            return
        deadline = time.monotonic() + NOTICED
        while (state := await self.node.state(told)) == "active":
            assert time.monotonic() < deadline, (told.id, state)
            await asyncio.sleep(0.05)

    @rule()
    def restart(self) -> None:
        """SIGTERM, and the next daemon."""
        self._absence("restart", self._restarted())

    @rule(commit=st.integers(1, 6))
    def fill_the_disk(self, commit: int) -> None:
        """The next daemon finds it full when its n-th commit comes, and with room later (P7)."""
        full = f"{Failpoint.LEDGER_BEFORE_COMMIT}:{commit}:error"
        self._absence("disk full", self._restarted(TASKMINT_FAILPOINT=full))

    async def _restarted(self, **environment: str) -> None:
        self.node.signal(signal.SIGTERM)
        assert await self.node.ended() == 0
        assert await self.node.start(**environment)

    @rule(strike=st.sampled_from(STRIKES))
    def strike(self, strike: str) -> None:
        """Something happens to the servers, and heals."""
        self._absence(strike, self.ground.weather.bring(strike))

    def _absence(self, what: str, happening: Awaitable[None]) -> None:
        """Nobody could renew meanwhile: after too long of that, no task need have lived on."""
        self.ground.done[what] += 1
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


@contextmanager
def standing() -> Iterator[Ground]:
    """Lay the ground for stories."""
    RealLife.ground = Ground()
    try:
        yield RealLife.ground
    finally:
        RealLife.ground.close()


def tell(stories: int, chance: int | None = None) -> None:
    """Tell so many stories, by the seed `chance` or the profile's own way; raise what failed."""
    phases = (Phase.generate,) if chance is not None else tuple(Phase)
    told = settings(
        max_examples=stories,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
        phases=phases,
        database=None,
        deadline=None,
    )
    machine = RealLife if chance is None else seed(chance)(RealLife)
    run_state_machine_as_test(machine, settings=told)


@dataclass(frozen=True)
class Explored:
    """What was told in the time there was; `failure` is the first that failed, and ended it."""

    stories: int
    done: Counter[str]
    seconds: float
    failure: str | None


def explore(seconds: float, chance: int) -> Explored:
    """Tell stories until the time is up, a few of each seed; what is begun is told to its end."""
    begun = time.monotonic()
    failure = None
    with standing() as ground:
        while failure is None and time.monotonic() - begun < seconds:
            try:
                tell(STORIES, chance)
            except (AssertionError, *BROKEN) as error:
                failure = f"a story of seed {chance}: {error!r}"
            chance += 1
        return Explored(ground.stories, ground.done, time.monotonic() - begun, failure)
