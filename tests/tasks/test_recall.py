"""The `history` facts after a restart: the last hour's rows count, whatever the wall clock did."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from taskmint.errors import Code, Denied, TaskmintError, Unavailable
from taskmint.model.scope import HistoryFacts, Json
from taskmint.model.state import TaskState
from taskmint.ports import Entry, Event
from taskmint.tasks.deciding import caller_facts
from taskmint.tasks.history import HOUR_SECONDS, MOST_REMEMBERED, History
from taskmint.tasks.recall import LastHour
from taskmint.tasks.service import TaskService
from taskmint.tasks.task import IdempotencyKey

from fakes.ledger import MemoryLedger
from fakes.virtual_time import VirtualTimeLoop
from tasks.approvals import a_world, policy_text
from tasks.world import SHORT, World, ask, caller, policy

FREE = SHORT.replace("DEADLINE", "5m").replace("ENDS", "{deadline_only: true}")
THRICE = FREE + "    when: history.grants < 3\n"
HOUR = timedelta(hours=1)
JUMPS = [timedelta(hours=3), -timedelta(hours=3), timedelta(days=400), -timedelta(days=400)]


async def grant(service: TaskService, pid: int = 1) -> None:
    """Start a task that is granted."""
    view = await service.start(caller(pid=pid), ask(), None)
    assert view.state is TaskState.ACTIVE


async def deny(service: TaskService, pid: int = 1) -> None:
    """Ask for what is refused."""
    with pytest.raises(TaskmintError) as refused:
        await service.start(caller(pid=pid), replace(ask(), parameters={"region": "no"}), None)
    assert refused.value.code is Code.PARAMETER_INVALID


def counted(service: TaskService) -> HistoryFacts:
    """What the next decision about the caller counts."""
    return service.explain_as(caller_facts(caller()), ask()).given.history


async def asked_often(world: World) -> None:
    """Two grants by two processes and a denial by a third; then SIGKILL: no row of an end."""
    async with world.running(FREE) as service:
        await grant(service, 1)
        await grant(service, 2)
        await deny(service, 3)
        assert counted(service) == HistoryFacts(2, 1, 3)
        rows = list(world.ledger.entries)
    world.ledger.entries = rows


async def after_restart(world: World) -> HistoryFacts:
    """What a new daemon counts once it has recovered."""
    async with world.running(FREE) as service:
        return counted(service)


async def test_what_was_granted_and_denied_before_a_kill_counts_after_it() -> None:
    """By the same processes, too: one that asked before and asks again is one."""
    world = World()
    await asked_often(world)
    async with world.running(THRICE) as service:
        assert counted(service) == HistoryFacts(2, 1, 3)
        await grant(service, 2)
        assert counted(service) == HistoryFacts(3, 1, 3)
        with pytest.raises(Denied, match="a condition of this task is not met"):
            await grant(service)
    assert await after_restart(world) == HistoryFacts(3, 2, 3)


async def test_an_automatic_approval_does_not_come_again_with_a_restart() -> None:
    """`automatic: history.grants == 0` means once an hour, not once for each daemon."""
    world, text = a_world(), policy_text(automatic="history.grants == 0")
    states = []
    for key in ("one", "other"):
        async with world.running(text) as service:
            view = await service.start(caller(), ask(), IdempotencyKey(key, "body"))
            states.append(view.state)
    assert states == [TaskState.ACTIVE, TaskState.AWAITING_APPROVAL]


async def test_changes_count_as_they_did() -> None:
    """A change that was granted, and one that was denied."""
    world = World()
    async with world.running(FREE) as service:
        view = await service.start(caller(), ask(), None)
        await service.change(caller(), view.id, lambda request: request, None)
        with suppress(TaskmintError):
            await service.change(
                caller(), view.id, lambda old: replace(old, parameters={"region": "no"}), None
            )
        before = counted(service)
    assert before == HistoryFacts(2, 1, 1)
    assert await after_restart(world) == before


async def test_what_is_older_than_an_hour_does_not_count() -> None:
    """To the second, as in memory."""
    world = World()
    await asked_often(world)
    world.clock.pass_time(HOUR - timedelta(minutes=1))
    assert await after_restart(world) == HistoryFacts(2, 1, 3)
    world.clock.pass_time(timedelta(minutes=1))
    assert await after_restart(world) == HistoryFacts()


@pytest.mark.parametrize("jump", JUMPS, ids=str)
async def test_a_wall_clock_that_was_set_loses_none_and_keeps_none_too_long(
    jump: timedelta,
) -> None:
    """Within one boot the boot clock says how old a row is."""
    world = World()
    await asked_often(world)
    world.clock.wall_offset += jump
    assert await after_restart(world) == HistoryFacts(2, 1, 3)
    async with world.running(FREE) as service:
        await grant(service, 1)
    assert await after_restart(world) == HistoryFacts(3, 1, 3)
    world.clock.pass_time(HOUR)
    assert await after_restart(world) == HistoryFacts()


@pytest.mark.parametrize("jump", JUMPS, ids=str)
async def test_a_wall_clock_set_before_a_reboot_loses_none(jump: timedelta) -> None:
    """The newest row of a boot says by the wall clock when that was; from there its own counts."""
    world = World()
    await asked_often(world)
    world.clock.pass_time(timedelta(minutes=30))
    world.clock.wall_offset += jump
    async with world.running(FREE) as service:
        await grant(service, 1)
    world.boot_id = "boot-2"
    world.clock.boot_offset = 0.0
    world.clock.pass_time(timedelta(minutes=10))
    assert await after_restart(world) == HistoryFacts(3, 1, 3)
    world.clock.pass_time(timedelta(minutes=25))
    assert await after_restart(world) == HistoryFacts(1, 0, 1)


async def test_a_wall_clock_set_back_by_a_reboot_loses_none() -> None:
    """What stands in the future has happened just now; a pid of another boot is another process."""
    world = World()
    await asked_often(world)
    world.boot_id = "boot-2"
    world.clock.wall_offset -= timedelta(days=400)
    async with world.running(FREE) as service:
        assert counted(service) == HistoryFacts(2, 1, 3)
        await grant(service, 1)
        assert counted(service) == HistoryFacts(3, 1, 4)


async def test_rows_of_older_versions_count_as_a_process_each() -> None:
    """They do not say who asked, nor when by the boot clock: the wall clock has to do."""
    world = World()
    async with world.running(FREE) as service:
        for _ in range(3):
            await grant(service, 1)
        rows = [_older(entry) for entry in world.ledger.entries]
    world.ledger.entries = rows
    assert await after_restart(world) == HistoryFacts(3, 0, 3)
    world.clock.pass_time(HOUR)
    assert await after_restart(world) == HistoryFacts()


def _older(entry: Entry) -> Entry:
    facts = {name: value for name, value in entry.facts.items() if name != "asked_by"}
    return replace(entry, facts=facts)


async def test_what_was_read_back_grows_old_as_what_was_counted_since() -> None:
    """One after the other leaves the hour, and a row of the future leaves it an hour from now."""
    world = World()
    await asked_often(world)
    world.clock.pass_time(timedelta(minutes=40))
    async with world.running(FREE) as service:
        await grant(service, 1)
    world.ledger.entries.append(_older(replace(world.ledger.entries[0], at=far_from(world))))
    async with world.running(FREE) as service:
        assert counted(service) == HistoryFacts(4, 1, 4)
        world.clock.pass_time(timedelta(minutes=30))
        assert counted(service) == HistoryFacts(2, 0, 2)
        world.clock.pass_time(timedelta(minutes=30))
        assert counted(service) == HistoryFacts()


def far_from(world: World) -> datetime:
    """A moment that has not come."""
    return world.clock.utcnow() + timedelta(days=400)


async def test_a_row_that_cannot_be_read_keeps_no_other_from_counting() -> None:
    """It can be counted for nobody."""
    world = World()
    await asked_often(world)
    changes: list[dict[str, Json]]
    changes = [{"spiffe_id": "nobody"}, {"asked_by": "somebody"}, {"asked_by": {}}]
    for change in changes:
        entry = world.ledger.entries[0]
        world.ledger.entries.append(replace(entry, facts={**entry.facts, **change}))
    hour = LastHour(world.clock, world.boot_id)
    await world.ledger.newest_first({Event.INTENT, Event.DENIED}, hour.look)

    assert hour.unreadable == 3
    assert await after_restart(world) == HistoryFacts(2, 1, 3)


async def test_p10_no_more_is_kept_than_a_history_remembers_and_no_older_row_is_asked_for() -> None:
    """The newest of a busy identity, and nothing behind the first that is surely too old."""
    world, history = World(), History()
    await asked_often(world)
    (row, *_) = world.ledger.entries
    hour = LastHour(world.clock, world.boot_id)
    for _ in range(2 * MOST_REMEMBERED):
        assert hour.look(row)
    assert len(hour) == MOST_REMEMBERED
    world.clock.pass_time(HOUR)
    assert LastHour(world.clock, world.boot_id).look(row)
    world.clock.pass_time(HOUR / 2)
    assert not LastHour(world.clock, world.boot_id).look(row)

    hour.into(history)
    assert history.facts(caller().spiffe_id, 0.0).grants == MOST_REMEMBERED
    later = world.clock.boottime() + HOUR_SECONDS
    assert history.facts(caller().spiffe_id, later) == HistoryFacts()


async def test_nothing_is_decided_before_the_last_hour_is_known() -> None:
    """A disk that cannot be read at first grants nothing; then all of it counts, by the policy of
    then. The daemon is ready meanwhile.
    """
    world = World()
    await asked_often(world)
    world.ledger.hour_unreadable = 1
    async with world.running(FREE, recovered=False) as service:
        recovery = asyncio.create_task(service.recover())
        asked = asyncio.create_task(service.start(caller(), ask(), None))
        for _ in range(10):
            await asyncio.sleep(0)
        assert service.ready() is None
        assert not asked.done()
        service.adopt_policy(policy(THRICE.replace("< 3", "< 2")))
        await recovery

        with pytest.raises(Denied, match="a condition of this task is not met"):
            await asked


async def test_a_start_that_waited_for_the_last_hour_does_not_outrun_a_stop() -> None:
    """Nothing is minted by a daemon that stops."""
    world = World()
    async with world.running(FREE, recovered=False) as service:
        asked = asyncio.create_task(service.start(caller(), ask(), None))
        await asyncio.sleep(0)
        await service.stop(revoke=False, grace=timedelta())
        await service.recover()
        with pytest.raises(Unavailable, match="the daemon is stopping"):
            await asked
    assert world.vault.calls == []


def test_p12_a_last_hour_that_cannot_be_read_starts_nothing() -> None:
    """After ten seconds the caller is told to come again."""
    loop = VirtualTimeLoop()
    world = World(ledger=MemoryLedger(hour_unreadable=1_000))

    async def asking() -> None:
        async with world.running(FREE, recovered=False) as service:
            recovery = loop.create_task(service.recover())
            with pytest.raises(Unavailable, match="last hour") as refused:
                await service.start(caller(), ask(), None)
            recovery.cancel()
            assert refused.value.code is Code.LEDGER_UNAVAILABLE

    try:
        loop.run_until_complete(asking())
    finally:
        loop.close()
    assert world.ledger.entries == []
