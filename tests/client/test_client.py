"""What a Python program can rely on when it uses taskmint.client."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from taskmint.client.answers import Credential
from taskmint.client.client import TaskmintClient
from taskmint.client.errors import ClientError, NoIdentity, Refused, Unreachable
from taskmint.client.workload_api import WorkloadApi

from fakes.spiffe_agent import FakeAgent
from fakes.task_socket import FakeDaemon


def client_of(daemon: FakeDaemon, agent: FakeAgent) -> TaskmintClient:
    """A client of both fakes."""
    return TaskmintClient(str(daemon.socket), WorkloadApi(agent.endpoint))


async def test_a_block_runs_inside_a_task(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """The block has the credentials; leaving it ends the task as succeeded."""
    async with (
        client_of(daemon, agent) as client,
        client.task("orders", parameters={"region": "eu"}, purpose="totals") as task,
    ):
        assert task.credentials["warehouse"].data == daemon.credentials["warehouse"]
        assert task.credentials["warehouse"].warnings == ("capped",)
        assert task.guaranteed_until < task.expires_at

    start, end = daemon.asked
    assert start.body == {"task": "orders", "parameters": {"region": "eu"}, "purpose": "totals"}
    assert start.token == agent.tokens[0]
    assert (end.what, end.outcome) == ("end", "succeeded")
    assert task.ended is not None
    assert task.ended.proven


async def test_an_exception_ends_the_task_as_failed(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """What the block raises comes out unchanged, after the task has ended."""
    with pytest.raises(ZeroDivisionError):
        async with client_of(daemon, agent) as client, client.task("orders"):
            raise ZeroDivisionError

    assert daemon.asked[-1].outcome == "failed"


async def test_a_cancelled_block_ends_the_task_as_cancelled(
    daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """Cancellation waits for the end of the task, then goes on."""
    entered = asyncio.Event()

    async def block() -> None:
        async with client_of(daemon, agent) as client, client.task("orders"):
            entered.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(block())
    await entered.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert daemon.asked[-1].outcome == "cancelled"


async def test_a_start_that_is_cancelled_leaves_no_task(
    daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """Cancelled while the daemon mints, the client waits for the task and ends it."""
    daemon.minting = asyncio.Event()
    running = asyncio.create_task(client_of(daemon, agent).start("orders"))
    await daemon.until(lambda: daemon.count("start") == 1)
    running.cancel()
    daemon.minting.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert [task.end_cause for task in daemon.tasks.values()] == ["cancelled"]


async def test_tasks_left_running_end_with_the_client(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """A task that was started and forgotten is ended when the client's block is left."""
    async with client_of(daemon, agent) as client:
        await client.start("orders")

    assert [task.end_cause for task in daemon.tasks.values()] == ["cancelled"]


