"""What a workload's program and `taskmint run` do when a task needs somebody's approval."""

import asyncio
import signal
from datetime import UTC, datetime, timedelta

import pytest

from client.test_client import client_of
from client.test_run import Runner, finish, handled, runner
from taskmint.client.answers import Waiting
from taskmint.client.errors import BadAnswer, Refused

from fakes.spiffe_agent import FakeAgent
from fakes.task_socket import FakeDaemon

__all__ = ["runner"]  # a fixture


@pytest.fixture(autouse=True)
def _needs_approval(daemon: FakeDaemon) -> None:
    daemon.approval = True


def keys(daemon: FakeDaemon) -> set[str]:
    """The Idempotency-Keys of all starts."""
    return {one.headers["Idempotency-Key"] for one in daemon.asked if one.what == "start"}


async def test_a_start_waits_for_its_approval_and_is_collected(
    daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """The same key again, once it is approved; what to show a human is told once, before."""
    told: list[Waiting] = []
    async with client_of(daemon, agent) as client:
        starting = asyncio.create_task(client.start("orders", told.append, purpose="totals"))
        await daemon.until(lambda: daemon.count("look") == 1)
        assert not starting.done()
        (view,) = told
        assert (view.quorum, view.approvers) == (2, ("group:leads", "user:dpo"))
        assert view.plan == {"task": view.id, "purpose": "totals"}
        assert view.until > datetime.now(UTC) + timedelta(minutes=29)
        await daemon.decide("approved")
        task = await starting
        assert task.id == view.id
        assert task.credentials["warehouse"].data == daemon.credentials["warehouse"]

    assert [one.what for one in daemon.asked] == ["start", "look", "start", "end"]
    assert len(keys(daemon)) == 1
    assert len(told) == 1


async def test_what_is_denied_is_a_refusal(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """With the daemon's own code; nothing is left to cancel."""
    async with client_of(daemon, agent) as client:
        starting = asyncio.create_task(client.start("orders"))
        await daemon.until(lambda: daemon.count("look") == 1)
        await daemon.decide("denied")
        with pytest.raises(Refused) as caught:
            await starting
    assert caught.value.code == "task_ended"
    assert daemon.count("end") == 0


async def test_a_daemon_that_goes_away_while_somebody_decides_is_asked_again(
    daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """Broken connections, a daemon that is stopping and one that lets go: none ends the wait."""
    daemon.breaks.append("look")
    daemon.polls_at_once = True
    async with client_of(daemon, agent) as client:
        starting = asyncio.create_task(client.start("orders"))
        await daemon.until(lambda: daemon.count("look") == 2)
        daemon.refuse("look", 503, "shutting_down", **{"Retry-After": "1"})
        await daemon.until(lambda: daemon.count("look") == 4)
        daemon.refuse("start", 503, "vault_unavailable", **{"Retry-After": "1"})
        await daemon.decide("approved")
        await starting
    assert daemon.count("start") == 3
    assert len(keys(daemon)) == 1


async def test_a_daemon_that_never_decides_is_not_waited_for_for_ever(
    runner: Runner, daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """A request that waits although its time is long over: an error."""
    daemon.polls_at_once = True
    daemon.within = -timedelta(hours=1)
    async with client_of(daemon, agent) as client:
        with pytest.raises(BadAnswer, match="for longer than it said"):
            await client.start("orders")
    result = await runner.run("--", "echo", "ran")
    assert (result.code, result.out) == (125, "")
    assert "for longer than it said" in result.err


async def test_cancelled_while_it_waits_the_request_is_cancelled(
    daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """Nobody is left with a request to approve that nobody wants."""
    async with client_of(daemon, agent) as client:
        starting = asyncio.create_task(client.start("orders"))
        await daemon.until(lambda: daemon.count("look") == 1)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert daemon.asked[-1].outcome == "cancelled"
    assert [task.waits for task in daemon.tasks.values()] == ["failed"]


async def test_cancelled_while_it_is_asked_for_the_request_is_cancelled(
    daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """The answer is waited for: then it is known what to cancel."""
    daemon.minting = asyncio.Event()
    starting = asyncio.create_task(client_of(daemon, agent).start("orders"))
    await daemon.until(lambda: daemon.count("start") == 1)
    starting.cancel()
    daemon.minting.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert [task.waits for task in daemon.tasks.values()] == ["failed"]


async def test_cancelled_while_it_is_collected_the_task_is_ended(
    daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """Approved and being minted: it is a task by then."""
    starting = asyncio.create_task(client_of(daemon, agent).start("orders"))
    await daemon.until(lambda: daemon.count("look") == 1)
    daemon.minting = asyncio.Event()
    await daemon.decide("approved")
    await daemon.until(lambda: daemon.count("start") == 2)
    starting.cancel()
    daemon.minting.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert [task.end_cause for task in daemon.tasks.values()] == ["cancelled"]


async def test_who_is_told_may_refuse_to_wait(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """An exception of `on_waiting` cancels the request and comes out."""

    def not_today(_: Waiting) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with client_of(daemon, agent) as client, client.task("orders", not_today):
            raise AssertionError("it was not approved")
    assert [task.waits for task in daemon.tasks.values()] == ["failed"]


async def test_a_run_says_who_may_approve_and_waits(runner: Runner, daemon: FakeDaemon) -> None:
    """On standard error; the command then has its credentials and its output to itself."""
    show = "import os; print(os.environ['PGUSER'])"
    waiting = asyncio.create_task(runner.python("--env", "PGUSER=warehouse.username", code=show))
    await daemon.until(lambda: daemon.count("look") == 1)
    await daemon.decide("approved")
    result = await waiting
    (task,) = daemon.tasks.values()

    assert (result.code, result.out) == (0, "v-orders\n")
    assert "needs an approval: 2 of group:leads, user:dpo" in result.err
    assert f"taskmint approvals approve {task.id}" in result.err
    assert len(keys(daemon)) == 1
    assert task.end_cause == "succeeded"


async def test_a_run_outlasts_a_daemon_that_is_away_while_somebody_decides(
    runner: Runner, daemon: FakeDaemon
) -> None:
    """Asked again, as long as the request may wait; and so is the start, under its key."""
    daemon.breaks.append("look")
    daemon.polls_at_once = True
    process = await runner.start("--", "echo", "ran")
    await daemon.until(lambda: daemon.count("look") == 2)
    daemon.refuse("start", 503, "vault_unavailable", **{"Retry-After": "1"})
    await daemon.decide("approved")
    result = await finish(process)

    assert (result.code, result.out) == (0, "ran\n")
    assert (daemon.count("start"), len(keys(daemon))) == (3, 1)


async def test_a_run_that_is_denied_runs_nothing(runner: Runner, daemon: FakeDaemon) -> None:
    """125, with the daemon's reason."""
    waiting = asyncio.create_task(runner.python(code="print('ran')"))
    await daemon.until(lambda: daemon.count("look") == 1)
    await daemon.decide("denied")
    result = await waiting

    assert (result.code, result.out) == (125, "")
    assert "task_ended" in result.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_cancels_the_request(
    runner: Runner, daemon: FakeDaemon, number: int
) -> None:
    """Ctrl-C while it waits: the daemon is told, nothing runs, 128 + the signal."""
    process = await runner.start("--", "echo", "ran")
    await daemon.until(lambda: daemon.count("look") == 1)
    process.send_signal(number)
    result = await finish(process)
    (task,) = daemon.tasks.values()

    assert (result.code, result.out) == (128 + number, "")
    assert f"request {task.id} is cancelled" in result.err
    assert (task.waits, daemon.asked[-1].outcome) == ("failed", "cancelled")


async def test_a_request_that_cannot_be_cancelled_is_told_so(
    runner: Runner, daemon: FakeDaemon
) -> None:
    """Whoever pressed Ctrl-C must know that it can still be approved, to no use."""
    process = await runner.start("--", "echo", "ran")
    await daemon.until(lambda: daemon.count("look") == 1)
    daemon.refuse("end", 503, "ledger_unavailable")
    process.send_signal(signal.SIGINT)
    result = await finish(process)

    assert (result.code, result.out) == (128 + signal.SIGINT, "")
    assert "could not be cancelled" in result.err
    await daemon.decide("failed")


async def test_a_signal_while_it_is_collected_ends_the_task(
    runner: Runner, daemon: FakeDaemon
) -> None:
    """Approved and being minted: it is seen through, so that no task is left."""
    process = await runner.start("--", "echo", "ran")
    await daemon.until(lambda: daemon.count("look") == 1)
    daemon.minting = asyncio.Event()
    await daemon.decide("approved")
    await daemon.until(lambda: daemon.count("start") == 2)
    process.send_signal(signal.SIGINT)
    await asyncio.to_thread(handled, process)
    daemon.minting.set()
    result = await finish(process)

    assert (result.code, result.out) == (128 + signal.SIGINT, "")
    assert [task.end_cause for task in daemon.tasks.values()] == ["cancelled"]
