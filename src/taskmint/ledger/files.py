"""
The ledger's place on disk: whose it is, who may read it, and that one daemon writes it.

Nothing here opens the database itself: closing any descriptor of it would drop the locks that
SQLite holds on it in this process (fcntl(2), "advisory record locking").
"""

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from taskmint.errors import Code, Unavailable

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHER_PATH: Final = "move it away, or name another ledger.path"


def refusal(detail: str, fix: str = "") -> Unavailable:
    """Return the one error that leaves this package."""
    return Unavailable(Code.LEDGER_UNAVAILABLE, detail, fix=fix)


class Damaged(Unavailable):
    """Raised when a ledger of ours is there, and is not what was written."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            Code.LEDGER_UNAVAILABLE,
            detail,
            fix="see `taskmint audit verify`, and docs/ledger.md on a damaged ledger",
        )


def check_directory(directory: Path) -> None:
    """
    See that the directory is there, ours or root's, and that nobody else may write in it.

    Raises Unavailable(ledger_unavailable).
    """
    try:
        found = directory.stat()
    except FileNotFoundError:
        raise refusal(
            f"the ledger's directory {directory} does not exist",
            f"create it: install -d -m 0700 {directory}",
        ) from None
    except OSError as error:
        raise refusal(
            f"the ledger's directory {directory} cannot be used: {error.strerror}",
            "let the daemon's user reach it, or name another ledger.path",
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise refusal(f"the ledger's directory {directory} is not a directory", _OTHER_PATH)
    if found.st_uid not in {os.geteuid(), 0} or found.st_mode & _OTHERS_WRITE:
        raise refusal(
            f"the ledger's directory {directory} can be written by others",
            f"chown it to the daemon's user and chmod 0700 {directory}",
        )


def claim(path: Path) -> int:
    """
    Make the place safe to write a ledger to; return the descriptor that holds the lock.

    1. The directory exists, is ours or root's, and nobody else may write in it.
    2. No other process holds the lock (flock(2) on PATH.lock; it ends with the process).
    3. The file is a plain file of ours with no rights for others; an absent one is made so.

    Raises Unavailable(ledger_unavailable).
    """
    try:
        check_directory(path.parent)
        lock = _lock(path)
        try:
            _check_file(path)
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        raise refusal(
            f"the ledger {path} cannot be used: {error.strerror}",
            f"let the daemon's user write in {path.parent}, or name another ledger.path",
        ) from error
    return lock


def set_aside(path: Path, suffix: str) -> Path:
    """
    Rename a ledger that no daemon writes, with SQLite's files beside it; return its new path.

    Raises Unavailable(ledger_unavailable).
    """
    aside = path.with_name(f"{path.name}.{suffix}")
    try:
        check_directory(path.parent)
        lock = _lock(path)
        try:
            # The database first: SQLite drops a write-ahead log without one (wal.html, 4.5).
            for part in ("", "-wal", "-shm"):
                if part and not Path(f"{path}{part}").exists():
                    continue
                Path(f"{path}{part}").rename(f"{aside}{part}")
        finally:
            os.close(lock)
    except OSError as error:
        raise refusal(f"the ledger {path} cannot be moved: {error.strerror}") from error
    return aside


def _lock(path: Path) -> int:
    lock = _open_lock(f"{path}.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(OSError):  # a courtesy to whoever is refused; a full disk has no room for it
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise refusal(
            f"another process (pid {holder}) writes the ledger {path}",
            "stop the other daemon, or give this one another ledger.path",
        ) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _open_lock(name: str) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(name, flags | os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS or not os.path.lexists(name):
            raise
    return os.open(name, flags | os.O_RDONLY)  # it can be locked where nothing can be written


def _check_file(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return  # its name becomes durable with SQLite's first sync of the directory
    if not stat.S_ISREG(found.st_mode):
        raise refusal(f"the ledger {path} is not a plain file", _OTHER_PATH)
    if found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
        raise refusal(
            f"the ledger {path} belongs to another user or is open to others",
            f"chown it to the daemon's user and chmod 0600 {path}",
        )