async def test_ending_twice_is_ending_once(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """A second end returns what the first one found out."""
    async with client_of(daemon, agent) as client:
        task = await client.start("orders")
        first = await task.end("succeeded")
        assert await task.end("failed") == first

    assert daemon.count("end") == 1


async def test_a_broken_start_is_repeated_under_the_same_key(
    daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """The answer to a start is lost twice; the client repeats it and there is one task."""
    daemon.breaks.extend(["start", "start"])
    async with client_of(daemon, agent) as client, client.task("orders") as task:
        assert task.id in daemon.tasks

    keys = {asked.headers["Idempotency-Key"] for asked in daemon.asked if asked.what == "start"}
    assert daemon.count("start") == 3
    assert len(keys) == 1
    assert len(daemon.tasks) == 1


async def test_a_broken_end_is_repeated(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """The end is asked for again when its answer is lost or the daemon is away for a moment."""
    daemon.breaks.append("end")
    daemon.refuse("end", 503, "identity_unavailable", **{"Retry-After": "1"})
    async with client_of(daemon, agent) as client, client.task("orders") as task:
        pass

    assert daemon.count("end") == 3
    assert task.ended is not None
    assert task.ended.proven


async def test_an_unproven_end_is_told(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """202 means that revocation goes on: the client does not call it proven."""
    daemon.proven = False
    async with client_of(daemon, agent) as client, client.task("orders") as task:
        pass

    assert task.ended is not None
    assert not task.ended.proven


async def test_a_task_that_nobody_knows_any_more_has_ended(
    daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """404 at the end: the daemon has forgotten it, which is no failure of the caller's work."""
    daemon.refuse("end", 404, "task_not_found")
    async with client_of(daemon, agent) as client, client.task("orders") as task:
        pass

    assert task.ended is not None
    assert task.ended.state == "forgotten"


async def test_an_end_that_cannot_be_told_is_an_error(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """After a good block the error comes out; after a bad one it is a note on the block's own."""
    daemon.refuse("end", 403, "not_permitted")
    with pytest.raises(Refused, match="not_permitted"):
        async with client_of(daemon, agent) as client, client.task("orders"):
            pass

    daemon.refuse("end", 403, "not_permitted")
    with pytest.raises(ZeroDivisionError) as raised:
        async with client_of(daemon, agent) as client, client.task("orders"):
            raise ZeroDivisionError
    assert "was not ended" in raised.value.__notes__[0]


async def test_a_refusal_says_code_fix_and_when_to_retry(
    daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """A problem becomes an exception with what the daemon said; it is not repeated."""
    daemon.refuse("start", 429, "limit_exceeded", **{"Retry-After": "7"})
    with pytest.raises(Refused) as raised:
        await client_of(daemon, agent).start("orders")

    error = raised.value
    assert (error.status, error.code, error.retry_after) == (429, "limit_exceeded", 7.0)
    assert error.fix == "do as the fake says"
    assert daemon.count("start") == 1


async def test_a_refused_token_is_replaced_once(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """401 makes the client ask the Workload API again; the same token again is a refusal."""
    daemon.refuse("start", 401, "credential_expired")
    async with client_of(daemon, agent) as client, client.task("orders"):
        assert daemon.count("start") == 2
        assert daemon.asked[0].token != daemon.asked[1].token

    agent.caches = True
    daemon.refuse("start", 401, "credential_invalid")
    with pytest.raises(Refused, match="credential_invalid"):
        await client_of(daemon, agent).start("orders")


async def test_no_daemon_is_said_at_once(tmp_path: Path, agent: FakeAgent) -> None:
    """Nothing on the socket: no retry, and a sentence that says what to look at."""
    client = TaskmintClient(str(tmp_path / "nobody.sock"), WorkloadApi(agent.endpoint))
    with pytest.raises(Unreachable, match=r"nobody\.sock: No such file") as raised:
        await client.start("orders")

    assert "daemon running" in raised.value.fix


async def test_no_identity_is_said_at_once(daemon: FakeDaemon, tmp_path: Path) -> None:
    """Without a Workload API nothing is asked of the daemon."""
    missing = WorkloadApi(f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(NoIdentity, match="No such file"):
        await TaskmintClient(str(daemon.socket), missing).start("orders")

    assert daemon.asked == []


async def test_heartbeats_come_at_a_third_of_the_interval(
    daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """They start with the task and stop with it."""
    daemon.heartbeat_seconds = 0.3
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with client_of(daemon, agent) as client, client.task("orders"):
        await daemon.until(lambda: daemon.count("heartbeat") == 3)
        took = loop.time() - began

    assert took >= 0.3
    assert [asked.what for asked in daemon.asked] == ["start", *["heartbeat"] * 3, "end"]


async def test_a_failed_heartbeat_is_repeated_sooner(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """Neither a broken connection nor a 503 ends the heartbeats."""
    daemon.heartbeat_seconds = 0.6
    daemon.breaks.append("heartbeat")
    daemon.refuse("heartbeat", 503, "identity_unavailable")
    async with client_of(daemon, agent) as client, client.task("orders") as task:
        await daemon.until(lambda: daemon.count("heartbeat") == 4)
        assert not task.over.is_set()


async def test_a_task_that_is_over_is_noticed(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """A heartbeat answered by 409 sets `over`, with the reason; no more heartbeats follow."""
    daemon.heartbeat_seconds = 0.15
    daemon.refuse("heartbeat", 409, "task_ended")
    async with client_of(daemon, agent) as client, client.task("orders") as task:
        async with asyncio.timeout(10):
            await task.over.wait()
        assert isinstance(task.over_because, Refused)
        assert task.over_because.code == "task_ended"

    assert daemon.count("heartbeat") == 1


async def test_reproof_shows_a_token_not_seen_before(daemon: FakeDaemon, agent: FakeAgent) -> None:
    """While the agent hands out the same token, each beat asks it again, until it is a new one."""
    daemon.reprove_seconds = 0.3
    agent.caches = True
    async with client_of(daemon, agent) as client, client.task("orders"):
        await daemon.until(lambda: daemon.count("heartbeat") == 3)
        agent.caches = False
        first = daemon.asked[0].token
        await daemon.until(lambda: daemon.asked[-1].token != first)

    assert len(agent.requests) > 3


async def test_an_agent_that_goes_away_does_not_stop_the_heartbeats(
    daemon: FakeDaemon, agent: FakeAgent
) -> None:
    """When re-proof is due and the agent refuses, the next beat tries again."""
    daemon.reprove_seconds = 0.3
    async with client_of(daemon, agent) as client, client.task("orders"):
        agent.refusal = (grpc.StatusCode.UNAVAILABLE, "away")
        await agent.until_asked(3)
        agent.refusal = None
        beats = daemon.count("heartbeat")
        await daemon.until(lambda: daemon.count("heartbeat") > beats)


def test_nothing_secret_is_in_a_repr(daemon: FakeDaemon) -> None:
    """A credential in a traceback or a log line shows its kind, not its data."""
    password = daemon.credentials["warehouse"]["password"]
    credential = Credential(
        kind="secret",
        data=daemon.credentials["warehouse"],
        revocable=True,
        expires_at=datetime.now(UTC),
        warnings=(),
    )
    shown = repr(credential)
    assert "secret" in shown
    assert password not in shown


def test_every_error_is_one_tree() -> None:
    """A program that catches ClientError has caught everything."""
    assert all(issubclass(error, ClientError) for error in (NoIdentity, Refused, Unreachable))
