"""What begins while somebody ends: no start and no request falls between (P4)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from taskmint.errors import Conflict, Denied, Unavailable
from taskmint.model.caller import Caller
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Event
from taskmint.tasks.operating import (
    Selector,
    by_definition,
    by_identity,
    by_task,
    by_ticket,
    everything,
)
from taskmint.tasks.service import TaskService
from taskmint.tasks.task import EndedBy
from taskmint.tasks.views import TaskView

from tasks import test_break_glass as emergency
from tasks.approvals import KEY, a_world, approved, policy_text
from tasks.test_break_glass import DOOR, Desk
from tasks.world import World, ask, caller, policy

STEPS = range(1, 25)  # of the loop, after which the end comes: more than any of these starts takes
BY = EndedBy(0, "stop it")
TICKETED = replace(ask(), ticket="INC-1")

End = Callable[[TaskService], Awaitable[object]]
Start = Callable[[TaskService, Caller], Awaitable[TaskView]]


def pulled(select: Selector) -> End:
    """The kill switch."""
    return lambda service: service.operators.revoke(select, EndCause.OPERATOR, BY)


async def withdrawn(service: TaskService) -> None:
    """The authority that vouched for the caller stands no more."""
    service.end_withdrawn(lambda authority: authority != "jwt:a#1")


async def emergency_policy(service: TaskService) -> None:
    """A policy that knows the caller no more."""
    service.adopt_policy(policy(DOOR.replace("/job", "/somebody-else")))


async def other_policy(service: TaskService) -> None:
    """A policy whose approvals are of another digest."""
    service.adopt_policy(policy(policy_text(1)))


ENDS = [
    pulled(everything()),
    pulled(by_identity("spiffe://example.org/**")),
    pulled(by_ticket("INC-1")),
    withdrawn,
]


async def after(steps: int, starting: Awaitable[TaskView]) -> "asyncio.Task[TaskView]":
    """Begin, and let the loop go so many steps."""
    begun = asyncio.ensure_future(starting)
    for _ in range(steps):
        await asyncio.sleep(0)
    return begun


def vouched() -> Caller:
    """A caller whose authority can be withdrawn."""
    return replace(caller(), authority="jwt:a#1")


async def settled(begun: "asyncio.Task[TaskView]") -> TaskView | None:
    """What was answered; None for "it has ended"."""
    async with asyncio.timeout(20):
        try:
            return await begun
        except Conflict:
            return None


async def nothing_lives(world: World, service: TaskService) -> None:
    """Everything that was minted is taken back, and nothing waits for a yes."""
    async with asyncio.timeout(20):
        while world.vault.alive:
            await asyncio.sleep(0.01)
    assert service.approving.waiting_now() == []


@pytest.mark.parametrize("end", [*ENDS, pulled(by_definition("repair")), emergency_policy])
async def test_p4_an_end_that_comes_while_an_emergency_starts_ends_it(end: End) -> None:
    """At whatever step of the start: while its ticket is asked for, or while it is minted."""
    for steps in STEPS:
        desk = Desk({"INC-1"}, gate=asyncio.Event())
        world = World(tickets=desk)
        async with world.running(DOOR) as service:
            begun = await after(steps, service.start(vouched(), emergency.ask(), None))
            assert desk.asked  # so the first of all steps lies before the answer
            await end(service)
            assert desk.gate is not None
            desk.gate.set()
            assert await settled(begun) is None
            await nothing_lives(world, service)
        assert world.vault.requests == []


@pytest.mark.parametrize("end", [*ENDS, pulled(by_definition("repair"))])
async def test_p4_an_end_that_comes_after_the_ticket_was_found_open_ends_it(end: End) -> None:
    """The same where the ticket's answer comes at once: every later step is tried."""
    for steps in STEPS:
        world = World(tickets=Desk({"INC-1"}))
        async with world.running(DOOR) as service:
            begun = await after(steps, service.start(vouched(), emergency.ask(), None))
            await end(service)
            await settled(begun)
            await nothing_lives(world, service)


