"""
Listening Unix sockets: handed over by systemd, or bound by ourselves without a race.

A socket of ours is never open wider than it will stay, never taken from a living daemon, and
never replaces or removes a file that is not provably ours. Nothing here accepts.
"""

import asyncio
import errno
import fcntl
import os
import socket
import stat
from collections.abc import AsyncIterator, MutableMapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from taskmint.errors import Code, TaskmintError

_FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START
_MOST_PATH_BYTES: Final = 107  # sun_path of unix(7), less its final zero
_BACKLOG: Final = 1024  # capped by net.core.somaxconn
_PRIVATE: Final = 0o600
_ELSEWHERE: Final = "use a directory that the daemon's user, and nobody else, may write to"


@dataclass(frozen=True, slots=True)
class SocketFile:
    """Where to bind and who may connect: `mode` with `group`, None leaving the group as it is."""

    path: Path
    mode: int = 0o660
    group: int | None = None


def sockets_from_systemd(environment: MutableMapping[str, str]) -> dict[str, socket.socket]:
    """
    Return the listening sockets by name (`FileDescriptorName=`), as sd_listen_fds(3) does it.

    1. LISTEN_PID must be this process; otherwise the variables were meant for another.
    2. Remove the variables, so that no child believes they are for it.
    3. Each descriptor must be a listening stream socket of AF_UNIX with a name of its own.

    Raises TaskmintError(config_invalid). The caller closes the sockets.
    """
    # 1.
    meant_for = environment.get("LISTEN_PID", "")
    count = environment.get("LISTEN_FDS", "0")
    names = environment.get("LISTEN_FDNAMES", "")
    if meant_for != str(os.getpid()):
        return {}
    # 2.
    for name in ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environment.pop(name, None)
    # 3.
    if not count.isascii() or not count.isdigit():
        raise _config("LISTEN_FDS is not a number", fix="let systemd start the daemon")
    listed = names.split(":") if names else []
    if len(listed) != int(count) or len(set(listed)) != len(listed):
        raise _config(
            "systemd passed sockets without names of their own",
            fix="give each .socket unit its own FileDescriptorName=",
        )
    return {
        name: _take_over(descriptor, name)
        for descriptor, name in enumerate(listed, _FIRST_DESCRIPTOR)
    }


@asynccontextmanager
async def bound_socket(file: SocketFile) -> AsyncIterator[socket.socket]:
    """
    Bind, listen, and on leaving remove what was bound; files are touched in a thread.

    1. The directory must not be writable by everybody: another could put its socket in our place.
    2. Hold a lock file beside the socket for as long as we listen: two daemons that start at once
       do not both find the other's socket dead.
    3. What stands at the path must be a socket of ours on which nobody listens; unlink only that.
    4. Bind with mode 0600 set beforehand, give it its group and mode, and only then listen.
    5. On leaving, unlink only the very file that was bound.

    Raises TaskmintError: socket_in_use, config_invalid.
    """
    with ExitStack() as undo:
        sock = await asyncio.to_thread(_bind_safely, file, undo)
        try:
            yield sock
        finally:
            await asyncio.to_thread(undo.close)


def _bind_safely(file: SocketFile, undo: ExitStack) -> socket.socket:
    """Do steps 1 to 4; `undo` learns how to take each back, step 5 included."""
    # 1.
    _check_directory(file.path)
    # 2.
    _lock(file.path, undo)
    # 3.
    _remove_stale(file.path)
    # 4.
    sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    _bind(sock, file.path)
    _open_up(file)
    # 5.
    undo.callback(_unlink_if_same, file.path, _identity(file.path))
    sock.listen(_BACKLOG)
    return sock


def _take_over(descriptor: int, name: str) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
        listening = (
            sock.family == socket.AF_UNIX
            and sock.type == socket.SOCK_STREAM
            and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )
    except OSError as error:
        raise _config(
            f"the descriptor that systemd passed as {name} is no socket",
            fix="pass it from a .socket unit",
        ) from error
    if not listening:
        raise _config(
            f"what systemd passed as {name} is not a listening Unix stream socket",
            fix="use ListenStream= with a path",
        )
    sock.set_inheritable(False)
    return sock


def _check_directory(path: Path) -> None:
    # A longer path would be cut off by some callers' libraries, and refused by the kernel's.
    if len(os.fsencode(path)) > _MOST_PATH_BYTES:
        raise _config(
            f"{path}: a socket's path has at most {_MOST_PATH_BYTES} bytes",
            fix="configure a shorter path",
        )
    try:
        mode = path.parent.stat().st_mode
    except OSError as error:
        raise _config(
            f"{path.parent}: {error.strerror}", fix="create the directory, or let systemd do it"
        ) from error
    if not stat.S_ISDIR(mode):
        raise _config(f"{path.parent} is not a directory", fix=_ELSEWHERE)
    if mode & stat.S_IWOTH:
        raise _config(
            f"{path.parent} is writable by everybody, so anybody could replace the socket",
            fix=_ELSEWHERE,
        )


def _lock(path: Path, undo: ExitStack) -> None:
    """Hold `<path>.lock`; the file stays behind, for removing it would undo the lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(f"{path}.lock", flags, _PRIVATE)
    except OSError as error:
        raise _config(f"{path}.lock: {error.strerror}", fix=_ELSEWHERE) from error
    undo.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(path) from None


def _remove_stale(path: Path) -> None:
    found = _identity(path)
    if found is None:
        return
    mode = path.lstat()
    if not stat.S_ISSOCK(mode.st_mode) or mode.st_uid != os.geteuid():
        raise _config(
            f"{path} exists and is not a socket of this user",
            fix="remove it if it is not needed, or configure another path",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        refused = probe.connect_ex(os.fspath(path)) == errno.ECONNREFUSED
    if not refused:
        raise _in_use(path)
    _unlink_if_same(path, found)


def _bind(sock: socket.socket, path: Path) -> None:
    try:
        # Linux gives the new file the mode of the socket's own inode (unix_bind_bsd), less the
        # umask. So it is private from its first moment, and no umask is changed under threads.
        os.fchmod(sock.fileno(), _PRIVATE)
        sock.bind(os.fspath(path))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _in_use(path) from error
        raise _config(f"{path}: {error.strerror}", fix=_ELSEWHERE) from error


def _open_up(file: SocketFile) -> None:
    try:
        if file.group is not None:
            os.chown(file.path, -1, file.group, follow_symlinks=False)
        file.path.chmod(file.mode)
    except OSError as error:
        file.path.unlink()
        raise _config(
            f"{file.path} cannot be given to group {file.group}: {error.strerror}",
            fix="make the daemon's user a member of that group",
        ) from error


def _unlink_if_same(path: Path, identity: tuple[int, int, int] | None) -> None:
    if identity is not None and _identity(path) == identity:
        path.unlink()


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Tell one file from another at the same path; inode numbers alone are soon used again."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _in_use(path: Path) -> TaskmintError:
    return TaskmintError(
        Code.SOCKET_IN_USE,
        f"another process listens on {path}",
        fix="stop the other daemon, or give this one its own socket",
    )


def _config(detail: str, *, fix: str) -> TaskmintError:
    return TaskmintError(Code.CONFIG_INVALID, detail, fix=fix)
