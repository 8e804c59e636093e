"""
What /proc and the unified control group hierarchy say, as values (cgroups(7), proc(5)).

The hierarchy is found through mountinfo: on a hybrid host it stands beside the old ones, and on a
pure v1 host there is none. A group is named by its path and, within a boot, by its inode.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from . import procfs

MOUNTINFO: Final = "/proc/self/mountinfo"
_ROOT: Final = 3  # fields of mountinfo, proc(5)
_POINT: Final = 4
_EVENTS: Final = "cgroup.events"
_READ: Final = 4096
_UNIT_SUFFIXES: Final = (".service", ".scope")
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount of the unified hierarchy: `root` is the group that shows at `point`."""

    root: str
    point: str

    def place(self, path: str) -> str | None:
        """Return where a group's directory is, None when this mount does not show it."""
        inside = path.removeprefix(self.root if self.root != "/" else "")
        if inside == path and self.root != "/":
            return None
        if inside and not inside.startswith("/"):
            return None
        return self.point + inside


def unified_mounts(mountinfo: bytes) -> Iterator[Mount]:
    """Yield the mounts of the unified hierarchy in the text of /proc/PID/mountinfo."""
    for line in mountinfo.splitlines():
        mounted, _, filesystem = line.partition(b" - ")
        fields = mounted.split(b" ")
        if filesystem.split(b" ")[0] == b"cgroup2" and len(fields) > _POINT:
            yield Mount(_unescaped(fields[_ROOT]), _unescaped(fields[_POINT]))


def unit_of(group: str) -> str | None:
    """
    Return the group of the systemd unit that a group belongs to; without one, the group itself.

    The deepest service or scope counts: a unit may have groups of its own below. None for the
    root, which is never empty, and for what lies outside our view.
    """
    parts = group.split("/")
    if group == "/" or not group.startswith("/") or ".." in parts:
        return None
    for end in range(len(parts), 1, -1):
        if parts[end - 1].endswith(_UNIT_SUFFIXES):
            return "/".join(parts[:end])
    return group


def open_group(path: str, mountinfo: str = MOUNTINFO) -> tuple[int, int] | None:
    """
    Open a group's `cgroup.events`; return the descriptor and the group's inode.

    None when no mount shows the group, or there is no such group any more.
    """
    for mount in unified_mounts(procfs.read_mountinfo(mountinfo)):
        place = mount.place(path)
        if place is None:
            continue
        try:
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            events = os.open(_EVENTS, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            continue
        else:
            return events, os.fstat(directory).st_ino
        finally:
            os.close(directory)
    return None


def is_populated(events: int) -> bool:
    """Whether a process lives in or below the group; what was removed is empty (cgroups(7))."""
    try:
        text = os.pread(events, _READ, 0)
    except OSError:  # ENODEV: the group has been removed, which only an empty one can be
        return False
    return b"populated 0" not in text.splitlines()


def _unescaped(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field))
