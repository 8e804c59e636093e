"""Break-glass: a purpose, an open ticket, an alarm at every turn, and an end with the ticket."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from taskmint.errors import Conflict, Denied, LimitExceeded
from taskmint.model.scope import RequestFacts
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Event
from taskmint.tasks.operating import by_ticket
from taskmint.tasks.task import EndedBy, IdempotencyKey
from taskmint.tasks.tickets import CHECKS_AT_ONCE

from tasks.world import World, caller, policy

DOOR = """
version: 1
tasks:
  repair:
    owner: team-sre@example.org
    class: human
    break_glass: true
    dead_man: 3s
    who: [spiffe://example.org/job]
    deadline: {default: 10m, max: 1h}
    ends: {bind: [peer]}
    scope:
      orders: {secret: {mount: database, path: creds/orders-rw}}
"""
SOON = timedelta(seconds=5)


@dataclass
class Desk:
    """A ticket system; `gate` holds what is asked."""

    open: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def why_not_open(self, ticket: str, definition: str, spiffe_id: str) -> str | None:
        """As told."""
        self.asked.append(f"{ticket} {definition} {spiffe_id}")
        if self.gate is not None:
            await self.gate.wait()
        return None if ticket in self.open else "closed"


def ask(ticket: str | None = "INC-1", purpose: str = "orders were booked twice") -> RequestFacts:
    """An emergency."""
    return RequestFacts("repair", purpose=purpose, ticket=ticket)


def a_world(*tickets: str) -> tuple[World, Desk]:
    """A world with a desk."""
    desk = Desk(set(tickets))
    return World(tickets=desk), desk


async def test_the_alarm_is_raised_at_start_at_each_renewal_and_at_the_end() -> None:
    """A line that journald takes as an alert, a count and a notice, each time."""
    world, desk = a_world("INC-1")
    world.vault.ttl = timedelta(seconds=3)
    with capture_logs() as lines:
        async with world.running(DOOR) as service:
            task = await service.start(caller(), ask(), None)
            async with asyncio.timeout(10):
                while "break_glass_renewed" not in world.notifier.kinds():
                    await asyncio.sleep(0.05)
            await service.end(caller(), task.id, EndCause.SUCCEEDED, SOON)
    alarms = [line for line in lines if line["event"] == "break_glass"]

    assert desk.asked == ["INC-1 repair spiffe://example.org/job"]
    assert [alarms[0]["moment"], alarms[1]["moment"], alarms[-1]["moment"]] == [
        "started",
        "renewed",
        "ended",
    ]
    assert all((line["log_level"], line["alarm"]) == ("critical", True) for line in alarms)
    assert alarms[0]["ticket"] == "INC-1"
    assert world.notifier.kinds()[0] == "break_glass_started"
    assert world.notifier.notices[-1].facts["cause"] == "succeeded"
    assert "emergency repair started" in world.seen.events
    (intent,) = (row for row in world.ledger.entries if row.event is Event.INTENT)
    assert isinstance(scope := intent.facts["scope"], dict)
    assert scope["break_glass"] is True


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (ask(ticket=None), "needs a purpose and a ticket"),
        (ask(ticket=" "), "needs a purpose and a ticket"),
        (ask(purpose=" "), "needs a purpose and a ticket"),
        (ask(ticket="INC-2"), "the ticket is not open"),
    ],
)
async def test_without_a_reason_and_an_open_ticket_nothing_is_minted(
    request_: RequestFacts, why: str
) -> None:
    """Refused and ledgered; a hook that cannot say is a no."""
    world, _ = a_world("INC-1")
    async with world.running(DOOR) as service:
        with pytest.raises(Denied, match=why):
            await service.start(caller(), request_, None)
    assert world.ledger.events() == ["denied"]
    assert world.vault.requests == []


async def test_without_a_hook_the_door_stays_shut() -> None:
    """The daemon that has none configured starts no emergency."""
    world = World()
    async with world.running(DOOR) as service:
        with pytest.raises(Denied, match="the ticket is not open"):
            await service.start(caller(), ask(), None)


async def test_p4_a_closed_ticket_ends_the_task() -> None:
    """P4: the watch notices; others go on."""
    world, desk = a_world("INC-1", "INC-2")
    async with world.running(DOOR) as service:
        first = await service.start(caller(), ask(), None)
        second = await service.start(caller(), ask("INC-2"), None)
        watching = asyncio.create_task(service.tickets.keep(timedelta(milliseconds=20)))
        desk.open.discard("INC-1")
        over = await service.show(caller(), first.id, SOON)
        assert (over.state, over.cause) == (TaskState.REVOKED, EndCause.TICKET_CLOSED)
        assert (await service.show(caller(), second.id, timedelta())).state is TaskState.ACTIVE
        watching.cancel()
        await asyncio.wait([watching])


async def test_p4_the_ticket_system_ends_tasks_by_the_admin_call() -> None:
    """P4: `taskmint revoke --ticket --signal`."""
    world, _ = a_world("INC-1")
    async with world.running(DOOR) as service:
        task = await service.start(caller(), ask(), None)
        by = EndedBy(0, "closed")
        await service.operators.revoke(by_ticket("INC-1"), EndCause.EXTERNAL_SIGNAL, by)
        over = await service.show(caller(), task.id, SOON)

    assert (over.state, over.cause) == (TaskState.REVOKED, EndCause.EXTERNAL_SIGNAL)


async def test_a_change_needs_the_ticket_to_be_open_still() -> None:
    """Also one that only issues the credentials anew."""
    world, desk = a_world("INC-1")
    async with world.running(DOOR) as service:
        task = await service.start(caller(), ask(), None)
        await service.change(caller(), task.id, lambda before: before, None)
        assert "break_glass_changed" in world.notifier.kinds()
        desk.open.clear()
        with pytest.raises(Denied, match="the ticket is not open"):
            await service.change(caller(), task.id, lambda before: before, None)


async def asked_for(desk: Desk, count: int) -> None:
    """So many times the desk was asked, and no more are on their way to it."""
    async with asyncio.timeout(5):
        while len(desk.asked) < count:
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(desk.asked) == count


async def test_p1_a_key_used_twice_while_the_ticket_is_asked_for_starts_one_task() -> None:
    """P1: the second waits for what the first began, and is given the same."""
    world, desk = a_world("INC-1")
    desk.gate = asyncio.Event()
    async with world.running(DOOR) as service:
        key = IdempotencyKey("key", "body")
        both = [asyncio.create_task(service.start(caller(), ask(), key)) for _ in range(2)]
        await asked_for(desk, 1)
        desk.gate.set()
        one, two = await asyncio.gather(*both)

    assert one.id == two.id
    assert len(desk.asked) == 1


async def test_a_key_whose_first_start_was_refused_starts_again() -> None:
    """What was refused holds no key."""
    world, desk = a_world()
    async with world.running(DOOR) as service:
        key = IdempotencyKey("key", "body")
        with pytest.raises(Denied):
            await service.start(caller(), ask(), key)
        desk.open.add("INC-1")
        assert (await service.start(caller(), ask(), key)).state is TaskState.ACTIVE


async def test_a_crowd_of_starts_leaves_the_watch_its_places() -> None:
    """Eight hooks of starts at once; running tasks' tickets are asked for beside them."""
    world, desk = a_world("INC-1", "INC-2")
    async with world.running(DOOR) as service:
        await service.start(caller(), ask("INC-2"), None)
        desk.asked.clear()
        desk.gate = asyncio.Event()
        crowd = [asyncio.create_task(service.start(caller(), ask(), None)) for _ in range(30)]
        await asked_for(desk, CHECKS_AT_ONCE)
        watching = asyncio.create_task(service.tickets.keep(SOON))
        await asked_for(desk, CHECKS_AT_ONCE + 1)
        assert desk.asked[-1] == "INC-2 repair spiffe://example.org/job"
        for one in (watching, *crowd):
            one.cancel()
        await asyncio.wait((watching, *crowd))
        desk.gate.set()
        assert (await service.start(caller(), ask(), None)).state is TaskState.ACTIVE


@pytest.mark.parametrize("limit", ["concurrent_per_identity", "starts_per_minute"])
async def test_p10_a_definitions_limits_come_before_the_hook(limit: str) -> None:
    """P10: what may not start is not asked about; a place is given back by who is refused."""
    world, desk = a_world()
    desk.gate = asyncio.Event()
    text = DOOR.replace("    scope:", f"    limits: {{{limit}: 2}}\n    scope:")
    async with world.running(text) as service:
        crowd = [asyncio.create_task(service.start(caller(), ask(), None)) for _ in range(5)]
        await asked_for(desk, 2)
        desk.gate.set()
        said = await asyncio.gather(*crowd, return_exceptions=True)
        assert [type(one) for one in said] == [Denied] * 2 + [LimitExceeded] * 3
        desk.open.add("INC-1")
        world.clock.pass_time(timedelta(seconds=61))
        assert (await service.start(caller(), ask(), None)).state is TaskState.ACTIVE


async def test_p11_a_policy_that_comes_while_the_ticket_is_asked_for_decides() -> None:
    """P11: what the new one forbids is not minted."""
    world, desk = a_world("INC-1")
    desk.gate = asyncio.Event()
    async with world.running(DOOR) as service:
        starting = asyncio.create_task(service.start(caller(), ask(), None))
        async with asyncio.timeout(5):
            while not desk.asked:
                await asyncio.sleep(0)
        service.adopt_policy(policy(DOOR.replace("/job", "/somebody-else")))
        desk.gate.set()
        with pytest.raises(Conflict):
            await starting
    assert world.vault.requests == []
