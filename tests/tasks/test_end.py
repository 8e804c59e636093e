"""Every end ends, the first cause wins, and only proof closes (P4, P5)."""

import asyncio
from datetime import timedelta

import pytest

from taskmint.errors import Code, Conflict, NotFound, Unavailable
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Event
from taskmint.tasks.task import EndedBy

from fakes.vault import away, refused
from tasks.world import REPORT, SHORT, World, ask, caller, policy

WAIT = timedelta(seconds=20)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("cause", [EndCause.SUCCEEDED, EndCause.FAILED, EndCause.CANCELLED])
async def test_p4_an_explicit_end_revokes_looks_up_and_records(cause: EndCause) -> None:
    """P4, P5: lease, look-up, then the token; the row REVOKED says cause and time."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        ended = await service.end(caller(), view.id, cause, WAIT)

        assert ended.state is TaskState.REVOKED
        assert ended.cause is cause
        assert world.vault.alive == set()
        assert world.vault.calls.count("is_gone") == 3
        assert world.ledger.events()[-2:] == ["ending", "revoked"]
        assert world.ledger.entries[-1].facts["cause"] == cause
        assert ended.revocation_seconds is not None


async def test_p4_the_first_cause_wins() -> None:
    """A second end changes nothing and is answered with the first one's result."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        await service.end(caller(), view.id, EndCause.FAILED, WAIT)
        again = await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)

        assert again.cause is EndCause.FAILED
        assert world.ledger.events().count("revoked") == 1


async def test_p4_the_bound_process_exits() -> None:
    """The end of the bound process ends the task."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        world.processes.watches[0].exit()
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.PROCESS_EXITED
        assert ended.state is TaskState.REVOKED


@pytest.mark.parametrize(
    ("deadline", "ends", "cause"),
    [
        ("300ms", "{deadline_only: true}", EndCause.DEADLINE),
        ("5m", "{heartbeat: 300ms}", EndCause.HEARTBEAT_MISSED),
        ("5m", "{heartbeat: 60s, reprove: 300ms}", EndCause.REPROVE_MISSED),
    ],
)
async def test_p4_the_clocks_end_a_task(deadline: str, ends: str, cause: EndCause) -> None:
    """Deadline passed, heartbeat missed, re-proof missed."""
    world = World()
    text = SHORT.replace("DEADLINE", deadline).replace("ENDS", ends)
    async with world.running(text) as service:
        view = await service.start(caller(), ask(), None)
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is cause
        assert world.vault.alive == set()


async def test_a_suspend_past_the_deadline_ends_the_task_on_resume() -> None:
    """Deadlines are boot-clock times, looked at every second whatever asyncio's timers say."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        world.clock.pass_time(timedelta(minutes=6))
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.DEADLINE


async def test_a_wall_clock_step_neither_ends_nor_extends_a_task() -> None:
    """The wall clock is for records only."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        for step in (timedelta(days=-3650), timedelta(days=3650)):
            world.clock.wall_offset += step
            shown = await service.show(caller(), view.id, 1.2 * SECOND)

            assert shown.state is TaskState.ACTIVE


async def test_a_heartbeat_moves_the_next_one_and_a_fresh_svid_re_proves() -> None:
    """Beats keep the task alive; an SVID shown before does not re-prove, nor two in turns."""
    world = World()
    world.vault.ttl = timedelta(hours=1)
    text = SHORT.replace("DEADLINE", "5m").replace("ENDS", "{heartbeat: 60s, reprove: 120s}")
    async with world.running(text) as service:
        view = await service.start(caller(), ask(), None)
        for minutes in (0, 2, 1):
            world.clock.boot_offset += 50
            await service.heartbeat(caller(issued=timedelta(minutes=minutes)), view.id)
        world.clock.boot_offset += 55  # 105 s after the fresh one, 55 s after the last beat
        assert (await service.show(caller(), view.id, 1.2 * SECOND)).state is TaskState.ACTIVE
        await service.heartbeat(caller(issued=timedelta(minutes=2)), view.id)
        world.clock.boot_offset += 50

        ended = await service.show(caller(), view.id, WAIT)
        assert ended.cause is EndCause.REPROVE_MISSED


async def test_a_heartbeat_after_the_end_is_answered_409() -> None:
    """Renewal after the end is refused."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)
        with pytest.raises(Conflict) as refusal:
            await service.heartbeat(caller(), view.id)

        assert refusal.value.code is Code.TASK_ENDED


