"""
What /proc and a pidfd say about a process, as values.

Every fact read by pid may belong to another process by the time it is returned. A caller that
holds a pidfd polls it *after* reading: still alive means that the facts were that process's.
Nothing here waits: /proc answers from memory, and files are opened without blocking.
"""

import os
import select
import time
from dataclasses import dataclass
from typing import Final

_READ: Final = 4096  # stat and fdinfo are a few hundred bytes, status under two thousand
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """Fields 4, 6 and 22 of /proc/PID/stat (proc_pid_stat(5)); `start_time` in clock ticks."""

    parent: int
    session: int
    start_time: int


@dataclass(frozen=True, slots=True)
class PidfdInfo:
    """
    What the kernel says of a pidfd in /proc/self/fdinfo, whatever /proc hides otherwise.

    `pid` is -1 once the process is reaped. `ours` says that it lives in this process's own pid
    namespace: NSpid lists one number for each namespace from ours inwards.
    """

    pid: int
    ours: bool


def has_exited(pidfd: int) -> bool:
    """Whether the process has exited; a zombie has (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def read_stat(pid: int) -> ProcessStat | None:
    """Return the process's stat, or None when there is none or it is hidden from us."""
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    # The name in parentheses may hold anything, parentheses and spaces included.
    fields = text.rpartition(b")")[2].split()
    return ProcessStat(parent=int(fields[1]), session=int(fields[3]), start_time=int(fields[19]))


def read_effective_ids(pid: int) -> tuple[int, int] | None:
    """Return effective uid and gid from /proc/PID/status, or None when it cannot be read."""
    text = _read(f"/proc/{pid}/status")
    if text is None:
        return None
    lines = dict(line.split(b":", 1) for line in text.splitlines() if b":" in line)
    return int(lines[b"Uid"].split()[1]), int(lines[b"Gid"].split()[1])


def read_pidfd(pidfd: int) -> PidfdInfo:
    """Return what fdinfo says about our own pidfd."""
    text = _read(f"/proc/self/fdinfo/{pidfd}") or b""
    lines = dict(line.split(b":", 1) for line in text.splitlines() if b":" in line)
    numbers = lines.get(b"NSpid", b"").split()
    return PidfdInfo(pid=int(lines.get(b"Pid", b"-1")), ours=len(numbers) == 1)


def read_pid_namespace(pid: int | str) -> int | None:
    """Return the inode of the process's pid namespace; None without ptrace rights over it."""
    try:
        descriptor = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


def read_boot_id() -> str:
    """Return /proc/sys/kernel/random/boot_id; empty when /proc hides it (ProcSubset=pid)."""
    return (_read("/proc/sys/kernel/random/boot_id") or b"").decode("ascii").strip()


def read_group(pid: int) -> str | None:
    """Return a process's group in the unified hierarchy; None when it has none or it is hidden."""
    for line in (_read(f"/proc/{pid}/cgroup") or b"").splitlines():
        if line.startswith(b"0::") and not line.endswith(b" (deleted)"):
            return os.fsdecode(line[3:])
    return None


def read_mountinfo(path: str) -> bytes:
    """Return the whole of a mountinfo file; nothing when it cannot be read."""
    chunks: list[bytes] = []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        while chunk := os.read(descriptor, _READ):
            chunks.append(chunk)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return b"".join(chunks)


def started_before(start_time: int, boottime: float) -> bool:
    """Whether a process with this start time (ticks) had started at `boottime` (seconds)."""
    return start_time / _TICKS_PER_SECOND <= boottime


def boottime() -> float:
    """CLOCK_BOOTTIME in seconds: the clock that start times are written in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _read(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.read(descriptor, _READ)
    except OSError:  # ESRCH: the process went between open and read
        return None
    finally:
        os.close(descriptor)
