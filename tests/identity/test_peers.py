"""What the kernel says about real processes on the other end of real sockets."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from identity.workload import Workload, can_unshare, script, workload
from taskmint.identity import procfs
from taskmint.identity.peers import OVERFLOW_ID, PeerReader, PidfdSource
from taskmint.model.peer import Peer, PeerProof

NAMESPACES = ("--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")
needs_namespaces = pytest.mark.skipif(
    not can_unshare(*NAMESPACES), reason="this machine lets us make no namespaces"
)


@dataclass
class Door:
    """A listening socket and whoever reads peers at it."""

    path: Path
    listening: socket.socket
    reader: PeerReader

    def accept(self) -> Peer:
        """Accept and read the peer; the accepted socket is closed, as nothing needs it."""
        accepted, _ = self.listening.accept()
        with accepted:
            return self.reader.read(accepted)


@pytest.fixture(params=[PidfdSource.PREFER, PidfdSource.FALLBACK])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    """A door whose reader has SO_PEERPIDFD, or has not."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "door"))
        listening.listen()
        yield Door(tmp_path / "door", listening, PeerReader(request.param))


@pytest.fixture
def caller() -> Iterator[Workload]:
    """A process that follows orders."""
    with workload() as one:
        yield one


def alive(peer: Peer) -> bool:
    """Whether the peer's process lives, by its pidfd."""
    assert peer.pidfd is not None
    return not procfs.has_exited(peer.pidfd)


def close(peer: Peer) -> None:
    """Do what the listener does when a connection ends."""
    if peer.pidfd is not None:
        os.close(peer.pidfd)


def test_a_peer_is_the_process_that_connected(door: Door, caller: Workload) -> None:
    """Pid, uid, gid, start time, parent, session and namespace are its own, and it is alive."""
    caller.tell("session").tell("connect", door.path)

    peer = door.accept()

    stat = procfs.read_stat(caller.pid)
    assert stat is not None
    assert (peer.pid, peer.uid, peer.gid) == (caller.pid, os.getuid(), os.getgid())
    assert (peer.start_time, peer.parent) == (stat.start_time, os.getpid())
    assert peer.session == caller.pid
    assert peer.pid_namespace == Path("/proc/self/ns/pid").stat().st_ino
    assert peer.proof in {PeerProof.PIDFD, PeerProof.START_TIME}
    assert alive(peer)
    caller.exit()
    assert not alive(peer)
    close(peer)


def test_a_child_that_goes_on_with_the_socket_is_not_the_peer(door: Door, caller: Workload) -> None:
    """Row 25: who connected counts; when it exits the peer is gone, whoever holds the socket."""
    caller.tell("connect", door.path)
    peer = door.accept()
    connected = caller.pid
    caller.tell("child-takes-over").reap()

    assert caller.pid != connected
    assert peer.pid == connected
    assert not alive(peer)
    close(peer)


def test_a_peer_that_exited_before_the_accept_is_not_taken_for_another(
    door: Door, caller: Workload
) -> None:
    """Either nothing is proven of it, or it is known and known to be gone."""
    caller.tell("connect", door.path).tell("child-takes-over").reap()

    peer = door.accept()

    assert peer.start_time is None
    assert peer.proof is PeerProof.NONE or not alive(peer)
    close(peer)


def test_exec_is_the_same_process(door: Door, caller: Workload) -> None:
    """A pidfd follows a process through exec; so does everything that is bound to it."""
    caller.tell("connect", door.path)
    peer = door.accept()
    caller.tell("exec")

    assert alive(peer)
    close(peer)


def test_a_passed_descriptor_keeps_the_peer_that_connected(
    door: Door, caller: Workload, tmp_path: Path
) -> None:
    """Row 25: SCM_RIGHTS hands over a connection, not an identity."""
    with workload() as taker:
        caller.tell("connect", door.path)
        peer = door.accept()
        taker.tell("take", tmp_path / "handover")
        caller.tell("give", tmp_path / "handover")
        caller.exit()

        assert peer.pid == caller.first_pid
        assert not alive(peer)
        close(peer)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_peer_that_became_another_user_is_not_proven_without_so_peerpidfd(
    tmp_path: Path, caller: Workload
) -> None:
    """The fallback compares users, and refuses what it cannot tell from a reused pid."""
    tmp_path.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "door"))
        listening.listen()
        caller.tell("connect", tmp_path / "door").tell("user", 12345)
        accepted, _ = listening.accept()
        with accepted:
            kernel = PeerReader(PidfdSource.PREFER).read(accepted)
            fallback = PeerReader(PidfdSource.FALLBACK).read(accepted)

    assert (kernel.uid, fallback.uid) == (0, 0)  # as it was at connect
    assert fallback.proof is PeerProof.NONE
    assert fallback.pidfd is None
    close(kernel)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a process groups")
