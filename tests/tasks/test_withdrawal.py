"""A withdrawn authority ends what rests on it, whenever it is withdrawn (P4)."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from taskmint.errors import Conflict
from taskmint.model.caller import Caller
from taskmint.model.state import EndCause, TaskState

from tasks.world import REPORT, World, ask, caller

WAIT = timedelta(seconds=20)


def vouched(authority: str, issued: timedelta = timedelta()) -> Caller:
    """A caller whom this authority vouched for."""
    return replace(caller(issued=issued), authority=authority)


async def test_p4_only_tasks_of_the_withdrawn_authority_end() -> None:
    """The others, and those of nobody that is known, go on."""
    world = World()
    async with world.running() as service:
        ours = await service.start(vouched("jwt:a#1"), ask(), None)
        others = await service.start(vouched("jwt:a#2"), ask(), None)

        assert service.end_withdrawn(lambda authority: authority != "jwt:a#1") == 1
        ended = await service.show(caller(), ours.id, WAIT)
        assert ended.cause is EndCause.IDENTITY_WITHDRAWN
        assert ended.state is TaskState.REVOKED
        assert (await service.show(caller(), others.id, timedelta())).state is TaskState.ACTIVE
        assert service.end_withdrawn(lambda authority: authority != "jwt:a#1") == 0


async def test_p4_a_heartbeat_with_a_new_svid_moves_the_task_to_its_authority() -> None:
    """After a rotation what vouches now counts, not what vouched at the start."""
    world = World()
    async with world.running() as service:
        task = await service.start(vouched("jwt:a#1"), ask(), None)
        await service.heartbeat(vouched("jwt:a#2", timedelta(minutes=1)), task.id)

        assert service.end_withdrawn(lambda authority: authority != "jwt:a#1") == 0
        assert service.end_withdrawn(lambda authority: authority != "jwt:a#2") == 1


async def test_p4_a_caller_proven_just_before_the_withdrawal_gets_nothing() -> None:
    """Between proof and start the authority went: the task ends before it is handed over."""
    world = World()
    async with world.running() as service:
        service.end_withdrawn(lambda authority: authority != "jwt:a#1")
        with pytest.raises(Conflict):
            await service.start(vouched("jwt:a#1"), ask(), None)
        async with asyncio.timeout(20):
            while world.vault.alive:
                await asyncio.sleep(0.01)


async def test_p4_a_task_whose_authority_went_during_a_restart_ends() -> None:
    """The ledger remembers what vouched; after recovery it is asked about again."""
    world = World()
    async with world.running() as service:
        view = await service.start(vouched("jwt:a#1"), ask(), None)
        await service.stop(revoke=False, grace=WAIT)
    async with world.running(REPORT) as service:
        assert service.end_withdrawn(lambda authority: authority != "jwt:a#1") == 1
        ended = await service.show(caller(), view.id, WAIT)
        assert ended.cause is EndCause.IDENTITY_WITHDRAWN
