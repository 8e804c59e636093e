"""A change is another revision beside the old one; whatever fails on the way changes nothing."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from taskmint.errors import (
    BackendFailed,
    Code,
    Conflict,
    LimitExceeded,
    NotFound,
    TaskmintError,
    Unavailable,
    Unprocessable,
)
from taskmint.model.scope import RequestFacts
from taskmint.model.state import (
    REVISION_NEXT,
    EndCause,
    RevisionState,
    TaskState,
    advance_revision,
)
from taskmint.ports import Event, Minted
from taskmint.tasks.changing import MOST_REVISIONS
from taskmint.tasks.service import TaskService
from taskmint.tasks.task import IdempotencyKey
from taskmint.tasks.views import TaskView

from fakes.vault import away, refused
from tasks.world import REPORT, SHORT, World, ask, caller, policy

WAIT = timedelta(seconds=20)
NOW = timedelta()
SECOND = timedelta(seconds=1)
KEPT = SHORT.replace("DEADLINE", "5m").replace("ENDS", "{deadline_only: true}")
US_ONLY = REPORT.replace("enum: [eu, us]", "enum: [us]")


def to_us(before: RequestFacts) -> RequestFacts:
    """The other region."""
    return replace(before, parameters={"region": "us"})


def to_eu(before: RequestFacts) -> RequestFacts:
    """And back."""
    return replace(before, parameters={"region": "eu"})


def again(before: RequestFacts) -> RequestFacts:
    """The same, issued anew."""
    return before


async def change(
    service: TaskService,
    view: TaskView,
    how: Callable[[RequestFacts], RequestFacts] = to_us,
    key: IdempotencyKey | None = None,
) -> TaskView:
    """Ask for a change as the task's owner."""
    return await service.change(caller(), view.id, how, key)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the world has come so far."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def a_second_later(world: World, service: TaskService, task_id: str) -> None:
    """Let time pass, and the task be renewed."""
    before = world.seen.events.count("renewal ok")
    world.clock.boot_offset += 1.1
    await service.show(caller(), task_id, NOW)
    await until(lambda: world.seen.events.count("renewal ok") > before)


def minted(view: TaskView) -> dict[str, Minted]:
    """The secrets that a view delivers."""
    return {name: credential.minted for name, credential in (view.credentials or {}).items()}


def paths(world: World) -> set[str]:
    """The database roles of what is alive."""
    return {name.split("/")[2] for name in world.vault.alive if name.startswith("database/")}


async def test_a_change_hands_over_and_the_old_revision_goes_when_it_is_acknowledged() -> None:
    """Decided anew, minted with a token of its own; a heartbeat that names it retires the old."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        changed = await change(service, view)

        assert (changed.id, changed.revision, changed.state) == (view.id, 2, TaskState.ACTIVE)
        assert changed.credentials is not None
        assert paths(world) == {"orders-ro-eu", "orders-ro-us"}
        assert len(world.vault.requests) == 2
        await service.heartbeat(caller(), view.id, 2)
        await until(lambda: paths(world) == {"orders-ro-us"})
        await until(lambda: world.ledger.events()[-1] == "revision_revoked")
        assert world.ledger.events() == [
            "intent", "accessor", "active",
            "revision_intent", "revision_accessor", "revision_active",
            "revision_ending", "revision_revoked",
        ]  # fmt: skip
        await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)
        assert world.vault.alive == set()


@pytest.mark.parametrize("late", [0, 11], ids=["within the overlap", "just after it"])
async def test_an_acknowledged_revision_is_retired_once(late: float) -> None:
    """Whatever comes before its revocation is done retires nothing again."""
    world = World()
    async with world.running(KEPT, delivery_window=10 * SECOND) as service:
        view = await service.start(caller(), ask(), None)
        await change(service, view, again)
        world.vault.gates["revoke"] = asyncio.Event()
        world.clock.boot_offset += late
        await asyncio.gather(*(service.heartbeat(caller(), view.id, 2) for _ in range(3)))
        await service.heartbeat(caller(), view.id, 2)
        world.vault.gates["revoke"].set()
        await until(lambda: "revision_revoked" in world.ledger.events())
        await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)

        assert world.ledger.events().count("revision_ending") == 1
        assert world.ledger.events().count("revision_revoked") == 1
    assert world.vault.alive == set()


async def test_without_an_acknowledgement_the_old_revision_goes_after_the_overlap() -> None:
    """A heartbeat that names no revision acknowledges the first, which the caller has anyway."""
    world = World()
    async with world.running(delivery_window=0.3 * SECOND) as service:
        view = await service.start(caller(), ask(), None)
        changed = await change(service, view)
        assert (await service.heartbeat(caller(), view.id)).credentials is None
        shown = await service.show(caller(), view.id, NOW)

        assert minted(shown) == minted(changed)
        assert paths(world) == {"orders-ro-eu", "orders-ro-us"}
        await until(lambda: paths(world) == {"orders-ro-us"})
        assert (await service.show(caller(), view.id, NOW)).state is TaskState.ACTIVE


async def test_both_revisions_are_renewed_while_they_overlap() -> None:
    """The old credentials work as long as the caller may still be using them."""
    world = World()
    world.vault.ttl = 1.5 * SECOND
    async with world.running(delivery_window=30 * SECOND) as service:
        view = await service.start(caller(), ask(), None)
        await change(service, view)
        await world.vault.until_called("renew", times=6)

        assert paths(world) == {"orders-ro-eu", "orders-ro-us"}


@pytest.mark.parametrize(
    ("how", "error", "code"),
    [
        (
            lambda before: replace(before, parameters={"region": "mars"}),
            Unprocessable,
            Code.PARAMETER_INVALID,
        ),
        (
            lambda before: replace(before, ttl=timedelta(hours=2)),
            Unprocessable,
            Code.TTL_EXCEEDS_POLICY,
        ),
    ],
)
async def test_a_change_that_the_policy_refuses_is_recorded_and_changes_nothing(
    how: Callable[[RequestFacts], RequestFacts], error: type[TaskmintError], code: Code
) -> None:
    """P12: no call to Vault, one row under the task's id, and the task goes on."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        calls = len(world.vault.calls)
        with pytest.raises(error) as refusal:
            await change(service, view, how)

        assert refusal.value.code is code
        assert len(world.vault.calls) == calls
        assert world.ledger.entries[-1].event is Event.REVISION_DENIED
        assert world.ledger.entries[-1].task == view.id
        assert (await service.show(caller(), view.id, NOW)).revision == 1