@pytest.mark.parametrize(
    ("has", "known"),
    [
        pytest.param((4242, 4243), {4242, 4243}, id="two"),
        pytest.param((), set(), id="none"),
        pytest.param((4242, OVERFLOW_ID), {4242}, id="one that is not mapped"),
        pytest.param(tuple(range(1, 257)), set(range(1, 257)), id="as many as are read"),
        pytest.param(tuple(range(1, 258)), set(), id="more than are read"),
    ],
)
def test_a_peer_has_the_supplementary_groups_that_it_connected_with(
    door: Door, caller: Workload, has: tuple[int, ...], known: set[int]
) -> None:
    """As the kernel knows them, whatever becomes of the process; never one that is unknown here."""
    caller.tell("groups", *has).tell("connect", door.path).tell("groups", 5555)

    peer = door.accept()

    assert peer.groups == known
    close(peer)


@needs_namespaces
def test_a_peer_in_a_pid_namespace_below_ours_is_known(door: Door) -> None:
    """A container's process has a pid here; its namespace is another's."""
    with workload("unshare", *NAMESPACES) as contained:
        contained.order("connect", door.path)
        peer = door.accept()

        assert peer.proof is not PeerProof.NONE
        assert peer.pid_namespace not in {None, Path("/proc/self/ns/pid").stat().st_ino}
        assert alive(peer)
        close(peer)


def accepted_inside(tmp_path: Path, *options: str) -> list[object]:
    """Let a process in a namespace accept a connection of ours; returns what it made of us."""
    path = tmp_path / "inside"
    with (
        subprocess.Popen(
            ["unshare", *options, sys.executable, script("foreign_namespace.py"), path],
            stdout=subprocess.PIPE,
            text=True,
        ) as inside,
        socket.socket(socket.AF_UNIX) as sock,
    ):
        assert inside.stdout is not None
        assert inside.stdout.readline() == "listening\n"
        sock.connect(str(path))
        answer: list[object] = json.loads(inside.stdout.read())
        return answer


@needs_namespaces
def test_a_peer_outside_our_pid_namespace_is_unattested(tmp_path: Path) -> None:
    """Row 27: pid 0 means that the process has no name here."""
    assert accepted_inside(tmp_path, *NAMESPACES) == [0, 0, "none", None]


@needs_namespaces
def test_a_peer_outside_our_user_namespace_is_unattested(tmp_path: Path) -> None:
    """Row 27: uid 65534 means that the user has no name here."""
    pid, uid, proof, pidfd = accepted_inside(tmp_path, "--user")

    assert (pid, uid, proof, pidfd) == (os.getpid(), 65534, "none", None)


@needs_namespaces
@pytest.mark.parametrize("source", ["prefer", "fallback"])
def test_a_reused_pid_is_another_process(source: str) -> None:
    """Row 26: with a pid really reused nothing is bound to, or found as, the wrong process."""
    run = subprocess.run(
        ["unshare", *NAMESPACES, sys.executable, script("reused_pid.py"), source],
        check=True,
        capture_output=True,
        text=True,
    )
    report = json.loads(run.stdout)

    assert report["reused"]
    assert report["found while alive"]
    assert report["watch saw the exit"]
    assert not report["found again"]
    assert not report["found after another boot"]
    assert report["bind"] == "bind_refused"
    if report["late proof"] == "pidfd":
        assert report["late start time"] is None
        assert not report["late alive"]
    else:
        # Without SO_PEERPIDFD a pid reused by the same user while the connection queued cannot be
        # told; that is why such connections bind nothing when the daemon did not accept at once.
        assert source == "fallback" or report["late proof"] == "none"


def test_a_process_that_is_not_there_has_no_facts() -> None:
    """Reading a pid that nobody has is an answer, not an error."""
    assert procfs.read_stat(2**22 + 1) is None
    assert procfs.read_effective_ids(2**22 + 1) is None
    assert procfs.read_pid_namespace(2**22 + 1) is None
    assert procfs.read_boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
