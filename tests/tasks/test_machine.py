"""
The whole life of tasks against a model, among fakes and in virtual time (P4 to P8, P11).

Hypothesis starts, changes, ends; kills workloads and the daemon, at any await; takes Vault away,
fills the ledger, steps clocks, reloads. What the model knows must hold after every step, and once
everything is healed, what is alive in Vault is exactly what live tasks own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskmint.errors import TaskmintError
from taskmint.model.scope import BindKind
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Event
from taskmint.tasks.operating import everything
from taskmint.tasks.outside import Outside, Settings
from taskmint.tasks.service import TaskService
from taskmint.tasks.task import EndedBy, IdempotencyKey
from taskmint.tasks.views import TaskView

from fakes.ledger import MemoryLedger
from fakes.mortal import LEG, Mortal
from fakes.observer import Seen
from fakes.processes import FakeProcesses
from fakes.vault import FakeVault
from fakes.virtual_time import VirtualClock, VirtualTimeLoop
from tasks.world import ask, caller, policy

DEAD_MAN: Final = 6.0
# Renewed within a third of its life, a task has this long to live without Vault or its daemon.
SURVIVABLE: Final = DEAD_MAN / 2
DOING: Final = st.sampled_from(["start", "change", "end", "nothing"])
HEALED: Final = 90.0  # for the longest pause between attempts, and for the dead-man

WIDE: Final = """
version: 1
tasks:
  report:
    owner: team-orders@example.org
    class: batch
    dead_man: 6s
    who: [spiffe://example.org/job]
    parameters: {region: {enum: [eu, us]}}
    deadline: {default: 30m, max: 1h}
    ends: {bind: [peer, unit]}
    scope:
      warehouse: {secret: {mount: database, path: "creds/orders-ro-{region}"}}
      archive: {secret: {mount: kv, path: "data/archive"}}
      books:
        database:
          mount: database
          connection: tasks
          creation: ["VALID UNTIL '{{expiration}}'"]
          revocation: [b]
"""
NARROW: Final = WIDE.replace("enum: [eu, us]", "enum: [eu]")


@dataclass
class Known:
    """What the model knows of one task that was handed to its caller."""

    view: TaskView = field(repr=False)
    pid: int
    region: str
    ended: bool = False
    # It lived through an outage or an absence of the daemon that its credentials need not survive.
    doubtful: bool = False
    # The daemon died while it was asked to end or change it: it may have happened or not.
    unsure: bool = False
    ordered: bool = False  # that it ended is an operator's order, and nothing else


@dataclass
class Story:
    """Everything that outlives the daemon, and the model."""

    loop: VirtualTimeLoop
    clock: VirtualClock
    vault: FakeVault
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    processes: FakeProcesses = field(default_factory=FakeProcesses)
    outage: asyncio.Event = field(default_factory=asyncio.Event)
    crashes: list[BaseException] = field(default_factory=list)
    tasks: list[Known] = field(default_factory=list)
    text: str = WIDE
    pids: int = 5000
    keys: int = 0


class LifeOfTasks(RuleBasedStateMachine):
    """One node, one daemon at a time."""

    @initialize()
    def begin(self) -> None:
        """An empty ledger and a Vault that works."""
        loop = VirtualTimeLoop()
        clock = VirtualClock(loop)
        vault = FakeVault(ttl=timedelta(seconds=DEAD_MAN), now=clock.boottime)
        self.story = Story(loop, clock, vault)
        self.mortal: Mortal | None = None
        self.service: TaskService | None = None
        self.recovery: asyncio.Task[None] | None = None
        self._start_daemon()
        for region in ("eu", "us", "eu"):
            self.start(region, unit=False, keyed=False)

    def teardown(self) -> None:
        """Heal everything, wait, and compare what is left with the model."""
        if not hasattr(self, "story"):
            return
        try:
            self._heal_and_compare()
        finally:
            self._run(self._put_down())
            self.story.loop.close()

    # --- rules -----------------------------------------------------------------------------

    @rule(region=st.sampled_from(["eu", "us"]), unit=st.booleans(), keyed=st.booleans())
    def start(self, region: str, unit: bool, keyed: bool) -> None:
        """A workload starts a task; what it is handed is in the ledger before (P7)."""
        self._run(self._start(region, unit=unit, keyed=keyed))

    @rule(seconds=st.sampled_from([0.05, 1.0, 7.0]))
    def live_on(self, seconds: float) -> None:
        """Two more tasks, and nothing happens to them for a while."""
        self.start("eu", unit=False, keyed=False)
        self.start("us", unit=True, keyed=True)
        self.time_passes(seconds)

    @precondition(lambda self: self.story.tasks)
    @rule(data=st.data(), region=st.sampled_from(["eu", "us"]), acknowledged=st.booleans())
    def change(self, data: st.DataObject, region: str, acknowledged: bool) -> None:
        """A workload changes its task, and perhaps says that it has the new credentials."""
        self._run(self._change(self._pick(data), region, acknowledged=acknowledged))

    @precondition(lambda self: self.story.tasks)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A workload ends its task."""
        self._run(self._end(self._pick(data)))

    @precondition(lambda self: self.story.tasks)
    @rule(data=st.data())
    def kill_workload(self, data: st.DataObject) -> None:
        """The kernel ends the process, or the last of the unit."""
        known = self._pick(data)
        known.ended = True
        self._on_loop(lambda: self.story.processes.kill(known.pid))

    @rule(seconds=st.sampled_from([0.05, 1.0, 7.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        """Renewals, deadlines, retries."""
        self._run(asyncio.sleep(seconds))

    @rule(seconds=st.sampled_from([0.5, 2.0, 20.0]), lost=st.booleans())
    def outage(self, seconds: float, lost: bool) -> None:
        """Vault is away for a while; perhaps the answers to two calls are lost before."""
        if lost:
            self.story.vault.lost["mint"] += 1
        self._absence(lambda: self._run(self._without_vault(seconds)))

    @rule(doing=DOING, seconds=st.sampled_from([0.05, 5.0]), data=st.data())
    def full_disk(self, doing: str, seconds: float, data: st.DataObject) -> None:
        """The disk fills in the middle of something, and later has room again (P7)."""
        under_way = self._begin(doing, data)
        self._run(asyncio.sleep(seconds / 2))
        self.story.ledger.full = True
        self._run(asyncio.sleep(seconds / 2))
        self.story.ledger.full = False
        self._run(_over(under_way))

    @rule(
        days=st.sampled_from([-3650, -1, 1, 3650]),
    )
    def wall_clock_steps(self, days: int) -> None:
        """Neither ends nor extends anything."""
        self.story.clock.wall_offset += timedelta(days=days)

    @rule(narrow=st.booleans())
    def reload(self, narrow: bool) -> None:
        """Another policy; tasks that it forbids end, and it cannot be got round by a restart."""
        self.story.text = NARROW if narrow else WIDE
        service = self.service
        assert service is not None
        self._on_loop(lambda: service.adopt_policy(policy(self.story.text)))
        for known in self.story.tasks:
            known.ended |= narrow and known.region == "us"
            known.unsure |= narrow and known.region == "either"

    @rule(doing=DOING, legs=st.integers(0, 14), data=st.data())
    def kill_switch(self, doing: str, legs: int, data: st.DataObject) -> None:
        """An operator ends everything, also what is in the middle of something (P4)."""
        service = self.service
        assert service is not None
        under_way = self._begin(doing, data)
        self._run(asyncio.sleep((legs + 0.5) * LEG))
        self._run(service.operators.revoke(everything(), EndCause.OPERATOR, EndedBy(0)))
        self._run(_over(under_way))
        for known in self.story.tasks:
            known.ordered |= not known.ended
            known.ended = True

    @rule(seconds=st.sampled_from([0.0, 1.0, 30.0]))
    def planned_restart(self, seconds: float) -> None:
        """SIGTERM; a while of nothing; a new daemon."""
        assert self.service is not None
        service = self.service

        def restart() -> None:
            self._run(service.stop(revoke=False, grace=timedelta(seconds=1)))
            self._run(self._put_down())
            self._run(asyncio.sleep(seconds))
            self._start_daemon()

        self._absence(restart)

    @rule(
        doing=DOING,
        legs=st.integers(0, 14),
        seconds=st.sampled_from([0.0, 20.0]),
        data=st.data(),
    )
    def kill_the_daemon(self, doing: str, legs: int, seconds: float, data: st.DataObject) -> None:
        """`kill -9` at any of the moments of something under way (P8)."""

        def crash() -> None:
            under_way = self._begin(doing, data)
            self._run(asyncio.sleep((legs + 0.5) * LEG))
            self._run(self._put_down())
            self._run(_over(under_way))
            self._forget_orders()
            self._run(asyncio.sleep(seconds))
            self._start_daemon()

        self._absence(crash)

    # --- what holds after every step ---------------------------------------------------------

    @invariant()
    def nothing_has_crashed(self) -> None:
        """No background work raised what it did not expect."""
        if hasattr(self, "story"):
            assert self.story.crashes == []

    @invariant()
    def what_is_guaranteed_works(self) -> None:
        """Callers learn the truth: until `guaranteed_until` the credentials are alive (P6)."""
        if not hasattr(self, "story") or self.service is None:
            return
        now = self.story.clock.utcnow()
        alive = self.story.vault.alive
        for view in self.service.operators.overview():
            if view.state is TaskState.ACTIVE and not self._stopped_outside(view.id):
                handles = self._handles(view.id, newest=True)
                shown = self._run(self._show(view.id))
                if shown is not None and shown.guaranteed_until > now:
                    assert handles <= alive, (view.id, handles - alive)

    def _stopped_outside(self, task_id: str) -> bool:
        return any(known.ended and known.view.id == task_id for known in self.story.tasks)

    # --- how -------------------------------------------------------------------------------

    def _run(self, work: Awaitable[Any]) -> Any:
        return self.story.loop.run_until_complete(_awaited(work))

    def _on_loop(self, act: Callable[[], object]) -> None:
        async def acting() -> None:
            act()

        self._run(acting())

    def _pick(self, data: st.DataObject) -> Known:
        return data.draw(st.sampled_from(self.story.tasks))

    def _start_daemon(self) -> None:
        story = self.story
        self.mortal = Mortal(story.vault, story.ledger, story.outage)
        log = structlog.stdlib.get_logger()
        outside = Outside(
            self.mortal, self.mortal, story.processes, story.clock, Seen(), log
        )  # fmt: skip
        given = Settings("node-a", "boot-1", delivery_window=timedelta(seconds=5))
        self.service = TaskService(policy(story.text), outside, given, story.crashes.append)
        story.ledger.opened = len(story.ledger.entries)
        self.recovery = story.loop.create_task(self.service.recover())

    async def _put_down(self) -> None:
        """Everything of this daemon is gone, as after SIGKILL."""
        if self.mortal is not None:
            self.mortal.dead = True
        # Held until its work is over: the loop itself holds no task that waits for nothing.
        service, self.service = self.service, None
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        self.story.processes.forget()
        del service

    def _forget_orders(self) -> None:
        """An operator's order that was not on the disk died with the daemon, as far as we know."""
        written = {row.task for row in self.story.ledger.entries if row.event is Event.ENDING}
        for known in self.story.tasks:
            if known.ordered and known.view.id not in written:
                known.unsure = True
                known.ended = known.ended and not known.ordered
            known.ordered = False

    def _absence(self, happening: Callable[[], None]) -> None:
        """Let something happen, and note whom it may have cost the credentials."""
        before = self.story.loop.time()
        happening()
        if self.story.loop.time() - before > SURVIVABLE:
            for known in self.story.tasks:
                known.doubtful = True

    async def _without_vault(self, seconds: float) -> None:
        self.story.outage.set()
        await asyncio.sleep(seconds)
        self.story.outage.clear()
        await asyncio.sleep(DEAD_MAN / 6)

    def _begin(self, doing: str, data: st.DataObject) -> "asyncio.Task[None] | None":
        """Something that is under way when something else happens."""
        work: Coroutine[Any, Any, None] | None = None
        if doing == "start":
            work = self._start("eu", unit=False, keyed=False)
        elif doing != "nothing" and self.story.tasks:
            known = self._pick(data)
            work = self._end(known) if doing == "end" else self._change(known, "eu")
        return None if work is None else self.story.loop.create_task(work)

    async def _start(self, region: str, *, unit: bool, keyed: bool) -> None:
        story, service = self.story, self.service
        assert service is not None
        story.pids += 1
        story.keys += 1
        pid, key = story.pids, IdempotencyKey(str(story.keys), "b") if keyed else None
        bind = BindKind.UNIT if unit else None
        request = replace(ask(), parameters={"region": region}, bind=bind)
        try:
            view = await service.start(caller(pid=pid), request, key)
        except TaskmintError:
            return
        self._assert_recorded(view)
        story.tasks.append(Known(view, pid, region))

    async def _change(self, known: Known, region: str, *, acknowledged: bool = False) -> None:
        service = self.service
        assert service is not None
        before, known.region = known.region, "either"
        try:
            view = await service.change(
                caller(pid=known.pid),
                known.view.id,
                lambda before: replace(before, parameters={"region": region}),
                None,
            )
            self._assert_recorded(view)
            known.region = region
            if acknowledged:
                await service.heartbeat(caller(pid=known.pid), view.id, view.revision)
        except TaskmintError:
            known.region = before

    async def _end(self, known: Known) -> None:
        assert self.service is not None
        known.unsure = True
        try:
            await self.service.end(
                caller(pid=known.pid), known.view.id, EndCause.SUCCEEDED, timedelta(seconds=1)
            )
        except TaskmintError:
            return
        known.ended = True

    async def _show(self, task_id: str) -> TaskView | None:
        assert self.service is not None
        try:
            return await self.service.show(caller(), task_id, timedelta())
        except TaskmintError:
            return None

    def _assert_recorded(self, view: TaskView) -> None:
        """P7: no secret without a record, and never a dead one."""
        assert view.credentials is not None
        rows = [
            entry
            for entry in self.story.ledger.entries
            if entry.task == view.id
            and entry.event in {Event.ACTIVE, Event.REVISION_ACTIVE}
            and entry.facts.get("revision", 1) == view.revision
        ]
        assert len(rows) == 1

    def _handles(self, task_id: str, *, newest: bool) -> set[str]:
        """What the ledger says stands in Vault for a task, for its newest whole revision."""
        by_revision: dict[object, set[str]] = {}
        whole: list[object] = []
        for entry in self.story.ledger.entries:
            if entry.task == task_id and entry.handles:
                number = entry.facts.get("revision", 1)
                found = by_revision.setdefault(number, set())
                found |= {str(handle) for handle in entry.handles.values()}
                if "active" in entry.event:
                    whole.append(number)
        if newest:
            return by_revision[whole[-1]] if whole else set()
        return set().union(*by_revision.values())

    def _heal_and_compare(self) -> None:
        story = self.story
        story.ledger.full = False
        story.vault.lost.clear()
        self._run(asyncio.sleep(HEALED))
        assert self.service is not None
        views = {view.id: view for view in self.service.operators.overview()}
        # Nothing is on its way any more.
        assert {view.state for view in views.values()} <= {TaskState.ACTIVE}
        # P4: what ended is gone. P8: what lives and could be kept alive, is.
        for known in story.tasks:
            if known.ended:
                assert known.view.id not in views
            elif not known.doubtful and not known.unsure:
                assert known.view.id in views
        # P8: what is alive in Vault is what live tasks own, all of it and nothing else.
        owned = set().union(*(self._handles(task_id, newest=True) for task_id in views))
        assert story.vault.alive == owned
        # P1: what was written for single tasks is what these leases need.
        written = {lease.rpartition("/")[0] for lease in owned if "/taskmint-db-" in lease}
        assert {path.replace("/roles/", "/creds/") for path in story.vault.objects} == written
        assert len(written) == len(views)
        # The ledger knows the same.
        story.ledger.opened = None
        unfinished = self._run(story.ledger.unfinished())
        assert {rows[0].task for rows in unfinished.tasks} == set(views)


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


async def _over(task: "asyncio.Task[None] | None") -> None:
    """Wait until a request is over; that of a daemon that died is."""
    if task is not None:
        await asyncio.wait([task])


LifeOfTasks.TestCase.settings = settings(
    stateful_step_count=30, suppress_health_check=[HealthCheck.filter_too_much]
)
TestLifeOfTasks = pytest.mark.timeout(600)(LifeOfTasks.TestCase)