async def test_p4_the_order_counts_a_start_whose_ticket_is_being_asked_for() -> None:
    """It is proven once that start has come to nothing; a `failed` row says why."""
    desk = Desk({"INC-1"}, gate=asyncio.Event())
    world = World(tickets=desk)
    async with world.running(DOOR) as service:
        begun = await after(1, service.start(caller(), emergency.ask(), None))
        (shown,) = service.operators.overview()
        order = await service.operators.revoke(by_task(shown.id), EndCause.OPERATOR, BY)
        assert (order.matched, order.proven) == (1, 0)
        assert desk.gate is not None
        desk.gate.set()
        order = await service.operators.order(order.number, timedelta(seconds=20))
        assert (order.matched, order.proven) == (1, 1)
        assert await settled(begun) is None
    assert world.ledger.events() == [Event.FAILED]


async def test_a_start_whose_ticket_is_closed_leaves_nothing_behind() -> None:
    """Neither a task that is shown, nor a place that is taken, nor a watched process."""
    desk = Desk(gate=asyncio.Event())
    world = World(tickets=desk)
    async with world.running(DOOR) as service:
        begun = await after(1, service.start(caller(), emergency.ask(), None))
        assert len(world.processes.watches) == 1
        assert desk.gate is not None
        desk.gate.set()
        with pytest.raises(Denied):
            await begun
        assert service.operators.overview() == []
        assert service.operators.figures().tasks == {}
        assert all(watch.closed for watch in world.processes.watches)


@pytest.mark.parametrize("end", [*ENDS, pulled(by_definition("report")), other_policy])
async def test_p4_an_end_that_comes_while_a_request_is_recorded_ends_it(end: End) -> None:
    """At whatever step: a request that is on its way to the disk is ended as well."""
    for steps in STEPS:
        world = a_world()
        gate = world.ledger.gates[TaskState.AWAITING_APPROVAL] = asyncio.Event()
        async with world.running(policy_text()) as service:
            begun = await after(steps, service.start(vouched(), TICKETED, KEY))
            await end(service)
            gate.set()
            assert await settled(begun) is None
            await nothing_lives(world, service)
            with pytest.raises(Conflict, match="the request is"):
                await service.start(vouched(), TICKETED, KEY)
        assert sorted(world.ledger.events()) == [Event.AWAITING_APPROVAL, Event.REQUEST_ENDED]
        assert world.notifier.kinds() == []


async def test_p4_a_request_by_a_caller_whose_authority_has_just_gone_does_not_wait() -> None:
    """P4: proven before the withdrawal, asked after it."""
    world = a_world()
    async with world.running(policy_text()) as service:
        await withdrawn(service)
        with pytest.raises(Conflict, match="the identity was withdrawn"):
            await service.start(vouched(), ask(), KEY)
        assert service.approving.waiting_now() == []


async def test_a_request_ended_while_its_row_is_lost_frees_its_place_once() -> None:
    """Neither the lost row nor the end keeps the next request from waiting."""
    world = a_world()
    gate = world.ledger.gates[TaskState.AWAITING_APPROVAL] = asyncio.Event()
    world.ledger.unheard = {Event.AWAITING_APPROVAL}
    async with world.running(policy_text()) as service:
        begun = await after(3, service.start(vouched(), ask(), KEY))
        await pulled(everything())(service)
        gate.set()
        with pytest.raises(Unavailable):
            await begun
        world.ledger.unheard.clear()
        assert service.operators.figures().waiting.approvals == 0


@pytest.mark.parametrize("end", [pulled(everything()), withdrawn, pulled(by_definition("report"))])
async def test_p4_an_end_that_comes_while_an_approved_request_is_collected_ends_it(
    end: End,
) -> None:
    """At whatever step of the collecting start."""
    for steps in STEPS:
        world = a_world()
        async with world.running(policy_text()) as service:
            await approved(service, world)
            begun = await after(steps, service.start(vouched(), ask(), KEY))
            await end(service)
            await settled(begun)
            await nothing_lives(world, service)
