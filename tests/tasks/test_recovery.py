"""After a restart, tasks that may live are adopted and everything else is taken back (P8)."""

import asyncio
from datetime import timedelta

import pytest

from taskmint.errors import Code, NotFound, Unavailable
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Event
from taskmint.tasks.task import Guarantee, IdempotencyKey

from tasks.world import REPORT, SHORT, World, ask, caller

WAIT = timedelta(seconds=20)
SHORT_LIVED = SHORT.replace("DEADLINE", "5m").replace("ENDS", "{deadline_only: true}")


async def started(world: World, text: str = REPORT, key: IdempotencyKey | None = None) -> str:
    """Start one task and stop the service as a planned restart does."""
    async with world.running(text) as service:
        view = await service.start(caller(), ask(), key)
        await service.stop(revoke=False, grace=WAIT)
    return view.id


async def test_p8_a_running_task_is_adopted_and_renewed() -> None:
    """P8: its process lives, its deadline has not passed: it goes on under the same id."""
    world = World()
    task_id = await started(world)
    async with world.running() as service:
        shown = await service.show(caller(), task_id, timedelta())

        assert shown.state is TaskState.ACTIVE
        assert shown.credentials is None
        assert world.ledger.entries[-1].event is Event.ADOPTED
        world.processes.watches[-1].exit()
        ended = await service.show(caller(), task_id, WAIT)
        assert ended.cause is EndCause.PROCESS_EXITED
        assert world.vault.alive == set()


async def test_p8_an_adopted_task_is_renewed_at_once() -> None:
    """Nobody knows how long the restart took, so renewal does not wait."""
    world = World()
    task_id = await started(world)
    async with world.running() as service:
        await service.show(caller(), task_id, timedelta(milliseconds=500))

        assert "renewal ok" in world.seen.events


async def test_p8_an_adopted_task_is_guaranteed_nothing_before_a_renewal_has_answered() -> None:
    """Its credentials may lapse in a moment: callers are not told more than is known."""
    world = World()
    task_id = await started(world)
    world.vault.gates["renew"] = gate = asyncio.Event()
    async with world.running() as service:
        shown = await service.show(caller(), task_id, timedelta())
        assert shown.guaranteed_until <= world.clock.utcnow()
        assert shown.guarantee is Guarantee.HALF

        gate.set()
        async with asyncio.timeout(20):
            while shown.guaranteed_until <= world.clock.utcnow():
                await asyncio.sleep(0.005)
                shown = await service.show(caller(), task_id, timedelta())
        renewed = await service.show(caller(), task_id, timedelta())
        assert renewed.guarantee is Guarantee.KEPT


async def test_p8_a_task_whose_process_is_gone_is_taken_back() -> None:
    """The process died while nobody watched."""
    world = World()
    task_id = await started(world)
    world.processes.gone_pids = {4242}
    async with world.running() as service:
        ended = await service.show(caller(), task_id, WAIT)

        assert ended.cause is EndCause.NOT_RECOVERED
        assert world.vault.alive == set()


async def test_p8_a_task_whose_deadline_passed_meanwhile_is_taken_back() -> None:
    """Suspended or down past the deadline."""
    world = World()
    task_id = await started(world)
    world.clock.pass_time(timedelta(minutes=6))
    async with world.running() as service:
        assert (await service.show(caller(), task_id, WAIT)).state is TaskState.REVOKED


async def test_p8_after_a_reboot_the_wall_clock_says_what_is_left() -> None:
    """Boot-clock times of another boot mean nothing; a deadline-only task goes on until its own."""
    world = World()
    text = SHORT.replace("DEADLINE", "5m").replace("ENDS", "{deadline_only: true}")
    task_id = await started(world, text)
    world.boot_id = "boot-2"
    world.clock.boot_offset -= 10_000
    async with world.running(text) as service:
        shown = await service.show(caller(), task_id, timedelta())
        assert shown.state is TaskState.ACTIVE
        world.clock.boot_offset += 301
        assert (await service.show(caller(), task_id, WAIT)).cause is EndCause.DEADLINE


async def test_p11_a_policy_that_narrowed_meanwhile_ends_what_it_forbids() -> None:
    """A restart is no way around a reload."""
    world = World()
    task_id = await started(world)
    gone = REPORT.replace("spiffe://example.org/job", "spiffe://example.org/else")
    async with world.running(gone) as service:
        ended = await service.show(caller(), task_id, WAIT)

        assert ended.cause is EndCause.POLICY_NARROWED
        assert world.vault.alive == set()


async def test_p8_an_unreadable_task_does_not_keep_the_others_from_being_taken_up() -> None:
    """It is left unfinished, for people; the rest is adopted."""
    world = World()
    broken = await started(world)
    world.ledger.entries[0].facts["history"]["surprise"] = 1  # type: ignore[index,call-overload] # JSON
    task_id = await started(world)
    async with world.running() as service:
        assert [view.id for view in service.operators.overview()] == [task_id]
        assert broken in {
            entry.task for rows in (await world.ledger.unfinished()).tasks for entry in rows
        }