@pytest.mark.parametrize("stranger", [caller("/other"), caller(uid=1001)])
async def test_another_callers_task_is_not_there(stranger: object) -> None:
    """404 for somebody else's id, the same as for an unknown one."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        for task_id in (view.id, "tm_00000000000000000000000000", "../x", ""):
            with pytest.raises(NotFound) as refusal:
                await service.end(stranger, task_id, EndCause.FAILED, WAIT)  # type: ignore[arg-type] # parametrised
            assert refusal.value.code is Code.TASK_NOT_FOUND

        assert (await service.show(caller(), view.id, timedelta())).state is TaskState.ACTIVE


async def test_p5_a_server_that_says_success_and_keeps_the_lease_is_not_believed() -> None:
    """P5: `revoked` needs a look-up that finds nothing; until then `revoking`, retried, visible."""
    world = World()
    world.vault.stubborn = True
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        ended = await service.end(caller(), view.id, EndCause.SUCCEEDED, 0.5 * SECOND)

        assert ended.state is TaskState.REVOKING
        assert service.operators.overview()[0].attempts_failed > 0
        assert "still there" in service.operators.overview()[0].last_problem
        world.vault.stubborn = False
        assert (await service.show(caller(), view.id, WAIT)).state is TaskState.REVOKED


async def test_p5_revocation_is_retried_while_vault_is_away_or_failing() -> None:
    """Sealed, away, 500: the task stays revoking and ends up revoked when Vault is back."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        world.vault.faults["revoke"].extend([away(), refused(), away(), refused()])
        world.vault.faults["is_gone"].extend([away(), refused()])
        ended = await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)

        assert ended.state is TaskState.REVOKED
        assert world.vault.alive == set()


async def test_p5_sessions_are_probed_until_none_is_counted() -> None:
    """`proof: sessions` repeats the probe until it counts no session."""
    world = World()
    world.vault.sessions = 2
    async with world.running(REPORT.replace("proof: login", "proof: sessions")) as service:
        view = await service.start(caller(), ask(), None)
        await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)

        assert world.vault.calls.count("probe") == 3


async def test_p5_an_account_that_cannot_be_dropped_is_disabled_and_said() -> None:
    """P5: the third verdict: no login, no session, a name that is left; the ledger counts it."""
    world = World()
    world.vault.undroppable = 1
    async with world.running(REPORT.replace("proof: login", "proof: sessions")) as service:
        view = await service.start(caller(), ask(), None)
        ended = await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)

        assert ended.state is TaskState.REVOKED
        assert world.ledger.entries[-1].facts["disabled"] == 1


async def test_p7_a_full_ledger_does_not_stop_a_revocation() -> None:
    """P7: revocation goes on from memory; the rows are written when the ledger takes them."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        world.ledger.full = True
        ended = await service.end(caller(), view.id, EndCause.SUCCEEDED, WAIT)

        assert ended.state is TaskState.REVOKED
        assert world.vault.alive == set()


async def test_p11_a_policy_that_narrows_ends_what_it_now_forbids() -> None:
    """P11: decided again with the recorded input; what still stands goes on."""
    world = World()
    wider = REPORT.replace("max: 30m", "max: 40m")
    gone = REPORT.replace("spiffe://example.org/job", "spiffe://example.org/else")
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        assert service.adopt_policy(policy(wider)) == 0
        assert service.adopt_policy(policy(gone)) == 1
        ended = await service.show(caller(), view.id, WAIT)

        assert ended.cause is EndCause.POLICY_NARROWED
        assert world.vault.alive == set()


@pytest.mark.parametrize(
    "narrowed",
    [
        REPORT.replace("default: 5m", "default: 4m"),
        REPORT.replace("      archive:", "      elsewhere:"),
        REPORT.replace("data/archive", "data/other"),
        REPORT.replace('path: "data/archive"', 'path: "data/archive", method: POST'),
        REPORT.replace("heartbeat: 60s", "heartbeat: 30s"),
        REPORT.replace("heartbeat: 60s", "heartbeat: 60s, reprove: 5m"),
        REPORT.replace("heartbeat: 60s", "heartbeat: 60s, daemon_stop: revoke"),
        REPORT.replace("bind: [peer, parent]", "bind: [parent]"),
    ],
)
async def test_p11_less_time_another_scope_or_an_earlier_end_is_narrower(narrowed: str) -> None:
    """A shorter deadline, a changed entitlement or a stricter end ends the task that had more."""
    world = World()
    async with world.running() as service:
        await service.start(caller(), ask(), None)

        assert service.adopt_policy(policy(narrowed)) == 1


async def test_an_operator_ends_anybodys_task() -> None:
    """The operator's end takes the same path."""
    world = World()
    async with world.running() as service:
        view = await service.start(caller(), ask(), None)
        ended = await service.operators.end(view.id, EndedBy(0), WAIT)

        assert ended.cause is EndCause.OPERATOR
        assert service.operators.overview() == []
        with pytest.raises(NotFound):
            await service.operators.end("tm_00000000000000000000000000", EndedBy(0), WAIT)


