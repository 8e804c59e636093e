"""What a stop waits for, what it hurries, and what it leaves to the next start (P4, P8)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
import structlog

from taskmint.errors import Unavailable
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Entry, Event
from taskmint.tasks.outside import Outside, Settings
from taskmint.tasks.revocation import LAST_ATTEMPT_SECONDS
from taskmint.tasks.service import TaskService

from fakes.ledger import MemoryLedger
from fakes.observer import Seen
from fakes.processes import FakeProcesses
from fakes.vault import FakeVault, away, refused
from fakes.virtual_time import VirtualClock, VirtualTimeLoop
from tasks.world import REPORT, World, ask, caller, policy

GRACE = timedelta(seconds=20)
NO_WAIT = timedelta()


@dataclass
class Hour:
    """A service in virtual time, and what it is given."""

    vault: FakeVault
    ledger: MemoryLedger
    service: TaskService
    loop: VirtualTimeLoop

    async def stopped_within(self, *, revoke: bool = False) -> float:
        """Stop; say how many seconds that took."""
        begun = self.loop.time()
        await self.service.stop(revoke=revoke, grace=timedelta(seconds=30))
        return self.loop.time() - begun


def living(story: Callable[[Hour], Awaitable[None]], text: str = REPORT) -> list[Entry]:
    """Live through a story in virtual time; return the ledger's rows."""
    loop = VirtualTimeLoop()
    clock, vault, ledger = VirtualClock(loop), FakeVault(), MemoryLedger()
    log = structlog.stdlib.get_logger()
    outside = Outside(vault, ledger, FakeProcesses(), clock, Seen(), log)
    crashes: list[BaseException] = []

    async def told() -> None:
        service = TaskService(policy(text), outside, Settings("node-a", "boot-1"), crashes.append)
        await service.recover()
        await story(Hour(vault, ledger, service, loop))

    try:
        loop.run_until_complete(asyncio.wait_for(told(), 3600))
    finally:
        loop.close()
    assert crashes == []
    return ledger.entries


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

    async def story(hour: Hour) -> None:
        view = await hour.service.start(caller(), ask(), None)
        hour.vault.faults["revoke"].extend(away(created_nothing=True) for _ in range(1000))
        await hour.service.end(caller(), view.id, EndCause.SUCCEEDED, timedelta(seconds=300))
        hour.vault.faults.clear()
        assert await hour.stopped_within(revoke=True) < 1
        assert hour.vault.alive == set()

    assert living(story)[-1].event is Event.REVOKED


def test_p8_a_stop_leaves_what_one_more_attempt_does_not_prove() -> None:
    """Vault refuses: a try each, and no 30 s; what Vault does take back is still proven."""

    async def story(hour: Hour) -> None:
        views = [await hour.service.start(caller(), ask(), None) for _ in range(3)]
        hour.vault.faults["revoke"].extend(refused() for _ in range(1000))
        for view in views:
            await hour.service.end(caller(), view.id, EndCause.SUCCEEDED, timedelta(seconds=60))
        tried = hour.vault.calls.count("revoke")
        assert await hour.stopped_within() < 1
        assert 0 < hour.vault.calls.count("revoke") - tried <= 2 * len(views)

    entries = living(story)
    assert [entry.event for entry in entries][-3:] == [Event.ENDING] * 3


@pytest.mark.parametrize("hangs", ["revoke", "is_gone"])
def test_p8_a_stop_does_not_wait_for_a_vault_that_does_not_answer(hangs: str) -> None:
    """However many revocations wait behind each other: the mount is away, all of them are left."""

    async def story(hour: Hour) -> None:
        views = [await hour.service.start(caller(), ask(), None) for _ in range(40)]
        hour.vault.gates[hangs] = asyncio.Event()
        for view in views:
            await hour.service.end(caller(), view.id, EndCause.SUCCEEDED, NO_WAIT)
        await asyncio.sleep(1)
        assert await hour.stopped_within() < 2 * LAST_ATTEMPT_SECONDS

    assert Event.REVOKED not in {entry.event for entry in living(story)}


def test_p4_a_stop_insists_on_what_it_has_to_end_itself() -> None:
    """`daemon_stop: revoke` is a promise of the policy: that is tried as long as there is time."""

    async def story(hour: Hour) -> None:
        await hour.service.start(caller(), ask(), None)
        hour.vault.faults["revoke"].extend(refused() for _ in range(12))
        assert 1 < await hour.stopped_within() < 30
        assert hour.vault.alive == set()

    text = REPORT.replace("heartbeat: 60s}", "heartbeat: 60s, daemon_stop: revoke}")
    assert [entry.event for entry in living(story, text)][-1] is Event.REVOKED


def test_p8_a_stop_waits_for_no_disk_and_no_renewal() -> None:
    """Rows that cannot be written follow from what is found at the next start; so do renewals."""

    async def story(hour: Hour) -> None:
        ended = await hour.service.start(caller(), ask(), None)
        await hour.service.start(caller(), ask(), None)
        hour.vault.gates["renew"] = asyncio.Event()
        await asyncio.sleep(25)
        hour.ledger.full = True
        await hour.service.end(caller(), ended.id, EndCause.SUCCEEDED, timedelta(seconds=1))
        assert hour.vault.in_flight["renew"] > 0
        assert await hour.stopped_within() < 1

    assert living(story)[-1].event is Event.ACTIVE


async def test_p4_a_stop_says_how_much_it_had_to_cut_short() -> None:
    """Vault stays away: the revocation is not proven within the grace."""
    world = World()
    async with world.running() as service:
        await service.start(caller(), ask(), None)
        world.vault.faults["revoke"].extend(away(created_nothing=True) for _ in range(1000))
        assert await service.stop(revoke=True, grace=timedelta(milliseconds=300)) == 1
