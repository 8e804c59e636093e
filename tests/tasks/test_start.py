"""How a task comes to be: durable points, refusals, and what a failed start leaves behind."""

import asyncio
from datetime import timedelta

import pytest

from taskmint.errors import (
    BackendFailed,
    Code,
    Conflict,
    Denied,
    LimitExceeded,
    TaskmintError,
    Unavailable,
    Unprocessable,
)
from taskmint.model.scope import BindKind
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Event
from taskmint.tasks.limits import TaskLimits
from taskmint.tasks.task import IdempotencyKey

from fakes.vault import away, refused
from tasks.world import REPORT, World, ask, caller

WAIT = timedelta(seconds=20)


async def test_a_start_passes_every_durable_point_in_order() -> None:
    """P7: intent, accessor and what stands are in the ledger before the credentials go out."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)

        assert view.state is TaskState.ACTIVE
        assert view.credentials is not None
        assert set(view.credentials) == {"warehouse", "archive"}
        assert world.ledger.events() == ["intent", "accessor", "active"]
        assert world.vault.calls == ["create_task_token", "mint", "mint"]
        assert world.seen.events == ["started report"]


async def test_the_task_token_is_asked_for_by_role_with_one_policy_and_the_tasks_name() -> None:
    """P1, P3: what bounds the token is the plan's role and the policy of this combination."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)

        request = world.vault.requests[0]
        assert request.role == "taskmint-task-report"
        assert request.policy == "taskmint-task-report.eu"
        assert request.display_name == f"taskmint-node-a-{view.id.removeprefix('tm_')}"
        assert request.meta == {
            "task": view.id,
            "spiffe_id": "spiffe://example.org/job",
            "node": "node-a",
        }


@pytest.mark.parametrize(
    ("request_", "who", "error", "code"),
    [
        (ask("unknown"), "/job", Denied, Code.NOT_PERMITTED),
        (ask(), "/other", Denied, Code.NOT_PERMITTED),
        (ask(ttl=timedelta(hours=2)), "/job", Unprocessable, Code.TTL_EXCEEDS_POLICY),
        (ask(bind=BindKind.UNIT), "/job", Unprocessable, Code.BIND_REFUSED),
    ],
)
async def test_a_refusal_is_recorded_and_touches_nothing(
    request_: object, who: str, error: type[TaskmintError], code: Code
) -> None:
    """P12: no call to Vault, one row in the ledger, a stable code."""
    world = World()
    async with world.running() as service:
        with pytest.raises(error) as refusal:
            await service.start(caller(who), request_, None)  # type: ignore[arg-type] # parametrised

        assert refusal.value.code is code
        assert world.vault.calls == []
        assert world.ledger.events() == ["denied"]
        assert world.ledger.entries[0].facts["code"] == code


async def test_a_process_that_cannot_be_bound_is_refused_and_counts_nothing() -> None:
    """A refused bind leaves no place taken: the limit of one is free for the next start."""
    world = World()
    world.processes.refuse = True
    async with world.running(limits=TaskLimits(tasks=1)) as service:
        with pytest.raises(Unprocessable):
            await service.start(caller(), ask(), None)
        world.processes.refuse = False

        assert (await service.start(caller(), ask(), None)).state is TaskState.ACTIVE


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (TaskLimits(tasks=1), REPORT),
        (TaskLimits(tasks_per_identity=1), REPORT),
        (TaskLimits(), REPORT.replace("ends:", "limits: {concurrent_per_identity: 1}\n    ends:")),
        (TaskLimits(), REPORT.replace("ends:", "limits: {starts_per_minute: 1}\n    ends:")),
    ],
)
async def test_p10_over_a_limit_a_start_is_refused_with_a_time_to_retry(
    limits: TaskLimits, text: str
) -> None:
    """P10: each limit answers 429 before Vault is asked for anything."""
    world = World()
    async with world.running(text, limits=limits) as service:
        await service.start(caller(), ask(), None)
        calls = len(world.vault.calls)
        with pytest.raises(LimitExceeded) as refusal:
            await service.start(caller(), ask(), None)

        assert refusal.value.retry_after > timedelta(0)
        assert len(world.vault.calls) == calls
        assert world.ledger.events()[-1] == "denied"


async def test_p10_asking_too_often_is_refused_without_a_row() -> None:
    """P10: a denied caller that asks in a loop must not fill the ledger's disk."""
    world = World()
    async with world.running(limits=TaskLimits(starts_per_minute_per_identity=3)) as service:
        for _ in range(3):
            with pytest.raises(Denied):
                await service.start(caller(), ask("unknown"), None)
        for _ in range(5):
            with pytest.raises(LimitExceeded):
                await service.start(caller(), ask("unknown"), None)

        assert world.ledger.events() == ["denied"] * 3


