"""The end of a request is told once it is durable: until then a crash would undo it (P7, P8)."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from taskmint.errors import Conflict, Denied, Unavailable
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Event
from taskmint.tasks.operating import everything
from taskmint.tasks.service import TaskService
from taskmint.tasks.task import EndedBy
from taskmint.tasks.views import TaskView

from fakes.virtual_time import VirtualTimeLoop
from tasks.approvals import ANN, DPO, KEY, a_world, approved, asked, policy_text, says
from tasks.test_approvals import NO_WAIT, SOON, state_of
from tasks.world import World, ask, caller

POLICY = policy_text()
BY = EndedBy(0, "incident")

End = Callable[[TaskService, World, TaskView], Awaitable[object]]


async def by_caller(service: TaskService, _world: World, view: TaskView) -> object:
    """DELETE."""
    return await service.end(caller(), view.id, EndCause.CANCELLED, NO_WAIT)


async def by_operator(service: TaskService, _world: World, view: TaskView) -> object:
    """`taskmint end`."""
    return await service.operators.end(view.id, BY, NO_WAIT)


async def by_kill_switch(service: TaskService, _world: World, _view: TaskView) -> object:
    """`taskmint revoke --all`."""
    return await service.operators.revoke(everything(), EndCause.OPERATOR, BY)


async def by_approver(service: TaskService, world: World, view: TaskView) -> object:
    """An approval is withdrawn."""
    return await service.approving.receive(0, says(world, view, ANN, outcome="withdraw"))


@pytest.mark.parametrize("end", [by_caller, by_operator, by_kill_switch, by_approver])
async def test_p7_an_end_that_is_not_durable_is_not_told_to_be_done(end: End) -> None:
    """P7: it has its effect, the answer says that it may be undone, and so does the next."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        world.ledger.full_at = {Event.REQUEST_ENDED}
        for _ in range(2):
            with pytest.raises(Unavailable, match="not in the ledger yet"):
                await end(service, world, view)
            with pytest.raises(Conflict, match="the request is failed"):
                await asked(service)
        assert await state_of(service, view.id) is TaskState.FAILED
    assert world.vault.requests == []


@pytest.mark.parametrize("end", [by_caller, by_operator, by_kill_switch, by_approver])
async def test_p8_an_end_that_was_told_to_be_done_outlives_a_crash(end: End) -> None:
    """P8: killed right after the answer, nothing comes back that could be collected."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        await end(service, world, view)
        rows = list(world.ledger.entries)
    world.ledger.entries = rows
    async with world.running(POLICY) as service:
        fresh = await asked(service)
        assert fresh.id != view.id
        assert fresh.state is TaskState.AWAITING_APPROVAL


async def test_p8_a_denial_that_cannot_be_recorded_is_told_so() -> None:
    """P8: the statement's row is enough for the next start; the end's is missing still."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await asked(service)
        world.ledger.full_at = {Event.REQUEST_ENDED}
        with pytest.raises(Unavailable):
            await service.approving.receive(0, says(world, view, DPO, outcome="deny"))
    world.ledger.full_at = set()
    async with world.running(POLICY) as service:
        assert await state_of(service, view.id) is TaskState.DENIED


async def test_p4_the_kill_switch_revokes_tasks_also_when_a_request_keeps_it_from_done() -> None:
    """P4: the error is about what waits; what runs is being revoked."""
    world = a_world()
    async with world.running(policy_text(automatic="history.grants == 0")) as service:
        task = await service.start(caller(), ask(), None)
        view = await asked(service)
        world.ledger.full_at = {Event.REQUEST_ENDED}
        with pytest.raises(Unavailable):
            await by_kill_switch(service, world, view)
        over = await service.show(caller(), task.id, SOON)
        assert over.cause is EndCause.OPERATOR


def test_p7_repeating_it_succeeds_once_the_ledger_can_be_written() -> None:
    """The row is tried again without anybody's asking; then the same call is answered as done."""
    loop = VirtualTimeLoop()

    async def story() -> None:
        world = a_world()
        async with world.running(POLICY) as service:
            view = await approved(service, world)
            world.ledger.full_at = {Event.REQUEST_ENDED}
            with pytest.raises(Unavailable):
                await by_kill_switch(service, world, view)
            world.ledger.full_at = set()
            await asyncio.sleep(6)
            await by_kill_switch(service, world, view)
            await by_caller(service, world, view)
            with pytest.raises(Denied, match="the request is over"):
                await by_approver(service, world, view)
        assert world.ledger.events().count(Event.REQUEST_ENDED) == 1

    try:
        loop.run_until_complete(story())
    finally:
        loop.close()


async def test_p8_an_end_waits_for_its_own_row() -> None:
    """P8: while the row is on its way there is no answer."""
    world = a_world()
    async with world.running(POLICY) as service:
        view = await approved(service, world)
        gate = world.ledger.gates[TaskState.FAILED] = asyncio.Event()
        ending = asyncio.create_task(by_caller(service, world, view))
        world.ledger.held.clear()
        await world.ledger.held.wait()
        assert not ending.done()
        with pytest.raises(Conflict):
            await service.start(caller(), ask(), KEY)
        gate.set()
        await ending
    assert world.ledger.events()[-1] == Event.REQUEST_ENDED
