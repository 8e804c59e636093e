"""The kill switch: who is ended, who is not, and when it is proven (P4)."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from taskmint.errors import Conflict, NotFound
from taskmint.model.state import EndCause, TaskState
from taskmint.model.task_id import TaskId
from taskmint.ports import Event
from taskmint.tasks.ending import LEDGER_RETRY_SECONDS
from taskmint.tasks.operating import (
    ORDERS_REMEMBERED,
    Selector,
    by_definition,
    by_identity,
    by_task,
    by_ticket,
    everything,
)
from taskmint.tasks.task import EndedBy

from fakes.ledger import MemoryLedger
from tasks.world import REPORT, World, ask, caller

WAIT = timedelta(seconds=20)
BY = EndedBy(0, "because")
ANY = REPORT.replace("spiffe://example.org/job", "spiffe://example.org/*")
TWO = ANY + ANY[ANY.index("  report:") :].replace("  report:", "  other:")


@pytest.mark.parametrize(
    ("select", "ended"),
    [
        (by_identity("spiffe://example.org/job"), {"a", "c"}),
        (by_identity("spiffe://example.org/*"), {"a", "b", "c"}),
        (by_identity("spiffe://example.org/**"), {"a", "b", "c"}),
        (by_identity("spiffe://example.com/**"), set()),
        (by_definition("other"), {"c"}),
        (by_ticket("INC-1"), {"b"}),
        (by_ticket("INC"), set()),
        (everything(), {"a", "b", "c"}),
    ],
)
async def test_p4_the_kill_switch_ends_what_is_selected_and_nothing_else(
    select: Selector, ended: set[str]
) -> None:
    """P4: revoked and proven; cause, uid and reason stand in the ledger."""
    world = World()
    async with world.running(TWO) as service:
        tasks = {
            "a": await service.start(caller(), ask(), None),
            "b": await service.start(caller("/else"), replace(ask(), ticket="INC-1"), None),
            "c": await service.start(caller(), ask("other"), None),
        }
        order = await service.operators.revoke(select, EndCause.OPERATOR, BY)
        while order.proven < order.matched:
            order = await service.operators.order(order.number, WAIT)
        live = {view.id for view in service.operators.overview()}

        assert order.matched == len(ended)
        assert order.waiting == ()
        assert live == {view.id for name, view in tasks.items() if name not in ended}
        rows = [entry for entry in world.ledger.entries if entry.event == "ending"]
        assert [row.facts["by_uid"] for row in rows] == [0] * len(ended)
        assert [row.free_text["reason"] for row in rows] == ["because"] * len(ended)


async def test_p4_one_task_by_its_id_and_an_outside_event() -> None:
    """A closed ticket ends its tasks under a cause of its own."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        await service.operators.revoke(by_task(TaskId(view.id)), EndCause.EXTERNAL_SIGNAL, BY)
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.EXTERNAL_SIGNAL


async def test_an_order_shows_what_is_not_proven_and_why() -> None:
    """While the server keeps the lease, the operator sees the task and the problem."""
    world = World()
    world.vault.stubborn = True
    async with world.running() as service:
        await service.start(caller(), ask(), None)
        order = await service.operators.revoke(everything(), EndCause.OPERATOR, BY)
        order = await service.operators.order(order.number, timedelta(milliseconds=300))
        assert (order.matched, order.proven) == (1, 0)
        assert order.waiting[0].state is TaskState.REVOKING
        assert "still there" in order.waiting[0].last_problem
        joined = await service.operators.revoke(everything(), EndCause.OPERATOR, BY)
        assert joined.matched == 1
        world.vault.stubborn = False
        order = await service.operators.order(order.number, WAIT)

        assert (order.matched, order.proven) == (1, 1)


async def test_p8_an_order_is_answered_when_a_crash_would_not_undo_it() -> None:
    """Not before the row of each end is durable, however soon the revocation itself is done."""
    world = World()
    world.ledger.gates[TaskState.REVOKING] = asyncio.Event()
    async with world.running() as service:
        for _ in range(2):
            await service.start(caller(), ask(), None)
        asked = asyncio.create_task(service.operators.revoke(everything(), EndCause.OPERATOR, BY))
        async with asyncio.timeout(20):
            await world.ledger.held.wait()
            await world.vault.quiet.wait()  # what was minted is gone already
        assert not asked.done()
        assert "ending" not in world.ledger.events()
        world.ledger.gates[TaskState.REVOKING].set()
        order = await asked

        assert world.ledger.events().count("ending") == 2
        assert (order.matched, order.unrecorded) == (2, 0)


async def test_p7_an_order_that_the_ledger_cannot_take_is_carried_out_and_said() -> None:
    """What only memory knows is counted; the row follows when the disk has room again."""
    world = World()
    world.vault.stubborn = True
    async with world.running() as service:
        await service.start(caller(), ask(), None)
        world.ledger.full_at.add(Event.ENDING)
        order = await service.operators.revoke(everything(), EndCause.OPERATOR, BY)
        assert (order.matched, order.proven, order.unrecorded) == (1, 0, 1)
        world.ledger.full_at.clear()
        async with asyncio.timeout(2 * LEDGER_RETRY_SECONDS):
            while "ending" not in world.ledger.events():
                await asyncio.sleep(0.05)
        assert (await service.operators.order(order.number, timedelta())).unrecorded == 0
        world.vault.stubborn = False
        await service.operators.order(order.number, WAIT)
    assert world.vault.alive == set()


@pytest.mark.parametrize("held", ["create_task_token", "mint"])
async def test_p8_an_order_against_a_start_is_answered_at_once_and_stands(held: str) -> None:
    """Without a row that makes it active nothing adopts it; should that row come, it says so."""
    world = World()
    world.vault.gates[held] = asyncio.Event()
    async with world.running() as service:
        started = asyncio.create_task(service.start(caller(), ask(), None))
        await world.vault.until_called(held)
        order = await service.operators.revoke(everything(), EndCause.OPERATOR, BY)
        assert (order.matched, order.unrecorded) == (1, 0)
        world.vault.gates[held].set()
        with pytest.raises(Conflict):
            await started
        await service.operators.order(order.number, WAIT)
    (active,) = (entry for entry in world.ledger.entries if entry.event is Event.ACTIVE)
    crashed = World(ledger=MemoryLedger(entries=world.ledger.entries[:3]))
    async with crashed.running() as service:
        assert active.facts["cause"] == EndCause.OPERATOR
        assert [view.cause for view in service.operators.overview()] == [EndCause.OPERATOR]


async def test_an_order_is_forgotten_after_so_many_others() -> None:
    """What is left of it is seen among the tasks."""
    world = World()
    async with world.running() as service:
        await service.start(caller(), ask(), None)
        order = await service.operators.revoke(everything(), EndCause.OPERATOR, BY)
        for _ in range(ORDERS_REMEMBERED):
            await service.operators.revoke(everything(), EndCause.OPERATOR, BY)
        with pytest.raises(NotFound):
            await service.operators.order(order.number, timedelta())


def test_a_pattern_that_nobody_has_is_an_error() -> None:
    """A typo does not silently select nothing."""
    with pytest.raises(ValueError, match="spiffe://"):
        by_identity("example.org/job")
