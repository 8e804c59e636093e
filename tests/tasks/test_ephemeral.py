"""A database role that exists for one task: written before the mint, deleted last."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from taskmint.errors import BackendFailed, Unavailable
from taskmint.model.scope import RequestFacts
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Event
from taskmint.tasks.service import TaskService

from fakes.vault import away, refused
from tasks.world import World, ask, caller

WAIT = timedelta(seconds=20)
NEVER_WAS = "tm_01kbqvxp5w0000000000000000"

TEXT = """
version: 1
tasks:
  report:
    owner: team-orders@example.org
    class: batch
    dead_man: 3s
    who: [spiffe://example.org/job]
    parameters: {region: {enum: [eu, us]}}
    deadline: {default: 5m, max: 30m}
    ends: {deadline_only: true}
    scope:
      warehouse:
        database:
          mount: database
          connection: tasks
          creation: ["CREATE ROLE \\"{{name}}\\"", "GRANT orders_ro_{region} TO \\"{{name}}\\""]
          revocation: ["DROP ROLE \\"{{name}}\\""]
"""


def role_path(task: str, revision: int = 1, region: str = "eu", node: str = "node-a") -> str:
    """Where the role of a task's revision is written."""
    name = f"{node}-{task.removeprefix('tm_')}-{revision}"
    return f"database/roles/taskmint-db-report.warehouse.{region}.{name}"


async def test_p1_the_role_exists_exactly_as_long_as_the_task() -> None:
    """P1: written before the mint, named after the task, exact body; deleted after the lease."""
    world = World()
    async with world.running(TEXT) as service:
        view = await service.start(caller(), ask(), None)

        assert world.vault.objects == {
            role_path(view.id): {
                "db_name": "tasks",
                "creation_statements": [
                    'CREATE ROLE "{{name}}"',
                    'GRANT orders_ro_eu TO "{{name}}"',
                ],
                "revocation_statements": ['DROP ROLE "{{name}}"'],
                "default_ttl": "3s",
                "max_ttl": "1860s",
            }
        }
        calls = world.vault.calls
        assert max(calls.index("write"), calls.index("create_task_token")) < calls.index("mint")
        ended = await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)
        assert ended.state is TaskState.REVOKED
        assert world.vault.objects == {}
        assert calls.index("delete") > calls.index("is_gone") > calls.index("revoke")
        assert world.vault.calls[-1] == "delete"


async def test_p8_the_names_are_durable_before_the_write() -> None:
    """P8: from the intent alone the role's path can be told again."""
    world = World()
    world.vault.faults["write"].append(refused())
    async with world.running(TEXT) as service:
        with pytest.raises(BackendFailed):
            await service.start(caller(), ask(), None)
    (intent,) = [row for row in world.ledger.entries if row.event is Event.INTENT]
    assert intent.task is not None
    assert role_path(intent.task).endswith(f".{intent.facts['name']}")


@pytest.mark.parametrize("method", ["write", "mint", "create_task_token"])
async def test_p8_a_lost_reply_leaves_no_role(method: str) -> None:
    """P8: the role, the lease or the token came to be and nobody heard of it: all go."""
    world = World()
    world.vault.lost[method] = 1
    async with world.running(TEXT) as service:
        with pytest.raises(Unavailable):
            await service.start(caller(), ask(), None)
        await service.stop(revoke=True, grace=WAIT)

        assert world.vault.objects == {}
        assert world.vault.calls.count("write") == 1
        if method != "create_task_token":  # its period ends that one; nobody can name it
            assert world.vault.alive == set()


async def test_a_write_that_was_refused_is_not_deleted() -> None:
    """Provably nothing was written: only the token has to be taken back."""
    world = World()
    world.vault.faults["write"].append(away())
    async with world.running(TEXT) as service:
        with pytest.raises(Unavailable):
            await service.start(caller(), ask(), None)
        await service.stop(revoke=True, grace=WAIT)

        assert world.vault.calls.count("delete") == 0
        assert world.vault.alive == set()


