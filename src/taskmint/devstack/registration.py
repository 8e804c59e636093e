"""
Who is who on this machine: registration entries and the facts that are compared with them.

As SPIRE's unix workload attestor: a process is known by its user id and by the path of its
executable, both as the kernel tells them, never by anything that it says.
"""

import os
import select
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SO_PEERPIDFD: Final = 77  # asm-generic/socket.h, Linux 6.5
_UCRED: Final = struct.Struct("iII")  # unix(7), SO_PEERCRED
_INT: Final = struct.Struct("i")


@dataclass(frozen=True, slots=True)
class Entry:
    """Gives `spiffe_id` to processes of the executable `path`, of one user or (None) of any."""

    spiffe_id: str
    path: str
    uid: int | None = None

    def matches(self, uid: int, path: str) -> bool:
        """Whether a process with these facts is meant."""
        return self.path == path and self.uid in {None, uid}


class Caller:
    """The process at the other end of a connection; holds a pidfd until closed."""

    def __init__(self, pid: int, uid: int, pidfd: int) -> None:
        self.pid = pid
        self.uid = uid
        self._pidfd = pidfd

    @classmethod
    def of(cls, connection: socket.socket) -> "Caller | None":
        """
        Take the peer as it was when it connected; None when it has gone already.

        Without SO_PEERPIDFD a pid reused within microseconds would be taken for the caller's:
        good enough for development, and said so.
        """
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, _ = _UCRED.unpack(raw)
        try:
            answer = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _INT.size)
            pidfd: int = _INT.unpack(answer)[0]
        except OSError:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                return None
        return cls(pid, uid, pidfd)

    def entitled(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """
        Return the entries that mean this process as it is now; none once it has exited.

        1. Read the executable's path by pid.
        2. Poll the pidfd: while the process lives, its pid was its own in step 1.
        """
        try:
            path = str(Path(f"/proc/{self.pid}/exe").readlink())  # 1.
        except OSError:
            return ()
        exited = select.poll()
        exited.register(self._pidfd, select.POLLIN)
        if exited.poll(0):  # 2.
            return ()
        return tuple(entry for entry in entries if entry.matches(self.uid, path))

    def close(self) -> None:
        """Let go of the process."""
        os.close(self._pidfd)
