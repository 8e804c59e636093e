"""What a stop waits for, what it hurries, and what it leaves to the next start (P4, P8)."""

import asyncio
from datetime import timedelta

import pytest
import structlog

from taskmint.errors import Unavailable
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Event
from taskmint.tasks.outside import Outside, Settings
from taskmint.tasks.service import TaskService

from fakes.ledger import MemoryLedger
from fakes.observer import Seen
from fakes.processes import FakeProcesses
from fakes.vault import FakeVault, away
from fakes.virtual_time import VirtualClock, VirtualTimeLoop
from tasks.world import World, ask, caller, policy

GRACE = timedelta(seconds=20)


async def test_p8_what_only_waits_for_the_dead_man_is_left_to_the_next_start() -> None:
    """The reply of a mint was lost; all that can be revoked is, and the stop does not wait."""
    world = World()
    async with world.running() as service:
        world.vault.lost["mint"] = 1
        with pytest.raises(Unavailable):
            await service.start(caller(), ask(), None)
        begun = world.clock.boottime()
        assert await service.stop(revoke=False, grace=GRACE) == 0
        assert world.clock.boottime() - begun < GRACE.total_seconds() / 2

    assert world.vault.alive == set()
    assert world.ledger.events()[-1] == Event.ENDING
    async with world.running() as service:
        assert [view.state for view in service.operators.overview()] == [TaskState.REVOKING]
        world.clock.pass_time(timedelta(seconds=70))
        await service.show(caller(), service.operators.overview()[0].id, GRACE)
        assert world.ledger.events()[-1] == Event.REVOKED


async def test_p8_a_change_that_only_waits_for_the_dead_man_is_left_as_well() -> None:
    """Its revision is taken up by the next start, and the task goes on."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        world.vault.lost["mint"] = 1
        with pytest.raises(Unavailable):
            await service.change(caller(), view.id, lambda before: before, None)
        assert await service.stop(revoke=False, grace=GRACE) == 0

    assert world.ledger.entries[-1].event is Event.REVISION_ENDING
    async with world.running() as service:
        assert [one.state for one in service.operators.overview()] == [TaskState.ACTIVE]
        assert len(world.vault.alive) == 3


def test_p4_a_stop_tries_at_once_what_was_to_be_tried_later() -> None:
    """Vault has come back within a long pause between two attempts: a stop has no such time."""
    loop = VirtualTimeLoop()
    clock, vault = VirtualClock(loop), FakeVault()
    log = structlog.stdlib.get_logger()
    outside = Outside(vault, MemoryLedger(), FakeProcesses(), clock, Seen(), log)

    async def story() -> None:
        crashes: list[BaseException] = []
        service = TaskService(policy(), outside, Settings("node-a", "boot-1"), crashes.append)
        await service.recover()
        view = await service.start(caller(), ask(), None)
        vault.faults["revoke"].extend(away(created_nothing=True) for _ in range(1000))
        await service.end(caller(), view.id, EndCause.SUCCEEDED, timedelta(seconds=300))
        vault.faults.clear()
        begun = loop.time()
        assert await service.stop(revoke=True, grace=timedelta(seconds=30)) == 0
        assert loop.time() - begun < 1
        assert vault.alive == set()
        assert crashes == []

    try:
        loop.run_until_complete(asyncio.wait_for(story(), 3600))
    finally:
        loop.close()


async def test_p4_a_stop_says_how_much_it_had_to_cut_short() -> None:
    """Vault stays away: the revocation is not proven within the grace."""
    world = World()
    async with world.running() as service:
        await service.start(caller(), ask(), None)
        world.vault.faults["revoke"].extend(away(created_nothing=True) for _ in range(1000))
        assert await service.stop(revoke=True, grace=timedelta(milliseconds=300)) == 1
