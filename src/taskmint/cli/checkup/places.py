"""Files and sockets: modes, owners, stale ones, a second daemon, room on the disk."""

import errno
import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from taskmint.config import Config

from .report import Diagnosis, failure, fine, warning

_SOCKETS: Final = "sockets"
_LEDGER: Final = "ledger"
_LITTLE_ROOM: Final = 256 * 1024 * 1024
_NO_ROOM: Final = 16 * 1024 * 1024
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def check_sockets(config: Config) -> Iterator[Diagnosis]:
    """Both doors: is one there, whose is it, how wide is it open, and does anybody listen."""
    sockets = config.sockets
    yield from _socket(Path(sockets.task), sockets.task_mode, sockets.task_group)
    yield from _socket(Path(sockets.admin), sockets.admin_mode, "")


def _socket(path: Path, mode: int, group: str) -> Iterator[Diagnosis]:
    gid = _gid(group)
    if group and gid is None:
        yield failure(_SOCKETS, f"there is no group {group}", f"run groupadd --system {group}")
    try:
        parent = path.parent.stat()
        if parent.st_mode & stat.S_IWOTH:
            yield failure(
                _SOCKETS,
                f"{path.parent} is writable by everybody: anybody could replace the socket",
                f"run chmod o-w {path.parent}",
            )
        found = path.lstat()
    except FileNotFoundError:
        yield failure(_SOCKETS, f"{path} is not there", "start taskmint.socket, or the daemon")
        return
    except OSError as error:
        fix = f"run taskmint doctor as root, or as the user of {path.parent}"
        yield warning(_SOCKETS, f"{path} cannot be looked at: {error.strerror}", fix)
        return
    if not stat.S_ISSOCK(found.st_mode):
        fix = "move it away, or configure another path"
        yield failure(_SOCKETS, f"{path} is not a socket", fix)
        return
    yield from _openness(path, found, mode, gid)
    yield from _listening(path)


def _openness(path: Path, found: os.stat_result, mode: int, gid: int | None) -> Iterator[Diagnosis]:
    has = stat.S_IMODE(found.st_mode)
    if has & ~mode:
        yield failure(
            _SOCKETS,
            f"{path} has mode {has:04o}, wider than {mode:04o}",
            f"run chmod {mode:04o} {path}, and set SocketMode={mode:04o} in the .socket unit",
        )
    elif has != mode:
        what = f"{path} has mode {has:04o}, narrower than {mode:04o}: callers may be shut out"
        yield warning(_SOCKETS, what, f"run chmod {mode:04o} {path}")
    if gid is not None and found.st_gid != gid:
        yield warning(
            _SOCKETS,
            f"{path} belongs to group {found.st_gid}, not {gid}: callers may be shut out",
            f"run chgrp {gid} {path}, and set SocketGroup= in the .socket unit",
        )


def _listening(path: Path) -> Iterator[Diagnosis]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(str(path))
    if answer == errno.ECONNREFUSED:
        fix = "start the daemon, which replaces a stale socket of its own user; or remove it"
        yield failure(_SOCKETS, f"{path} is stale: nobody listens on it", fix)
    elif answer in {0, errno.EAGAIN, errno.EINPROGRESS}:
        yield fine(_SOCKETS, f"somebody listens on {path}")
    else:
        fix = "run taskmint doctor as a user who may connect, or see SocketMode= and SocketGroup="
        yield warning(_SOCKETS, f"{path}: {os.strerror(answer)}", fix)


def check_port(listen: str) -> Iterator[Diagnosis]:
    """Whether the port for metrics is free; asked only when our own daemon does not hold it."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            fix = "name another port, or leave metrics.listen out"
            yield failure(_SOCKETS, f"metrics.listen {listen}: {error.strerror}", fix)


def check_ledger_place(path: Path) -> Iterator[Diagnosis]:
    """The ledger's directory and file, the room on its disk, and who holds its lock."""
    directory = path.parent
    try:
        found = directory.stat()
    except OSError as error:
        fix = f"run install -d -m 0700 -o taskmint {directory}, or see StateDirectory="
        yield failure(_LEDGER, f"{directory}: {error.strerror}", fix)
        return
    if found.st_mode & _OTHERS_WRITE:
        fix = f"run chmod 0700 {directory}"
        yield failure(_LEDGER, f"{directory} can be written by others", fix)
    yield from _disk(directory)
    try:
        file = path.lstat()
    except FileNotFoundError:
        yield warning(_LEDGER, f"{path} is not there", "the first start makes it; see ledger.path")
        return
    except OSError as error:
        fix = "run taskmint doctor as root, or as the daemon's user"
        yield warning(_LEDGER, f"{path}: {error.strerror}", fix)
        return
    if not stat.S_ISREG(file.st_mode) or file.st_mode & _OTHERS:
        fix = f"run chmod 0600 {path}"
        yield failure(_LEDGER, f"{path} is open to others, or no plain file", fix)
    if file.st_uid != found.st_uid:
        fix = f"run chown {found.st_uid} {path}"
        what = f"{path} belongs to uid {file.st_uid}, its directory to {found.st_uid}"
        yield failure(_LEDGER, what, fix)


def _disk(directory: Path) -> Iterator[Diagnosis]:
    room = os.statvfs(directory)
    free = room.f_bavail * room.f_frsize
    if room.f_flag & os.ST_RDONLY:
        yield failure(
            _LEDGER, f"{directory} is on a read-only disk: nothing starts", "remount it writable"
        )
    elif free < _NO_ROOM:
        what = f"{free >> 20} MiB are free in {directory}: nothing starts without a record"
        yield failure(_LEDGER, what, "free space, or enlarge the disk; no restart is needed")
    elif free < _LITTLE_ROOM:
        yield warning(
            _LEDGER, f"{free >> 20} MiB are free in {directory}", "free space, or enlarge the disk"
        )
    else:
        yield fine(_LEDGER, f"{free >> 20} MiB are free in {directory}")


def lock_holder(path: Path) -> int | None:
    """
    Return the pid that holds a ledger's lock, None when nobody does.

    Asked of the kernel (/proc/locks, proc(5)) and not by trying: a daemon that starts in that
    moment would find the lock taken.
    """
    lock = Path(f"{path}.lock")
    try:
        inode, text = lock.stat().st_ino, lock.read_text("ascii", "replace").strip()
        held = Path("/proc/locks").read_text("ascii").splitlines()
    except OSError:
        return None
    for line in held:
        _, kind, _, _, pid, place, *_ = line.split()
        if kind == "FLOCK" and pid == text and place.rpartition(":")[2] == str(inode):
            return int(pid)
    return None


def _gid(group: str) -> int | None:
    if not group:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None
