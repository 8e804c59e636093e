"""
Peers in, held processes out: what a task is bound to (decisions.md, `bind`).

    peer      the process that connected, whoever inherited the socket
    parent    its parent at accept: same uid and pid namespace, not pid 1
    session   its session's leader at accept
    unit      its systemd unit: units.py

A held process is a pidfd and one entry in the loop's selector: thousands cost nothing while
nothing happens. Nothing here ends a task; it says that a process has ended.
"""

import asyncio
import errno
import os
import resource
from collections.abc import Callable
from typing import Final, Self

from taskmint.errors import Code, Unprocessable
from taskmint.model.peer import Peer, PeerProof
from taskmint.model.scope import BindKind
from taskmint.ports import BoundProcess

from . import procfs
from .peers import PeerReader

SPARE_DESCRIPTORS: Final = 48  # which no bound process takes
_UNREAD_NAMESPACE: Final = (
    0  # recorded when the namespace cannot be read; equal only to unread again
)


class PidfdWatch:
    """Holds one pidfd, which it owns. Fits ports.ProcessWatch."""

    __slots__ = ("_callbacks", "_loop", "_pidfd", "process")

    def __init__(self, process: BoundProcess, pidfd: int) -> None:
        self.process = process
        self._pidfd: int | None = pidfd
        self._callbacks: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def exited(self) -> bool:
        """Whether the process has exited. Raises ValueError after close()."""
        if self._pidfd is None:
            raise ValueError("this watch is closed")
        return procfs.has_exited(self._pidfd)

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call back once, on the running loop, when the process exits; soon if it has already."""
        if self._pidfd is None:
            raise ValueError("this watch is closed")
        self._callbacks.append(callback)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._pidfd, self._notice)

    def close(self) -> None:
        """Stop watching and close the pidfd; callbacks not yet called never are."""
        self._unwatch()
        self._callbacks.clear()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _notice(self) -> None:
        self._unwatch()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def _unwatch(self) -> None:
        if self._loop is not None and self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            self._loop = None


class HeldProcesses:
    """Resolves what a task binds to, and finds it again after a restart. Fits ports.Processes."""

    def __init__(self, reader: PeerReader) -> None:
        self._reader = reader
        self._boot_id = procfs.read_boot_id()

    def bind(self, peer: Peer, kind: BindKind) -> PidfdWatch:
        """
        Hold the process that `kind` names for this peer. Raises Unprocessable(bind_refused), and
        OSError(EMFILE) when it would take a descriptor that revocation may need.

        The peer is firmly known and alive: its parent and session mean nothing afterwards.
        """
        pidfd = require_firm(peer)
        match kind:
            case BindKind.PEER:
                return self._hold(kind, peer.pid, os.dup(pidfd))
            case BindKind.PARENT:
                return self._hold_parent(peer, pidfd)
            case BindKind.SESSION:
                return self._hold_session(peer, pidfd)
            case BindKind.UNIT:
                raise ValueError("a unit is not a process")

    def reopen(self, process: BoundProcess) -> PidfdWatch | None:
        """
        Hold a recorded process again, or None when it is not provably the same one, alive.

        1. Another boot, or a boot that cannot be told: not the same.
        2. Open the pid, then read its start time and namespace; all must be as recorded.
        3. Alive after that: what was read was read of the process that is held.
        """
        # 1.
        if not self._boot_id or process.boot_id != self._boot_id:
            return None
        # 2.
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            return None
        stat = procfs.read_stat(process.pid)
        namespace = self._reader.pid_namespace(process.pid, pidfd) or _UNREAD_NAMESPACE
        same = (
            stat is not None
            and stat.start_time == process.start_time
            and namespace == process.pid_namespace
            # 3.
            and not procfs.has_exited(pidfd)
        )
        if not same:
            os.close(pidfd)
            return None
        return PidfdWatch(process, pidfd)

    def _hold_parent(self, peer: Peer, peer_pidfd: int) -> PidfdWatch:
        """
        Hold the peer's parent.

        1. There must be a parent that we can see, other than init.
        2. Open it, then read the peer's parent again. The peer is alive and its parent is still
           the one of accept: so the pid was not reused, and the pidfd is the parent's.
        3. Same user, same pid namespace: a task is not tied to what its caller does not own.
        """
        # 1.
        if peer.parent is None or peer.parent <= 1:
            raise bind_refused("the process that connected has no parent but init")
        # 2.
        pidfd = _open(peer.parent, "the parent of the process that connected has exited")
        stat = procfs.read_stat(peer.pid)
        if stat is None or stat.parent != peer.parent or procfs.has_exited(peer_pidfd):
            os.close(pidfd)
            raise bind_refused("the parent of the process that connected has exited")
        # 3.
        ids = procfs.read_effective_ids(peer.parent)
        namespace = self._reader.pid_namespace(peer.parent, pidfd)
        if ids is None or ids[0] != peer.uid:
            os.close(pidfd)
            raise bind_refused("the parent of the process that connected runs as another user")
        if namespace is None or namespace != peer.pid_namespace:
            os.close(pidfd)
            raise bind_refused(
                "the parent of the process that connected is in another pid namespace"
            )
        return self._hold(BindKind.PARENT, peer.parent, pidfd)

    def _hold_session(self, peer: Peer, peer_pidfd: int) -> PidfdWatch:
        """
        Hold the leader of the peer's session.

        The kernel does not reuse a session's id while a member lives, so a pid opened while the
        peer is alive and still in that session is the leader's or nobody's.
        """
        if peer.session is None or peer.session <= 1:
            raise bind_refused("the session of the process that connected has no leader but init")
        pidfd = _open(peer.session, "the session's leader has exited")
        stat = procfs.read_stat(peer.pid)
        if stat is None or stat.session != peer.session or procfs.has_exited(peer_pidfd):
            os.close(pidfd)
            raise bind_refused("the process that connected has left its session")
        return self._hold(BindKind.SESSION, peer.session, pidfd)

    def _hold(self, kind: BindKind, pid: int, pidfd: int) -> PidfdWatch:
        """Record and hold an opened process; what was read counts only if it is alive after."""
        require_spare(pidfd)
        stat = procfs.read_stat(pid)
        namespace = self._reader.pid_namespace(pid, pidfd)
        if stat is None or procfs.has_exited(pidfd):
            os.close(pidfd)
            raise bind_refused(f"the {kind} process has exited, or /proc hides it from the daemon")
        process = BoundProcess(
            kind=kind,
            pid=pid,
            start_time=stat.start_time,
            pid_namespace=namespace or _UNREAD_NAMESPACE,
            boot_id=self._boot_id,
        )
        return PidfdWatch(process, pidfd)


def require_firm(peer: Peer) -> int:
    """
    Return the peer's pidfd. Raises Unprocessable(bind_refused).

    1. The peer must be firmly known: a pidfd, and its start time read under it. Without
       SO_PEERPIDFD a connection that queued before the daemon ran is not firm enough.
    2. It must be alive.
    """
    # 1.
    if peer.proof is PeerProof.NONE or peer.pidfd is None or peer.start_time is None:
        raise bind_refused("the kernel does not say firmly which process connected")
    if peer.first_pass and peer.proof is not PeerProof.PIDFD:
        raise bind_refused(
            "the connection queued before the daemon ran, and its pid may be another's now"
        )
    # 2.
    if procfs.has_exited(peer.pidfd):
        raise bind_refused("the process that connected has exited")
    return peer.pidfd


def require_spare(descriptor: int) -> None:
    """
    Leave the last descriptors to Vault, the ledger and callers who want to end something.

    Numbers are given out from below (open(2)), so a high one says that all others are taken.
    Closes it and raises OSError(EMFILE) then.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptor >= limit - SPARE_DESCRIPTORS:
        os.close(descriptor)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _open(pid: int, gone: str) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise
        raise bind_refused(gone) from None


def bind_refused(
    why: str, *, fix: str = "bind to another process that the definition allows"
) -> Unprocessable:
    """Build the refusal; `why` is told to the caller."""
    return Unprocessable(Code.BIND_REFUSED, f"the task cannot be bound: {why}", fix=fix)