async def test_a_change_is_decided_by_the_policy_in_force_now() -> None:
    """What the new policy refuses is refused, although it stood in the old one."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), replace(ask(), parameters={"region": "us"}), None)
        service.adopt_policy(policy(US_ONLY))
        with pytest.raises(Unprocessable):
            await change(service, view, to_eu)


async def test_a_change_never_moves_the_deadline_away() -> None:
    """A shorter lifetime brings it nearer; a change without one, hours of changes, leave it."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        world.clock.pass_time(timedelta(seconds=30))
        same = await change(service, view, again)
        assert same.expires_at == view.expires_at
        shorter = await change(
            service, view, lambda before: replace(before, ttl=timedelta(seconds=1))
        )
        assert shorter.expires_at < view.expires_at
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.DEADLINE
        assert world.vault.alive == set()


async def test_a_change_that_fails_in_vault_leaves_the_old_revision_and_no_orphan() -> None:
    """
    Whatever was created for it is taken back, and recorded once the server's own clocks have ended
    what nobody heard of.
    """
    world = World()
    async with world.running(KEPT) as service:
        view = await service.start(caller(), ask(), None)
        before = set(world.vault.alive)
        world.vault.faults["mint"].append(refused())
        with pytest.raises(BackendFailed):
            await change(service, view)
        await until(lambda: world.vault.alive == before)
        assert world.ledger.events()[-1] == "revision_ending"
        world.clock.boot_offset += 9
        await until(lambda: world.ledger.events()[-1] == "revision_revoked")

        assert world.vault.alive == before
        assert (await service.show(caller(), view.id, NOW)).revision == 1
        assert (await change(service, view)).state is TaskState.ACTIVE


async def test_a_change_of_which_provably_nothing_came_is_failed() -> None:
    """The token was refused: nothing to take back, and the ledger says so."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        world.vault.faults["create_task_token"].append(away(created_nothing=True))
        with pytest.raises(Unavailable):
            await change(service, view)
        await until(lambda: world.ledger.events()[-1] == "revision_failed")

        assert (await service.show(caller(), view.id, NOW)).state is TaskState.ACTIVE


async def test_p8_the_number_of_a_change_that_failed_is_never_used_again() -> None:
    """By its number the ledger's rows are told apart, also by the next daemon."""
    world = World()
    async with world.running(KEPT) as service:
        view = await service.start(caller(), ask(), None)
        world.vault.faults["create_task_token"].append(away(created_nothing=True))
        with pytest.raises(Unavailable):
            await change(service, view)
        assert (await change(service, view)).revision == 3
        await service.stop(revoke=False, grace=WAIT)
    async with world.running(KEPT) as service:
        assert (await change(service, view, to_eu)).revision == 4


