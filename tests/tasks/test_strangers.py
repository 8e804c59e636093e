"""Who could not prove an identity, in the ledger: few rows, none lost from the count, no secret."""

from dataclasses import replace
from datetime import timedelta

from taskmint.errors import Code, Unproven
from taskmint.ports import Event
from taskmint.tasks.owned import OwnedWork
from taskmint.tasks.strangers import ROWS_IN_ALL, ROWS_PER_UID, Strangers

from tasks.world import World, caller

PEER = caller().peer
ERROR = Unproven(Code.CREDENTIAL_EXPIRED, "The token has expired.", fix="fetch another")


async def record(world: World, *rounds: tuple[int, int]) -> None:
    """Refuse: a number of times, from a uid; then write what is to be written."""
    work = OwnedWork(world.crashes.append)
    strangers = Strangers(world.outside(), work)
    for times, uid in rounds:
        if times < 0:
            world.clock.pass_time(timedelta(seconds=-times))
        for _ in range(times):
            strangers.refused(replace(PEER, uid=uid), ERROR)
    await work.drain(1)
    assert world.crashes == []


async def test_a_refusal_says_why_and_who_the_kernel_named() -> None:
    """The row is about no task."""
    world = World()
    await record(world, (1, 1000))
    [entry] = world.ledger.entries

    assert (entry.event, entry.task, entry.state) == (Event.UNPROVEN, None, None)
    assert dict(entry.facts) == {
        "code": "credential_expired",
        "detail": "The token has expired.",
        "uid": 1000,
        "gid": PEER.gid,
        "pid": PEER.pid,
        "left_out": 0,
    }
    assert not entry.handles
    assert not entry.free_text


async def test_p10_a_flood_of_one_user_fills_no_disk_and_hides_nobody() -> None:
    """The next row, of another user, says how many were left out."""
    world = World()
    await record(world, (500, 1000), (1, 2000))

    assert len(world.ledger.entries) == ROWS_PER_UID + 1
    assert world.ledger.entries[-1].facts["uid"] == 2000
    assert world.ledger.entries[-1].facts["left_out"] == 500 - ROWS_PER_UID


async def test_p10_floods_of_many_users_are_bounded_together() -> None:
    """A uid is cheap where user namespaces are; after a minute rows are written again."""
    world = World()
    await record(world, *((20, uid) for uid in range(1000, 1100)), (-61, 0), (1, 5000))

    assert len(world.ledger.entries) == ROWS_IN_ALL + 1
    counted = sum(1 + int(str(entry.facts["left_out"])) for entry in world.ledger.entries)
    assert counted == 100 * 20 + 1


async def test_a_ledger_that_is_full_does_not_matter() -> None:
    """P7 is about secrets; a refusal needs no record to be safe."""
    world = World()
    world.ledger.full = True
    await record(world, (1, 1000))

    assert world.ledger.entries == []