async def test_stopping_keeps_by_default_and_revokes_when_told() -> None:
    """SIGTERM keeps tasks for the next start; --revoke-on-stop ends them; new ones are refused."""
    for revoke, alive in ((False, 3), (True, 0)):
        world = World()
        async with world.running() as service:
            await service.start(caller(), ask(), None)
            await service.stop(revoke=revoke, grace=WAIT)

            assert len(world.vault.alive) == alive
            assert all(watch.closed for watch in world.processes.watches)
            with pytest.raises(Unavailable) as refusal:
                await service.start(caller(), ask(), None)
            assert refusal.value.code is Code.SHUTTING_DOWN


async def test_a_definition_may_ask_to_be_revoked_when_the_daemon_stops() -> None:
    """`daemon_stop: revoke` holds although the daemon keeps the others."""
    world = World()
    text = REPORT.replace("heartbeat: 60s}", "heartbeat: 60s, daemon_stop: revoke}")
    async with world.running(text) as service:
        await service.start(caller(), ask(), None)
        await service.stop(revoke=False, grace=WAIT)

        assert world.vault.alive == set()


async def test_stopping_waits_for_what_begins_meanwhile() -> None:
    """A start that is still minting at the stop is taken back within the grace."""
    world = World()
    world.vault.gates["mint"] = asyncio.Event()
    async with world.running() as service:
        request = asyncio.create_task(service.start(caller(), ask(), None))
        await world.vault.until_called("mint")
        stopping = asyncio.create_task(service.stop(revoke=True, grace=WAIT))
        await asyncio.sleep(0)
        world.vault.gates["mint"].set()
        await stopping
        with pytest.raises(Conflict):
            await request

        assert world.vault.alive == set()


async def test_stopping_is_bounded_when_vault_hangs() -> None:
    """What is not proven by then stays unfinished in the ledger for the next start."""
    world = World()
    async with world.running() as service:
        await service.start(caller(), ask(), None)
        world.vault.gates["revoke"] = asyncio.Event()
        await asyncio.wait_for(service.stop(revoke=True, grace=0.2 * SECOND), timeout=10)

        assert world.ledger.entries[-1].event is Event.ENDING
        assert len((await world.ledger.unfinished()).tasks) == 1


async def test_p8_who_waits_for_an_end_is_not_left_waiting_by_a_daemon_that_stops() -> None:
    """A long poll is answered with the task as it is, before the door closes; a later one too."""
    world = World()
    async with world.running() as service:
        task = await service.start(caller(), ask(), None)
        polling = asyncio.create_task(service.show(caller(), task.id, timedelta(seconds=60)))
        await asyncio.sleep(0)
        service.hang_up()

        async with asyncio.timeout(5):
            assert (await polling).state is TaskState.ACTIVE
            again = await service.show(caller(), task.id, timedelta(seconds=60))
        assert again.state is TaskState.ACTIVE


@pytest.mark.parametrize("ends", ["{heartbeat: 60s}", "{reprove: 60s}", "{deadline_only: true}"])
async def test_row_68_a_late_sign_of_life_revives_nothing(ends: str) -> None:
    """Row 68: stopped or suspended for ten minutes; what comes first on resume is a heartbeat."""
    world = World()
    text = SHORT.replace("DEADLINE", "5m").replace("ENDS", ends)
    async with world.running(text) as service:
        task = await service.start(caller(), ask(), None)
        world.clock.boot_offset += 600  # the timetable has not come round since
        with pytest.raises(Conflict) as late:
            await service.heartbeat(caller(issued=timedelta(minutes=1)), task.id)

        assert late.value.code is Code.TASK_ENDED
        await service.show(caller(), task.id, WAIT)
        assert world.vault.alive == set()
