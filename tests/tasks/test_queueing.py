"""Mints in flight are bounded, fairly between mounts; renewals come as no herd (P10, P6)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from taskmint.errors import Code, Conflict, LimitExceeded
from taskmint.model.state import EndCause, TaskState
from taskmint.tasks.lanes import Lanes
from taskmint.tasks.limits import TaskLimits
from taskmint.tasks.operating import everything
from taskmint.tasks.queueing import WAITING_PER_PLACE, MintQueue
from taskmint.tasks.renewal import PARALLEL_RENEWALS, first_renewal, next_renewal
from taskmint.tasks.task import EndedBy

from tasks.world import REPORT, SHORT, World, ask, caller

WAIT = timedelta(seconds=20)
SLOW, FAST = frozenset({"slow"}), frozenset({"fast"})
KEPT = SHORT.replace("DEADLINE", "5m").replace("ENDS", "{deadline_only: true}")


async def until_waiting(queue: MintQueue, count: int) -> None:
    """Let the others run until so many wait."""
    async with asyncio.timeout(10):
        while queue.waiting != count:
            await asyncio.sleep(0)


@asynccontextmanager
async def held(queue: MintQueue, mounts: frozenset[str], times: int) -> AsyncIterator[None]:
    """Hold places until the end of the block."""
    done = asyncio.Event()

    async def hold() -> None:
        async with queue.place(mounts):
            await done.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(times):
            group.create_task(hold())
        await asyncio.sleep(0)
        yield
        done.set()


async def test_p10_a_slow_mount_takes_half_of_the_places_and_holds_nobody_else_up() -> None:
    """P10: its own callers wait; those of another mount, behind them in the queue, go first."""
    queue = MintQueue(4)
    async with held(queue, SLOW, times=5):
        await until_waiting(queue, 3)
        async with asyncio.timeout(1):
            for _ in range(10):
                async with queue.place(FAST):
                    pass
    await until_waiting(queue, 0)


async def test_p10_the_queue_is_bounded() -> None:
    """P10: beyond eight waiting for each place it is 429, with a time to retry."""
    queue = MintQueue(2)
    async with held(queue, SLOW, times=1 + 2 * WAITING_PER_PLACE):
        await until_waiting(queue, 2 * WAITING_PER_PLACE)
        with pytest.raises(LimitExceeded) as refusal:
            async with queue.place(SLOW):
                raise AssertionError("there is no place")
        assert refusal.value.retry_after > timedelta()


async def test_who_gives_up_waiting_leaves_no_place_taken() -> None:
    """Cancelled while waiting, or in the very moment of its turn."""
    queue = MintQueue(1)
    async with held(queue, SLOW, times=1):
        waiting = asyncio.create_task(_pass(queue))
        await until_waiting(queue, 1)
        waiting.cancel()
        await until_waiting(queue, 0)
    first = queue.place(SLOW)
    await first.__aenter__()
    waiting = asyncio.create_task(_pass(queue))
    await until_waiting(queue, 1)
    await first.__aexit__(None, None, None)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(1):
        await _pass(queue)


async def _pass(queue: MintQueue) -> None:
    async with queue.place(SLOW):
        pass


async def test_places_are_given_in_order() -> None:
    """First come, first served."""
    queue = MintQueue(1)
    order: list[int] = []

    async def take(number: int) -> None:
        async with queue.place(SLOW):
            order.append(number)

    async with held(queue, SLOW, times=1):
        tasks = [asyncio.create_task(take(number)) for number in range(5)]
        await until_waiting(queue, 5)
    await asyncio.gather(*tasks)

    assert order == [0, 1, 2, 3, 4]


async def test_p10_mints_in_flight_are_as_many_as_configured() -> None:
    """P10: the others wait, and all are started in the end."""
    world = World()
    world.vault.gates["mint"] = asyncio.Event()
    limits = TaskLimits(mints_in_flight=4)
    async with world.running(KEPT, limits=limits) as service:
        starts = [asyncio.create_task(service.start(caller(), ask(), None)) for _ in range(6)]
        await world.vault.until_called("mint", times=2)
        await asyncio.sleep(0.05)
        assert world.vault.calls.count("mint") == 2  # half of four: they are all of one mount
        world.vault.gates["mint"].set()
        views = await asyncio.gather(*starts)

        assert {view.state for view in views} == {TaskState.ACTIVE}


async def test_p4_a_task_that_ends_while_it_waits_mints_nothing() -> None:
    """The kill switch reaches the queue as well."""
    world = World()
    world.vault.gates["mint"] = asyncio.Event()
    async with world.running(KEPT, limits=TaskLimits(mints_in_flight=1)) as service:
        starts = [asyncio.create_task(service.start(caller(), ask(), None)) for _ in range(2)]
        await world.vault.until_called("mint")
        await service.operators.revoke(everything(), EndCause.OPERATOR, EndedBy(0))
        world.vault.gates["mint"].set()
        answers = await asyncio.gather(*starts, return_exceptions=True)

        assert [type(answer) for answer in answers] == [Conflict, Conflict]
        assert world.vault.calls.count("create_task_token") == 1


async def test_p10_where_too_much_cannot_be_revoked_no_more_is_minted() -> None:
    """P10: the mount's own starts are refused until the revocations are proven."""
    world = World()
    world.vault.stubborn = True
    limits = TaskLimits(unproven_revocations=2)
    async with world.running(limits=limits) as service:
        views = [await service.start(caller(), ask(), None) for _ in range(2)]
        for view in views:
            await service.end(caller(), view.id, EndCause.SUCCEEDED, timedelta(milliseconds=50))
        with pytest.raises(LimitExceeded) as refusal:
            await service.start(caller(), ask(), None)
        assert refusal.value.code is Code.LIMIT_EXCEEDED
        assert "unproven" in refusal.value.detail
        world.vault.stubborn = False
        for view in views:
            await service.show(caller(), view.id, WAIT)

        assert (await service.start(caller(), ask(), None)).state is TaskState.ACTIVE