@pytest.mark.parametrize("kept", [1, 2])
async def test_p8_an_incomplete_task_is_not_adopted_though_its_process_lives(kept: int) -> None:
    """Without the row ACTIVE nobody knows what was minted; and `revoked` waits for the dead-man."""
    world = World()
    await started(world)
    del world.ledger.entries[kept:]
    async with world.running() as service:
        assert [view.state for view in service.operators.overview()] == [TaskState.REVOKING]
        world.clock.wall_offset += timedelta(hours=1)  # the wall clock has no say in it
        await service.show(caller(), service.operators.overview()[0].id, timedelta(seconds=1.5))
        assert [view.state for view in service.operators.overview()] == [TaskState.REVOKING]


@pytest.mark.parametrize("kept", [1, 2, 3])
async def test_p8_a_crash_after_any_durable_point_of_a_start_leaves_nothing(kept: int) -> None:
    """Intent alone, accessor known, or all known but never delivered to a living process."""
    world = World()
    await started(world)
    del world.ledger.entries[kept:]
    world.processes.gone_pids = {4242}
    async with world.running() as service:
        world.clock.pass_time(timedelta(seconds=70))
        await service.stop(revoke=False, grace=WAIT)

        assert world.ledger.entries[-1].event is Event.REVOKED
        if kept > 1:
            assert world.vault.alive == set()


async def test_p8_an_end_that_had_begun_is_seen_through() -> None:
    """Killed between ENDING and REVOKED: the next start revokes, under the same cause."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        await service.end(caller(), view.id, EndCause.FAILED, WAIT)
    del world.ledger.entries[-1]
    async with world.running() as service:
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.FAILED
        assert ended.state is TaskState.REVOKED


async def test_p8_finished_tasks_are_not_taken_up() -> None:
    """What reached a terminal state stays closed."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)
    async with world.running() as service:
        with pytest.raises(NotFound):
            await service.show(caller(), view.id, timedelta())


async def test_a_key_outlives_the_restart() -> None:
    """The same key and body still name the same task; its credentials are gone with the process."""
    world = World()
    key = IdempotencyKey("k", "b")
    task_id = await started(world, key=key)
    async with world.running() as service:
        known = service.operators.overview()
        assert [view.id for view in known] == [task_id]
        with pytest.raises(Exception, match="delivered and forgotten"):
            await service.start(caller(), ask(), key)


async def test_p8_from_a_ledger_in_doubt_nothing_is_adopted_and_everything_is_taken_back() -> None:
    """P4, P7, P12: the row that ended a task may be what is missing; and no new task starts."""
    world = World()
    task_id = await started(world, SHORT_LIVED)
    world.ledger.doubt = "row 2 of the ledger is missing"
    async with world.running(SHORT_LIVED) as service:
        ended = await service.show(caller(), task_id, timedelta(milliseconds=200))
        with pytest.raises(Unavailable, match="row 2 of the ledger is missing") as refused:
            await service.start(caller(), ask(), None)

        assert refused.value.code is Code.LEDGER_UNAVAILABLE
        assert ended.cause is EndCause.NOT_RECOVERED
        assert world.vault.alive == set()
        # A row of it may be missing, and with it a lease: that is proven by the dead-man alone.
        assert ended.state is TaskState.REVOKING


async def test_p8_a_ledger_that_cannot_be_read_yet_is_asked_again() -> None:
    """Its tasks are adopted when it can be; meanwhile nobody hears that they do not exist."""
    world = World()
    task_id = await started(world)
    world.ledger.unreadable = 2
    async with world.running() as service:
        assert (await service.show(caller(), task_id, timedelta())).state is TaskState.ACTIVE


async def test_p8_nobody_waits_for_the_record_of_an_adoption() -> None:
    """A disk that is slow after the restart holds up no caller of a task of before."""
    world = World()
    task_id = await started(world)
    world.ledger.gates[TaskState.ACTIVE] = recorded = asyncio.Event()
    async with world.running(recovered=False) as service:
        recovery = asyncio.create_task(service.recover())
        async with asyncio.timeout(5):
            shown = await service.show(caller(), task_id, timedelta())
        recorded.set()
        await recovery

    assert shown.state is TaskState.ACTIVE
    assert world.ledger.entries[-1].event is Event.ADOPTED


async def test_p8_the_daemon_is_ready_while_the_replay_is_held() -> None:
    """However long the ledger takes to read: tasks start, and those of before are waited for."""
    world = World()
    task_id = await started(world)
    world.ledger.reading = asyncio.Event()
    async with world.running(recovered=False) as service:
        recovery = asyncio.create_task(service.recover())
        begun = await service.start(caller(), ask(), None)
        asked = asyncio.create_task(service.show(caller(), task_id, timedelta()))
        await asyncio.sleep(0)

        assert service.ready() is None
        assert begun.state is TaskState.ACTIVE
        assert not asked.done()
        world.ledger.opened = 3
        world.ledger.reading.set()
        await recovery
        assert (await asked).state is TaskState.ACTIVE
