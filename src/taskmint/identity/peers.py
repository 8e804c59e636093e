"""
An accepted Unix socket in, the kernel's word on the process at its other end out.

Nothing here decides whether the peer may do anything; `proof` says how firmly it is known,
and a pid that is not firmly known is never reported as if it were.
"""

import os
import socket
import struct
from enum import StrEnum
from typing import Final

from taskmint.errors import Code, TaskmintError, Unproven
from taskmint.model.peer import Peer, PeerProof

from . import procfs

SO_PEERGROUPS: Final = 59  # asm-generic/socket.h, Linux 4.13; Python has no name for it
SO_PEERPIDFD: Final = 77  # asm-generic/socket.h, Linux 6.5; Python 3.13 has no name for it
OVERFLOW_ID: Final = 65534  # how an id without a mapping into our user namespace shows

_UCRED: Final = struct.Struct("iII")  # struct ucred, unix(7)
_INT: Final = struct.Struct("i")
_GID: Final = struct.Struct("I")
_GROUPS: Final = 1024  # bytes: the most that Python's getsockopt takes, for 256 groups


class PidfdSource(StrEnum):
    """
    `peer.pidfd` of the config. FALLBACK behaves as on a kernel without SO_PEERPIDFD: for tests.
    """

    PREFER = "prefer"
    REQUIRE = "require"
    FALLBACK = "fallback"


class PeerReader:
    """Reads peers; `source` says where their pidfds come from."""

    def __init__(self, source: PidfdSource = PidfdSource.PREFER) -> None:
        self._source = source
        self._own_namespace = procfs.read_pid_namespace("self")

    def check(self) -> None:
        """Raise TaskmintError(config_invalid) when `require` asks for more than the kernel has."""
        if self._source is not PidfdSource.REQUIRE:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours, theirs:
            if _peer_pidfd(ours) is None:
                raise TaskmintError(
                    Code.CONFIG_INVALID,
                    "peer.pidfd is require, and this kernel has no SO_PEERPIDFD",
                    fix="run Linux 6.5 or later, or set peer.pidfd to prefer",
                )

    def read_uid(self, sock: socket.socket) -> int:
        """Return only the peer's uid, for counting before anything dearer is read."""
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        uid: int = _UCRED.unpack(credentials)[1]
        return uid

    def read(self, sock: socket.socket, *, first_pass: bool = False) -> Peer:
        """
        Return the peer of a socket that was accepted just now.

        The returned pidfd belongs to the caller, who closes it with the connection.

        1. Take pid, uid and gid at connect time (SO_PEERCRED).
        2. A pid of 0 (not in our pid namespace) or a uid of 65534 (not in our user namespace)
           proves nothing: stop.
        3. Take the kernel's own pidfd (SO_PEERPIDFD); without one, open the pid and compare what
           it is now with what it was.
        4. Read groups at connect time from the socket; start time, parent, session and namespace
           by pid.
        5. Poll the pidfd: if the process has exited meanwhile, (4) may tell of another: drop it.
        """
        accepted_at = procfs.boottime()
        # 1.
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(credentials)
        # 2.
        if pid <= 0 or uid == OVERFLOW_ID:
            return _unproven(pid, uid, gid, first_pass=first_pass)
        # 3.
        pidfd = None if self._source is PidfdSource.FALLBACK else _peer_pidfd(sock)
        proof = PeerProof.PIDFD
        if pidfd is None and self._source is not PidfdSource.REQUIRE:
            pidfd = _open_and_compare(pid, uid, gid, accepted_at)
            proof = PeerProof.START_TIME
        if pidfd is None:
            return _unproven(pid, uid, gid, first_pass=first_pass)
        # 4.
        stat = procfs.read_stat(pid)
        namespace = self.pid_namespace(pid, pidfd)
        # 5.
        if procfs.has_exited(pidfd):
            stat = namespace = None
        return Peer(
            pid=pid,
            uid=uid,
            gid=gid,
            pidfd=pidfd,
            start_time=stat.start_time if stat else None,
            pid_namespace=namespace,
            proof=proof,
            first_pass=first_pass,
            parent=stat.parent if stat else None,
            session=stat.session if stat else None,
            groups=_groups(sock),
        )

    def pid_namespace(self, pid: int, pidfd: int) -> int | None:
        """Return the pid namespace's inode; our own needs no rights over the other process."""
        if procfs.read_pidfd(pidfd).ours:
            return self._own_namespace
        return procfs.read_pid_namespace(pid)


def require_present(peer: Peer) -> None:
    """Raise Unproven(peer_unattested) unless the kernel names this process and it is alive."""
    if peer.proof is PeerProof.NONE or peer.pidfd is None:
        raise Unproven(
            Code.PEER_UNATTESTED,
            "The kernel does not say which process this is.",
            fix="connect from the daemon's own user and pid namespace",
        )
    if procfs.has_exited(peer.pidfd):
        raise Unproven(
            Code.PEER_UNATTESTED,
            "The process that connected has exited.",
            fix="connect from the process that asks",
        )


def _groups(sock: socket.socket) -> frozenset[int]:
    """
    Return the peer's supplementary groups (SO_PEERGROUPS).

    None where there are more than fit, which proves less. A group without a mapping into our user
    namespace shows as 65534, whichever it is, and is left out.
    """
    try:
        answer = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _GROUPS)
    except OSError:
        return frozenset()
    return frozenset(gid for (gid,) in _GID.iter_unpack(answer)) - {OVERFLOW_ID}


def _peer_pidfd(sock: socket.socket) -> int | None:
    """Return the kernel's pidfd; None on an older kernel, or when the peer is gone for good."""
    try:
        answer = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, _INT.size)
    except OSError:
        return None
    pidfd: int = _INT.unpack(answer)[0]
    return pidfd


def _open_and_compare(pid: int, uid: int, gid: int, accepted_at: float) -> int | None:
    """
    Open a pidfd for the pid that connected, or None when it is not provably the same process.

    A pid reused since connect() shows by its user, or by having started after the accept.
    What this cannot see is a pid reused by the same user while the connection still queued.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    ids = procfs.read_effective_ids(pid)
    stat = procfs.read_stat(pid)
    same = (
        ids == (uid, gid)
        and stat is not None
        and procfs.started_before(stat.start_time, accepted_at)
        and not procfs.has_exited(pidfd)
    )
    if not same:
        os.close(pidfd)
        return None
    return pidfd


def _unproven(pid: int, uid: int, gid: int, *, first_pass: bool) -> Peer:
    return Peer(
        pid=pid,
        uid=uid,
        gid=gid,
        pidfd=None,
        start_time=None,
        pid_namespace=None,
        proof=PeerProof.NONE,
        first_pass=first_pass,
    )