async def test_a_start_that_made_nothing_at_all_has_failed() -> None:
    """Neither token nor role: the task is failed, and nothing is left to prove."""
    world = World()
    world.vault.faults["write"].append(away())
    world.vault.faults["create_task_token"].append(away())
    async with world.running(TEXT) as service:
        with pytest.raises(Unavailable):
            await service.start(caller(), ask(), None)
        await service.stop(revoke=False, grace=WAIT)

    assert world.ledger.entries[-1].event is Event.FAILED


async def test_a_deletion_that_fails_is_repeated() -> None:
    """The task stays `revoking` until its role is gone."""
    world = World()
    async with world.running(TEXT) as service:
        view = await service.start(caller(), ask(), None)
        world.vault.faults["delete"].extend([away(), refused()])
        ended = await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)

        assert ended.state is TaskState.REVOKED
        assert world.vault.objects == {}
        assert world.vault.calls.count("delete") == 3


async def test_each_revision_has_a_role_of_its_own() -> None:
    """A change writes another; the acknowledgement deletes the first one."""
    world = World()

    def to_us(before: RequestFacts) -> RequestFacts:
        return replace(before, parameters={"region": "us"})

    async with world.running(TEXT) as service:
        view = await service.start(caller(), ask(), None)
        await service.change(caller(), view.id, to_us, None)

        assert set(world.vault.objects) == {
            role_path(view.id),
            role_path(view.id, 2, "us"),
        }
        await service.heartbeat(caller(), view.id, 2)
        await world.vault.until_called("delete")
        assert set(world.vault.objects) == {role_path(view.id, 2, "us")}
        await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)
        assert world.vault.objects == {}


@asynccontextmanager
async def swept(world: World, service: TaskService) -> AsyncIterator[None]:
    """Let the service sweep once, before and beside what follows."""
    before = world.vault.calls.count("written")
    sweeping = asyncio.create_task(service.keep_swept())
    try:
        await world.vault.until_called("written", before + 1)
        while world.vault.in_flight.total():
            await asyncio.sleep(0)
        yield
    finally:
        sweeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweeping


async def test_p8_an_adopted_task_keeps_its_role_and_deletes_it() -> None:
    """P8: a planned restart; renewal needs the role, so nothing sweeps it."""
    world = World()
    async with world.running(TEXT) as service:
        view = await service.start(caller(), ask(), None)
        await service.stop(revoke=False, grace=WAIT)
    async with world.running(TEXT) as service, swept(world, service):
        assert set(world.vault.objects) == {role_path(view.id)}
        await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)
        assert world.vault.objects == {}


async def test_p8_what_a_crash_left_is_deleted_by_recovery() -> None:
    """P8: the ledger ends with the intent, and the role was written: it is told from there."""
    world = World()
    async with world.running(TEXT) as service:
        view = await service.start(caller(), ask(), None)
        await service.stop(revoke=False, grace=WAIT)
    del world.ledger.entries[1:]
    async with world.running(TEXT) as service:
        world.clock.pass_time(timedelta(seconds=10))  # what was not heard of has lapsed
        await service.stop(revoke=False, grace=WAIT)

        assert world.vault.objects == {}
        assert world.vault.calls.count("delete") == 1
    assert world.ledger.entries[-1].task == view.id
    assert world.ledger.entries[-1].event is Event.REVOKED


async def test_p1_what_nobody_knows_of_is_swept_for_this_node_alone() -> None:
    """P1: a write that was carried out late, or a lost ledger; other nodes' roles are theirs."""
    world = World()
    mine, theirs = (role_path(NEVER_WAS, node=node) for node in ("node-a", "node-b"))
    world.vault.objects = {mine: {}, theirs: {}}
    async with world.running(TEXT) as service:
        view = await service.start(caller(), ask(), None)
        async with swept(world, service):
            await world.vault.until_called("delete")
            assert set(world.vault.objects) == {theirs, role_path(view.id)}
        await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)


async def test_a_sweep_that_fails_does_no_harm() -> None:
    """Vault is away, or may not be asked: the daemon goes on, and sweeps again later."""
    world = World()
    world.vault.faults["written"].append(away())
    async with world.running(TEXT) as service, swept(world, service):
        view = await service.start(caller(), ask(), None)
        await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)
        assert world.vault.alive == set()
