"""What tasks are bound to: real processes, their parents and sessions, held by pidfds."""

import asyncio
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import uvloop

from identity.door import Door
from identity.workload import Workload, workload
from taskmint.errors import Code, Unprocessable
from taskmint.identity.peers import PeerReader, PidfdSource
from taskmint.identity.processes import PidfdWatch
from taskmint.model.peer import Peer, PeerProof
from taskmint.model.scope import BindKind
from taskmint.ports import BoundProcess

NOTICED: Final = 1.0  # seconds; P4: within 1 s of detecting


@pytest.fixture(params=[PidfdSource.PREFER, PidfdSource.FALLBACK])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    """A door whose reader has SO_PEERPIDFD, or has not."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "door"))
        listening.listen()
        one = Door(tmp_path / "door", listening, PeerReader(request.param))
        yield one
        one.close()


@pytest.fixture
def caller() -> Iterator[Workload]:
    """A process that follows orders."""
    with workload() as one:
        yield one


async def exit_of(watch: PidfdWatch) -> None:
    """Wait until the watch calls back."""
    called = asyncio.Event()
    watch.on_exit(called.set)
    async with asyncio.timeout(NOTICED):
        await called.wait()


def refusal(door: Door, peer: Peer, kind: BindKind) -> str:
    """Return why a bind is refused; always 422 bind_refused."""
    with pytest.raises(Unprocessable) as raised, door.held.bind(peer, kind):
        raise AssertionError("must be refused")
    assert raised.value.code is Code.BIND_REFUSED
    return raised.value.detail


# --- peer ------------------------------------------------------------------------------------


async def test_peer_ends_when_the_connecting_process_exits(door: Door, caller: Workload) -> None:
    """`peer`: its exit is seen by polling and called back once."""
    peer = door.accept(caller)
    with door.held.bind(peer, BindKind.PEER) as watch:
        calls: list[str] = []
        watch.on_exit(lambda: calls.append("exit"))
        assert watch.process.pid == caller.first_pid
        assert watch.process.kind is BindKind.PEER
        assert not watch.exited()
        caller.exit()
        assert watch.exited()
        await exit_of(watch)
        assert calls == ["exit"]


async def test_peer_ends_though_a_grandchild_keeps_the_socket(door: Door, caller: Workload) -> None:
    """SPIRE's TestExitDetection: who inherited the socket does not keep the task alive."""
    peer = door.accept(caller)
    with door.held.bind(peer, BindKind.PEER) as watch:
        caller.tell("child-takes-over").tell("child-takes-over")
        await exit_of(watch)
        assert len(caller.seen) == 3


async def test_peer_goes_on_though_its_children_exit(door: Door, caller: Workload) -> None:
    """A child that exits ends nothing."""
    peer = door.accept(caller)
    with door.held.bind(peer, BindKind.PEER) as watch, workload():
        caller.tell("fork")
        assert not watch.exited()


async def test_the_watch_outlives_the_connection(door: Door, caller: Workload) -> None:
    """It holds a pidfd of its own, so that the connection may close."""
    peer = door.accept(caller)
    with door.held.bind(peer, BindKind.PEER) as watch:
        door.close()
        caller.exit()
        await exit_of(watch)


# --- parent ----------------------------------------------------------------------------------


async def test_parent_ends_when_the_parent_exits(door: Door, caller: Workload) -> None:
    """`parent`: a script's, for the program that it runs; the program itself may be gone."""
    caller.tell("child-goes-on")
    peer = door.accept(caller)
    assert peer.parent == caller.first_pid
    with door.held.bind(peer, BindKind.PARENT) as watch:
        assert watch.process.pid == caller.first_pid
        caller.exit()
        await asyncio.sleep(0.05)
        assert not watch.exited()
        caller.kill(caller.first_pid)
        await exit_of(watch)


async def test_a_parent_that_exited_is_refused(door: Door, caller: Workload) -> None:
    """The reaper that inherits an orphan is not its parent, whoever it is."""
    caller.tell("child-goes-on")
    peer = door.accept(caller)
    caller.kill(caller.first_pid)

    assert "has exited" in refusal(door, peer, BindKind.PARENT)