async def test_a_bind_that_runs_out_of_descriptors_is_a_limit_and_takes_no_place() -> None:
    """EMFILE: 429, and the place that was counted is given back."""
    world = World()
    world.processes.out_of_descriptors = True
    async with world.running(limits=TaskLimits(tasks=1)) as service:
        with pytest.raises(LimitExceeded):
            await service.start(caller(), ask(), None)
        world.processes.out_of_descriptors = False

        assert (await service.start(caller(), ask(), None)).state is TaskState.ACTIVE


async def test_a_start_that_takes_longer_than_its_deadline_is_taken_back() -> None:
    """Credentials that come too late are not handed over."""
    world = World()
    world.vault.gates["mint"] = asyncio.Event()
    async with world.running() as service:
        request = asyncio.create_task(service.start(caller(), ask(), None))
        await world.vault.until_called("mint")
        world.clock.pass_time(timedelta(minutes=6))
        world.vault.gates["mint"].set()
        with pytest.raises(Conflict):
            await request
        await world.vault.quiet.wait()

        assert world.vault.alive == set()


async def test_an_ended_task_gives_its_place_back() -> None:
    """The limit counts live tasks only."""
    world = World()
    async with world.running(limits=TaskLimits(tasks=1)) as service:
        first = await service.start(caller(), ask(), None)
        await service.end(caller(), first.id, EndCause.SUCCEEDED, WAIT)

        assert (await service.start(caller(), ask(), None)).state is TaskState.ACTIVE


async def test_p7_no_secret_leaves_when_the_ledger_cannot_record_it() -> None:
    """P7: a ledger that fails at the last durable point means 503, and everything taken back."""
    world = World()
    world.ledger.full_at = {Event.ACTIVE}
    async with world.running() as service:
        with pytest.raises(Unavailable) as refusal:
            await service.start(caller(), ask(), None)
        await world.vault.quiet.wait()

        assert refusal.value.code is Code.LEDGER_UNAVAILABLE
        assert world.vault.alive == set()


async def test_without_an_intent_on_disk_vault_is_not_asked() -> None:
    """The intent is durable before the first call to Vault."""
    world = World()
    world.ledger.full_at = {Event.INTENT}
    async with world.running() as service:
        with pytest.raises(Unavailable):
            await service.start(caller(), ask(), None)

        assert world.vault.calls == []


async def test_a_ledger_that_is_not_ready_refuses_new_tasks() -> None:
    """P7: full, read-only or failing, new tasks get 503."""
    world = World()
    async with world.running() as service:
        world.ledger.full = True
        with pytest.raises(Unavailable) as refusal:
            await service.start(caller(), ask(), None)

        assert refusal.value.code is Code.LEDGER_UNAVAILABLE


async def test_a_vault_that_is_not_ready_refuses_new_tasks() -> None:
    """P12: rights too wide, sealed or away: 503 before anything happens."""
    world = World()
    world.vault.not_ready = "sealed"
    async with world.running() as service:
        with pytest.raises(Unavailable) as refusal:
            await service.start(caller(), ask(), None)

        assert refusal.value.code is Code.VAULT_UNAVAILABLE
        assert world.ledger.events() == []


async def test_a_mint_that_fails_takes_the_others_back() -> None:
    """One entitlement refused: the task fails as a whole, and nothing of it stays."""
    world = World()
    world.vault.faults["mint"].append(refused())
    async with world.running() as service:
        with pytest.raises(BackendFailed):
            await service.start(caller(), ask(), None)
        await world.vault.quiet.wait()

        assert world.vault.alive == set()
        assert "active" not in world.ledger.events()


async def test_a_mint_whose_reply_is_lost_is_taken_back_with_its_token() -> None:
    """
    The lease nobody heard of belongs to the task token; revoking that only queues it on a real
    server, and there is no id to look up: `revoked` is not said before the dead-man is over (P5).
    """
    world = World()
    world.vault.lost["mint"] = 1
    async with world.running() as service:
        with pytest.raises(Unavailable):
            await service.start(caller(), ask(), None)
        await world.vault.quiet.wait()
        await asyncio.sleep(0.1)

        assert world.vault.alive == set()
        assert [view.state for view in service.operators.overview()] == [TaskState.REVOKING]
        world.clock.pass_time(timedelta(seconds=66))
        await service.stop(revoke=False, grace=WAIT)
        assert world.ledger.events()[-1] == "revoked"


