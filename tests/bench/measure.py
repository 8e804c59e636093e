"""What the kernel says a process has used: CPU time in nanoseconds and memory in bytes."""

import contextlib
import os
import re
import time
from pathlib import Path
from typing import Final

_PSS: Final = re.compile(r"^(Rss|Pss|Private_Dirty): +([0-9]+) kB$", re.MULTILINE)
_KIBIBYTE: Final = 1024


def cpu_seconds(pid: int) -> float:
    """
    CPU time of all threads of a process, those that have ended included.

    clock_getcpuclockid(3) makes a clock's id from a pid; the layout is the kernel's
    (include/linux/posix-timers_types.h: the pid's complement, 3 bits, 2 for the scheduler's time).
    /proc/PID/stat would tell the same in steps of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)


def family(pid: int) -> list[int]:
    """Name a process and its children, as they are now (proc(5), stat: the parent is field 4)."""
    found = [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def memory(pid: int) -> dict[str, int]:
    """PSS, RSS and private dirty bytes, from smaps_rollup (proc(5))."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name.lower(): int(value) * _KIBIBYTE for name, value in _PSS.findall(text)}


def machine_busy_seconds() -> float:
    """CPU time that anybody on this machine has used, neighbours included (proc(5), stat)."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = map(int, fields)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def pid_of(executable: Path, argument: str) -> int:
    """Find the one process of an executable that has this word as its last. Raises LookupError."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            path = (process / "exe").readlink()
        except OSError:  # it ended while we looked, or is not ours
            continue
        if words[-2:-1] == [argument.encode()] and path == executable:
            found.append(int(process.name))
    if len(found) != 1:
        raise LookupError(f"{len(found)} processes have {argument} as their last argument")
    return found[0]
