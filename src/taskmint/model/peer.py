"""What the kernel says about the process on the other end of a Unix socket."""

from dataclasses import dataclass
from enum import StrEnum


class PeerProof(StrEnum):
    """How firmly a peer's pid is known."""

    PIDFD = "pidfd"  # SO_PEERPIDFD: the kernel's own handle, Linux 6.5 and later
    START_TIME = "start_time"  # SO_PEERCRED, then pidfd_open and a re-read of uid, gid, start time
    NONE = "none"  # pid 0, another user or pid namespace, or the checks did not agree


@dataclass(frozen=True, slots=True)
class Peer:
    """
    The peer as it was at connect time (unix(7), SO_PEERCRED).

    `pidfd` belongs to the connection, is closed with it, and is no proof of life: poll it.
    `start_time` is field 22 of /proc/PID/stat in clock ticks since boot, None when unread.
    `pid_namespace` is the inode of /proc/PID/ns/pid, None when unread.
    `groups` are the gids of its supplementary groups, empty when the kernel names too many.
    `parent` and `session` are its parent's pid and its session's id at accept, None when unread.
    `first_pass` marks a connection that queued before this daemon ran (socket activation):
    without SO_PEERPIDFD its pid may since have been reused, so processes are not bound to it.
    """

    pid: int
    uid: int
    gid: int
    pidfd: int | None
    start_time: int | None
    pid_namespace: int | None
    proof: PeerProof
    first_pass: bool = False
    parent: int | None = None
    session: int | None = None
    groups: frozenset[int] = frozenset()