async def test_p10_starts_of_the_whole_node_are_paced() -> None:
    """P10: many identities together are many."""
    world = World()
    any_job = REPORT.replace("example.org/job", "example.org/*")
    async with world.running(any_job, limits=TaskLimits(starts_per_minute=2)) as service:
        for path in ("/a", "/b"):
            await service.start(caller(path), ask(), None)
        with pytest.raises(LimitExceeded):
            await service.start(caller("/c"), ask(), None)


async def test_p10_lanes_keep_mounts_apart() -> None:
    """A mount whose calls hang has its own queue."""
    lanes = Lanes(1)
    async with lanes.through("slow"), asyncio.timeout(1), lanes.through("fast"):
        pass


async def test_p10_an_outage_of_one_mount_does_not_stop_the_renewals_of_another() -> None:
    """P10: sixteen renewals that hang at one mount leave the others' way free."""
    world = World()
    world.vault.ttl = timedelta(seconds=1.5)
    other = KEPT + KEPT[KEPT.index("  report:") :].replace("  report:", "  other:").replace(
        "mount: database", "mount: kv"
    )
    async with world.running(other) as service:
        world.vault.hanging.add("database")
        for _ in range(PARALLEL_RENEWALS + 4):
            await service.start(caller(), ask(), None)
        view = await service.start(caller(), ask("other"), None)
        await world.vault.until_called("renew", times=PARALLEL_RENEWALS)
        before = view.guaranteed_until
        async with asyncio.timeout(10):
            while (await service.show(caller(), view.id, timedelta())).guaranteed_until <= before:
                await asyncio.sleep(0.05)
        world.vault.hanging.clear()


def test_p6_ten_thousand_tasks_that_started_together_are_renewed_without_a_herd() -> None:
    """
    P6: in each of five rounds no second has more than two and a half times its share, and there are
    three more attempts for each, should the first fail.
    """
    life = timedelta(seconds=60)
    due = [first_renewal(life, 0) for _ in range(10_000)]
    for rounds in range(5):
        by_second = Counter(map(int, due))
        share = len(due) / (max(due) - min(due))
        assert max(by_second.values()) < 2.5 * share, rounds
        due = [next_renewal(life, when) for when in due]


async def test_p10_after_a_restart_renewals_come_a_few_at_a_time() -> None:
    """P10: all are due at once, since nobody knows how long it took; sixteen go at each mount."""
    world = World()
    world.vault.ttl = timedelta(seconds=60)
    async with world.running(KEPT) as service:
        for _ in range(20):
            await asyncio.gather(*(service.start(caller(), ask(), None) for _ in range(25)))
        await service.stop(revoke=False, grace=WAIT)
    world.vault.peak.clear()
    async with world.running(KEPT):
        await world.vault.until_called("renew", times=1000)

        assert world.vault.peak["renew"] <= 2 * PARALLEL_RENEWALS