async def test_a_lost_reply_of_a_changes_mint_is_taken_back_with_its_token() -> None:
    """The lease nobody heard of belongs to the new revision's token."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        before = set(world.vault.alive)
        world.vault.lost["mint"] = 1
        with pytest.raises(Unavailable):
            await change(service, view)
        await until(lambda: world.vault.alive == before)


@pytest.mark.parametrize("row", [Event.REVISION_INTENT, Event.REVISION_ACTIVE])
async def test_p7_no_secret_of_a_change_leaves_without_its_record(row: Event) -> None:
    """P7: a ledger that fails at either durable point means 503 and nothing left."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        before = set(world.vault.alive)
        world.ledger.full_at = {row}
        with pytest.raises(Unavailable) as refusal:
            await change(service, view)
        await until(lambda: world.vault.alive == before)

        assert refusal.value.code is Code.LEDGER_UNAVAILABLE


@pytest.mark.parametrize("method", ["create_task_token", "mint"])
async def test_p4_delete_races_a_change(method: str) -> None:
    """P4: the end starts at once, waits for what is being minted, and takes that back as well."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        world.vault.gates[method] = asyncio.Event()
        changing = asyncio.create_task(change(service, view))
        await world.vault.until_called(method, times=2 if method == "create_task_token" else 3)
        ended = await service.end(caller(), view.id, EndCause.SUCCEEDED, 0.3 * SECOND)
        assert ended.state is TaskState.REVOKING
        assert paths(world) <= {"orders-ro-us"}  # the old one is gone already
        world.vault.gates[method].set()
        with pytest.raises(Conflict) as refusal:
            await changing
        proven = await service.show(caller(), view.id, WAIT)

        assert refusal.value.code is Code.TASK_ENDED
        assert proven.state is TaskState.REVOKED
        assert world.vault.alive == set()


async def test_a_task_is_changed_by_one_request_at_a_time() -> None:
    """The second is told to wait for the first."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        world.vault.gates["mint"] = asyncio.Event()
        first = asyncio.create_task(change(service, view))
        await world.vault.until_called("mint", times=3)
        with pytest.raises(Conflict) as refusal:
            await change(service, view)
        world.vault.gates["mint"].set()

        assert refusal.value.code is Code.TASK_CHANGING
        assert (await first).revision == 2


async def test_a_change_after_the_end_and_of_anothers_task_is_refused() -> None:
    """409 for an ended task, 404 for somebody else's."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        with pytest.raises(NotFound):
            await service.change(caller("/other"), view.id, to_us, None)
        await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)
        with pytest.raises(Conflict) as refusal:
            await change(service, view)

        assert refusal.value.code is Code.TASK_ENDED


async def test_p10_revisions_of_one_task_are_bounded_and_changes_are_paced() -> None:
    """P10: at most four at a time, and each change counts as a start against the minute."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        for _ in range(MOST_REVISIONS - 1):
            await change(service, view, again)
        with pytest.raises(LimitExceeded) as refusal:
            await change(service, view, again)
        assert refusal.value.retry_after > NOW
        await service.heartbeat(caller(), view.id, MOST_REVISIONS)
        await until(lambda: world.ledger.events().count("revision_revoked") == 3)
        assert (await change(service, view, again)).revision == MOST_REVISIONS + 1
    paced = REPORT.replace("ends:", "limits: {starts_per_minute: 1}\n    ends:")
    async with World().running(paced) as service:
        view = await service.start(caller(), ask(), None)
        with pytest.raises(LimitExceeded):
            await change(service, view, again)


async def test_a_repeated_change_under_one_key_is_the_same_change() -> None:
    """Its credentials again within the window; another body 409; delivered, 409."""
    world = World()
    key = IdempotencyKey("k", "b")
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        first, second = await asyncio.gather(
            change(service, view, key=key), change(service, view, key=key)
        )
        assert (first.revision, second.revision) == (2, 2)
        assert minted(first) == minted(second)
        with pytest.raises(Conflict) as mismatch:
            await change(service, view, key=IdempotencyKey("k", "other"))
        await service.heartbeat(caller(), view.id, 2)
        with pytest.raises(Conflict) as forgotten:
            await change(service, view, key=key)

        assert mismatch.value.code is Code.IDEMPOTENCY_MISMATCH
        assert forgotten.value.code is Code.CREDENTIALS_NOT_RETAINED


async def test_a_key_whose_change_failed_may_be_used_again() -> None:
    """The retry of a change that never came to be is a new attempt."""
    world = World()
    key = IdempotencyKey("k", "b")
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        world.vault.faults["mint"].append(refused())
        with pytest.raises(BackendFailed):
            await change(service, view, key=key)

        assert (await change(service, view, key=key)).credentials is not None


