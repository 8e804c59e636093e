"""Whoever follows a task hears the truth in time; a task bound to its stream ends with it (P4)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from taskmint.errors import NotFound
from taskmint.model.state import EndCause, TaskState
from taskmint.tasks.following import Following, RequestFollowing, Told
from taskmint.tasks.service import TaskService

from fakes.vault import away
from tasks.world import SHORT, World, ask, caller

WAIT = timedelta(seconds=20)
SECOND = timedelta(seconds=1)
BOUND = SHORT.replace("DEADLINE", "5m").replace("ENDS", "{connection: true}")
KEPT = SHORT.replace("DEADLINE", "5m").replace("ENDS", "{deadline_only: true}")


class Listener:
    """Reads a stream in the background and keeps what it was told."""

    def __init__(self, following: Following | RequestFollowing) -> None:
        self.following = following
        self.told: list[Told] = []
        self.news = asyncio.Condition()

    @property
    def heard(self) -> list[str]:
        """Each change as a word."""
        words = {"state": lambda one: one.view.state, "guarantee": lambda one: one.view.guarantee}
        return [words.get(one.topic, lambda one: one.topic)(one) for one in self.told]

    async def listen(self) -> None:
        """Until the stream ends."""
        with self.following:
            async for told in self.following.changes(10 * SECOND):
                if told is not None:
                    async with self.news:
                        self.told.append(told)
                        self.news.notify_all()

    async def until(self, *heard: str) -> None:
        """Wait until exactly this has been heard."""
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(lambda: self.heard == list(heard))


@asynccontextmanager
async def listening(service: TaskService, task_id: str) -> AsyncIterator[Listener]:
    """Follow a task; hang up at the end."""
    listener = Listener(await service.follow(caller(), task_id))
    task = asyncio.create_task(listener.listen())
    try:
        await listener.until("active")
        yield listener
    finally:
        listener.following.hang_up()
        await task


async def test_a_follower_hears_every_state_until_the_task_is_over() -> None:
    """The state at once, each change, and the end of the stream; never a credential."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        async with listening(service, view.id) as listener:
            await service.end(caller(), view.id, EndCause.FAILED, WAIT)
            await listener.until("active", "revoking", "revoked")

        assert listener.told[-1].view.cause is EndCause.FAILED
        assert all(told.view.credentials is None for told in listener.told)


async def test_only_the_owner_may_follow() -> None:
    """Somebody else's task is not there."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        with pytest.raises(NotFound):
            await service.follow(caller("/other"), view.id)


async def test_the_guarantee_is_told_at_half_when_it_is_kept_again_and_at_loss() -> None:
    """Renewals that fail past half of the life, one that works, then none until it has lapsed."""
    world = World()
    world.vault.ttl = 1.2 * SECOND
    world.vault.faults["renew"].extend(away() for _ in range(6))
    async with world.running(KEPT) as service:
        view = await service.start(caller(), ask(), None)
        async with listening(service, view.id) as listener:
            await listener.until("active", "half")
            world.vault.faults["renew"].clear()
            await listener.until("active", "half", "kept")
            world.vault.faults["renew"].extend(away() for _ in range(1000))
            world.clock.pass_time(timedelta(seconds=1.6))
            await listener.until("active", "half", "kept", "half")
            world.clock.pass_time(2 * SECOND)
            await listener.until(
                "active", "half", "kept", "half", "lost", "revoking", "revoked"
            )  # fmt: skip

        assert listener.told[-1].view.cause is EndCause.RENEWAL_LOST


async def test_p4_a_task_bound_to_its_connection_ends_when_the_stream_is_closed() -> None:
    """P4: the last follower left; while there is another, it goes on."""
    world = World()
    async with world.running(BOUND) as service:
        view = await service.start(caller(), ask(), None)
        async with listening(service, view.id):
            async with listening(service, view.id):
                pass
            assert (await service.show(caller(), view.id, timedelta())).state is TaskState.ACTIVE
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.CONNECTION_LOST
        assert world.vault.alive == set()


async def test_p4_a_task_bound_to_a_connection_that_never_comes_ends() -> None:
    """The reconnect grace is also how long the first stream may be waited for."""
    world = World()
    async with world.running(BOUND, reconnect_grace=0.2 * SECOND) as service:
        view = await service.start(caller(), ask(), None)
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.CONNECTION_LOST


async def test_a_task_that_is_not_bound_to_a_stream_does_not_end_with_it() -> None:
    """Following is free."""
    world = World()
    async with world.running(KEPT) as service:
        view = await service.start(caller(), ask(), None)
        async with listening(service, view.id):
            pass

        assert (await service.show(caller(), view.id, timedelta())).state is TaskState.ACTIVE


async def test_p8_a_planned_restart_closes_streams_and_waits_for_them_to_come_back() -> None:
    """P8: closed by the daemon is not lost; within the grace the stream is back."""
    world = World()
    async with world.running(BOUND) as service:
        view = await service.start(caller(), ask(), None)
        async with listening(service, view.id):
            service.hang_up()
            await service.stop(revoke=False, grace=WAIT)
    async with world.running(BOUND, reconnect_grace=0.5 * SECOND) as service:
        async with listening(service, view.id):
            shown = await service.show(caller(), view.id, 0.8 * SECOND)
            assert shown.state is TaskState.ACTIVE
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.CONNECTION_LOST


async def test_p8_after_a_restart_a_stream_that_does_not_come_back_ends_the_task() -> None:
    """The grace is bounded."""
    world = World()
    async with world.running(BOUND) as service:
        view = await service.start(caller(), ask(), None)
        await service.stop(revoke=False, grace=WAIT)
    async with world.running(BOUND, reconnect_grace=0.2 * SECOND) as service:
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.CONNECTION_LOST


async def test_a_quiet_stream_says_that_it_is_alive() -> None:
    """Nothing changes: None comes at the interval asked for."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        with await service.follow(caller(), view.id) as following:
            changes = following.changes(timedelta(milliseconds=20))
            first = await anext(changes)
            assert first is not None
            assert [await anext(changes), await anext(changes)] == [None, None]