async def test_an_orphan_has_no_parent_to_bind_to(door: Door, caller: Workload) -> None:
    """A daemonised caller's parent is init, which never ends."""
    caller.tell("child-takes-over").reap()
    peer = door.accept(caller)
    if peer.parent != 1:
        peer = replace(peer, parent=1)  # a subreaper adopted it here

    assert "init" in refusal(door, peer, BindKind.PARENT)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_a_parent_of_another_user_is_refused(
    door: Door, caller: Workload, tmp_path: Path
) -> None:
    """A task is not tied to a process that its caller does not own."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.name.startswith(("test_", "pytest-")):
            directory.chmod(0o755)
    door.path.chmod(0o777)
    caller.tell("child-goes-on").tell("user", 12345)
    peer = door.accept(caller)

    assert "another user" in refusal(door, peer, BindKind.PARENT)


async def test_a_parent_in_another_pid_namespace_is_refused(door: Door, caller: Workload) -> None:
    """The first process of a container has a parent outside it."""
    caller.tell("child-goes-on")
    peer = replace(door.accept(caller), pid_namespace=1)

    assert "namespace" in refusal(door, peer, BindKind.PARENT)


# --- session ---------------------------------------------------------------------------------


async def test_session_ends_when_its_leader_exits(door: Door, caller: Workload) -> None:
    """`session`: a login or a CI job, whatever processes in it come and go."""
    caller.tell("session").tell("child-goes-on")
    peer = door.accept(caller)
    assert peer.session == caller.first_pid
    with door.held.bind(peer, BindKind.SESSION) as watch:
        caller.exit()
        await asyncio.sleep(0.05)
        assert not watch.exited()
        caller.kill(caller.first_pid)
        await exit_of(watch)


async def test_a_session_without_its_leader_is_refused(door: Door, caller: Workload) -> None:
    """Its id stands for nobody any more."""
    caller.tell("session").tell("child-takes-over").reap()
    peer = door.accept(caller)

    assert "leader has exited" in refusal(door, peer, BindKind.SESSION)


async def test_a_caller_that_left_its_session_is_refused(door: Door, caller: Workload) -> None:
    """What was read at accept must still be so: only then is the leader the leader."""
    caller.tell("session").tell("child-goes-on")
    peer = door.accept(caller)
    caller.tell("session")

    assert "left its session" in refusal(door, peer, BindKind.SESSION)


# --- refusals of any kind --------------------------------------------------------------------


async def test_an_exited_peer_binds_nothing(door: Door, caller: Workload) -> None:
    """Its parent and session mean nothing afterwards."""
    peer = door.accept(caller)
    caller.exit()

    for kind in (BindKind.PEER, BindKind.PARENT, BindKind.SESSION):
        assert "has exited" in refusal(door, peer, kind)


async def test_a_peer_that_is_not_firmly_known_binds_nothing(door: Door, caller: Workload) -> None:
    """No proof, no start time, or a guess at a queued connection: refused."""
    peer = door.accept(caller)

    assert "firmly" in refusal(door, replace(peer, proof=PeerProof.NONE), BindKind.PEER)
    assert "firmly" in refusal(door, replace(peer, start_time=None), BindKind.PEER)
    queued = replace(peer, first_pass=True, proof=PeerProof.START_TIME)
    assert "queued" in refusal(door, queued, BindKind.PEER)
    with door.held.bind(replace(queued, proof=PeerProof.PIDFD), BindKind.PEER) as watch:
        assert not watch.exited()


# --- after a restart -------------------------------------------------------------------------


def found(door: Door, process: BoundProcess) -> bool:
    """Whether a recorded process is found again."""
    watch = door.held.reopen(process)
    if watch is None:
        return False
    with watch:
        return watch.process == process and not watch.exited()


async def test_a_recorded_process_is_found_again_while_it_lives(
    door: Door, caller: Workload
) -> None:
    """Same boot, pid, start time and pid namespace: the same process; anything else is not."""
    peer = door.accept(caller)
    with door.held.bind(peer, BindKind.PEER) as watch:
        recorded = watch.process

    assert found(door, recorded)
    assert not found(door, replace(recorded, start_time=recorded.start_time + 1))
    assert not found(door, replace(recorded, pid_namespace=recorded.pid_namespace + 1))
    assert not found(door, replace(recorded, boot_id="another boot"))
    assert not found(door, replace(recorded, boot_id=""))
    assert not found(door, replace(recorded, pid=2**22 + 1))
    caller.exit()
    assert not found(door, recorded)


async def test_an_exit_while_the_daemon_was_away_is_seen(door: Door, caller: Workload) -> None:
    """A zombie has exited, though its pid is still its own."""
    caller.tell("child-goes-on")
    peer = door.accept(caller)
    with door.held.bind(peer, BindKind.PEER) as watch:
        recorded = watch.process
        caller.exit()  # its parent never waits for it
        await exit_of(watch)

    assert not found(door, recorded)


# --- watches ---------------------------------------------------------------------------------


def own_process(number: int = 0) -> BoundProcess:
    """This very process, as a record."""
    return BoundProcess(BindKind.PEER, os.getpid(), number, 0, "")


async def test_a_closed_watch_says_nothing(door: Door, caller: Workload) -> None:
    """Closing forgets the callbacks; asking afterwards is a bug of ours."""
    peer = door.accept(caller)
    watch = door.held.bind(peer, BindKind.PEER)
    calls: list[str] = []
    watch.on_exit(lambda: calls.append("exit"))
    watch.close()
    watch.close()
    caller.exit()
    await asyncio.sleep(0.05)

    assert calls == []
    with pytest.raises(ValueError, match="closed"):
        watch.exited()
    with pytest.raises(ValueError, match="closed"):
        watch.on_exit(lambda: None)


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_thousands_of_watches_cost_nothing_while_nothing_happens(
    make_loop: type[asyncio.AbstractEventLoop],
) -> None:
    """3,000 held processes: no CPU while they live; every one is called back when they end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    exits: list[int] = []
    everyone = asyncio.Event()

    def note(number: int) -> None:
        exits.append(number)
        if len(exits) == 3000:
            everyone.set()

    async def main(stack: ExitStack, victim: Workload) -> None:
        for number in range(3000):
            watch = stack.enter_context(
                PidfdWatch(own_process(number), os.pidfd_open(victim.first_pid))
            )
            watch.on_exit(partial(note, number))
        spent = time.thread_time()  # this thread's, for others may be at work in this process
        await asyncio.sleep(0.3)
        assert time.thread_time() - spent < 0.1
        await asyncio.to_thread(victim.exit)
        async with asyncio.timeout(NOTICED * 3):
            await everyone.wait()

    try:
        with (
            ExitStack() as stack,
            workload() as victim,
            asyncio.Runner(loop_factory=make_loop) as runner,
        ):
            runner.run(main(stack, victim))
            stack.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sorted(exits) == list(range(3000))
