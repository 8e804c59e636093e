"""What the kernel says a process has used: CPU time in nanoseconds and memory in bytes."""

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


def memory(pid: int) -> dict[str, int]:
    """PSS, RSS and private dirty bytes, from smaps_rollup (proc(5))."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name.lower(): int(value) * _KIBIBYTE for name, value in _PSS.findall(text)}


def machine_busy_seconds() -> float:
    """CPU time that anybody on this machine has used, neighbours included (proc(5), stat)."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = map(int, fields)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def pid_of(argument: str) -> int:
    """Find the one process with this word among its arguments. Raises LookupError."""
    word = argument.encode()
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:  # it ended while we looked
            continue
        if words[-2:-1] == [word]:
            found.append(int(file.parent.name))
    if len(found) != 1:
        raise LookupError(f"{len(found)} processes have {argument} as their last argument")
    return found[0]