async def test_p11_a_reload_looks_at_every_revision() -> None:
    """A narrower policy ends the overlap that it forbids, or the task whose current one it does."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        await change(service, view)
        assert service.adopt_policy(policy(US_ONLY)) == 0
        await until(lambda: paths(world) == {"orders-ro-us"})
        gone = US_ONLY.replace("spiffe://example.org/job", "spiffe://example.org/else")
        assert service.adopt_policy(policy(gone)) == 1
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.POLICY_NARROWED


async def test_p11_a_change_that_a_reload_overtakes_is_taken_back() -> None:
    """Decided by the old policy, minted under the new one that refuses it: not handed over."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), replace(ask(), parameters={"region": "us"}), None)
        world.vault.gates["mint"] = asyncio.Event()
        changing = asyncio.create_task(change(service, view, to_eu))
        await world.vault.until_called("mint", times=3)
        assert service.adopt_policy(policy(US_ONLY)) == 0
        world.vault.gates["mint"].set()
        with pytest.raises(Conflict) as refusal:
            await changing
        await until(lambda: paths(world) == {"orders-ro-us"})

        assert refusal.value.code is Code.TASK_CHANGING
        assert (await service.show(caller(), view.id, NOW)).revision == 1


# --- over a restart --------------------------------------------------------------------------


async def changed_and_stopped(world: World, text: str = REPORT, kept: int | None = None) -> str:
    """Start, change, stop; keep the first `kept` rows, as a crash would."""
    async with world.running(text) as service:
        view = await service.start(caller(), ask(), None)
        await change(service, view, key=IdempotencyKey("k", "b"))
        await service.stop(revoke=False, grace=WAIT)
    if kept is not None:
        del world.ledger.entries[kept:]
    return view.id


async def test_p8_after_a_restart_both_revisions_go_on_until_the_overlap_is_over() -> None:
    """P8: nobody knows which credentials the caller has."""
    world = World()
    task_id = await changed_and_stopped(world)
    async with world.running(delivery_window=0.3 * SECOND) as service:
        shown = await service.show(caller(), task_id, NOW)
        assert (shown.revision, shown.state) == (2, TaskState.ACTIVE)
        assert paths(world) == {"orders-ro-eu", "orders-ro-us"}
        with pytest.raises(Conflict, match="delivered and forgotten"):
            await service.change(caller(), task_id, to_us, IdempotencyKey("k", "b"))
        await until(lambda: paths(world) == {"orders-ro-us"})
        assert (await service.change(caller(), task_id, again, None)).credentials is not None


@pytest.mark.parametrize("kept", [4, 5])
async def test_p8_a_crash_in_the_middle_of_a_change_leaves_the_old_revision_alone(
    kept: int,
) -> None:
    """After its intent, or its accessor: what it made is taken back, the task goes on."""
    world = World()
    task_id = await changed_and_stopped(world, KEPT, kept)
    async with world.running(KEPT) as service:
        shown = await service.show(caller(), task_id, NOW)
        assert (shown.revision, shown.state) == (1, TaskState.ACTIVE)
        # What nobody heard of is ended by the server's own clocks; what goes on is renewed.
        for _ in range(9):
            await a_second_later(world, service, task_id)
        if kept == 4:  # not even the token's accessor is known
            world.vault.expire(world.vault.requests[-1])
        await until(lambda: world.ledger.events()[-1] == "revision_revoked")

        assert paths(world) == {"orders-ro-eu"}


async def test_p8_a_crash_while_a_revision_was_retired_retires_it() -> None:
    """The row that it is ending is there, the proof is not."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        await change(service, view)
        world.vault.gates["revoke"] = asyncio.Event()
        await service.heartbeat(caller(), view.id, 2)
        await until(lambda: world.ledger.events()[-1] == "revision_ending")
        await service.stop(revoke=False, grace=timedelta(milliseconds=10))
    world.vault.gates.clear()
    async with world.running() as service:
        await until(lambda: world.ledger.events()[-1] == "revision_revoked")

        assert paths(world) == {"orders-ro-us"}
        assert (await service.show(caller(), view.id, NOW)).revision == 2


async def test_p8_an_end_after_a_restart_takes_every_revision_back() -> None:
    """The process is gone: both revisions are revoked."""
    world = World()
    task_id = await changed_and_stopped(world)
    world.processes.gone_pids = {4242}
    async with world.running() as service:
        ended = await service.show(caller(), task_id, WAIT)

        assert ended.state is TaskState.REVOKED
        assert world.vault.alive == set()


def test_the_table_of_revisions_knows_every_state() -> None:
    """Whatever a failure leaves is a state that the table names, and every one leads to an end."""
    assert set(REVISION_NEXT) == set(RevisionState)
    assert {state for state, onward in REVISION_NEXT.items() if not onward} == {
        RevisionState.REVOKED,
        RevisionState.FAILED,
    }
    with pytest.raises(ValueError, match="does not go"):
        advance_revision(RevisionState.REVOKED, RevisionState.CURRENT)