async def test_a_token_that_was_provably_not_made_ends_the_start_as_failed() -> None:
    """`failed` is said only when nothing can have been created."""
    world = World()
    world.vault.faults["create_task_token"].append(away(created_nothing=True))
    async with world.running() as service:
        with pytest.raises(Unavailable):
            await service.start(caller(), ask(), None)
        await service.stop(revoke=False, grace=WAIT)

        assert world.ledger.events() == ["intent", "failed"]


async def test_a_token_whose_reply_was_lost_stays_revoking_until_the_server_has_ended_it() -> None:
    """Nobody knows its accessor, so only the dead-man interval ends it; until then: revoking."""
    world = World()
    world.vault.lost["create_task_token"] = 1
    async with world.running() as service:
        with pytest.raises(Unavailable):
            await service.start(caller(), ask(), None)
        assert [view.state for view in service.operators.overview()] == [TaskState.REVOKING]
        world.clock.pass_time(timedelta(seconds=66))
        await service.stop(revoke=False, grace=WAIT)

        assert world.ledger.events()[-1] == "revoked"


async def test_a_request_that_is_cancelled_in_mid_mint_leaves_no_orphan() -> None:
    """The mint runs to its end although nobody waits; the task then lives by its own rules."""
    world = World()
    world.vault.gates["mint"] = asyncio.Event()
    async with world.running() as service:
        request = asyncio.create_task(service.start(caller(), ask(), None))
        await world.vault.until_called("mint")
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        world.vault.gates["mint"].set()
        world.processes.watches[0].exit()
        await world.vault.quiet.wait()

        assert world.vault.alive == set()


async def test_a_task_that_ends_while_it_is_minted_never_delivers() -> None:
    """The bound process exits during the mint: no credentials, and all of it taken back."""
    world = World()
    world.vault.gates["mint"] = asyncio.Event()
    async with world.running() as service:
        request = asyncio.create_task(service.start(caller(), ask(), None))
        await world.vault.until_called("mint")
        world.processes.watches[0].exit()
        world.vault.gates["mint"].set()
        with pytest.raises(Conflict):
            await request
        await world.vault.quiet.wait()

        assert world.vault.alive == set()


KEY = IdempotencyKey("k", "body-1")


async def test_the_same_key_and_body_give_the_same_task_and_credentials() -> None:
    """Repeating a request mints nothing again."""
    world = World()
    async with world.running() as service:
        first, second = await asyncio.gather(
            service.start(caller(), ask(), KEY), service.start(caller(), ask(), KEY)
        )

        assert first.id == second.id
        assert second.credentials is not None
        assert world.vault.calls.count("create_task_token") == 1


async def test_the_same_key_with_another_body_is_refused() -> None:
    """409 idempotency_mismatch."""
    world = World()
    async with world.running() as service:
        await service.start(caller(), ask(), KEY)
        with pytest.raises(Conflict) as refusal:
            await service.start(caller(), ask(), IdempotencyKey("k", "body-2"))

        assert refusal.value.code is Code.IDEMPOTENCY_MISMATCH


async def test_somebody_elses_key_is_another_key() -> None:
    """The scope of a key is SPIFFE ID and uid."""
    world = World()
    async with world.running() as service:
        first = await service.start(caller(), ask(), KEY)
        second = await service.start(caller(uid=1001), ask(), KEY)

        assert first.id != second.id


async def test_a_failed_start_lets_its_key_be_used_again() -> None:
    """Nothing was granted, so repeating the request may succeed."""
    world = World()
    world.vault.faults["mint"].append(refused())
    async with world.running() as service:
        with pytest.raises(BackendFailed):
            await service.start(caller(), ask(), KEY)

        assert (await service.start(caller(), ask(), KEY)).state is TaskState.ACTIVE


async def test_after_the_heartbeat_the_credentials_are_forgotten() -> None:
    """P9: delivered and acknowledged, the daemon no longer knows the secret."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), KEY)
        assert (await service.show(caller(), view.id, timedelta())).credentials is not None
        await service.heartbeat(caller(), view.id)

        assert (await service.show(caller(), view.id, timedelta())).credentials is None
        with pytest.raises(Conflict) as refusal:
            await service.start(caller(), ask(), KEY)
        assert refusal.value.code is Code.CREDENTIALS_NOT_RETAINED


async def test_after_its_end_a_tasks_key_answers_that_it_has_ended() -> None:
    """The key is kept until the end and ten minutes more."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), KEY)
        await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)
        with pytest.raises(Conflict) as refusal:
            await service.start(caller(), ask(), KEY)

        assert refusal.value.code is Code.TASK_ENDED


async def test_a_reply_that_reached_nobody_ends_the_task() -> None:
    """Without a key nobody can ask again, so what was minted is taken back."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        service.undelivered(view)
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.CONNECTION_LOST
        assert world.vault.alive == set()
