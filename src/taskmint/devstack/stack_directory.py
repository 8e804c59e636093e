"""
The directory of a stack: made fresh, removed after the last program in it, swept when left over.

A directory carries our mark, and whoever uses it holds a shared lock on it. So what is marked and
locked by nobody is a leftover, which the next stack removes; what is not marked is never removed.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from .process import StackError, removed_afterwards

_PREFIX: Final = "taskmint-dev-"
_MARK: Final = ".taskmint-dev"
_LEAVING_SECONDS: Final = 2.0  # what an earlier stack may take to go
_POLL_SECONDS: Final = 0.05


@contextlib.asynccontextmanager
async def stack_directory(wanted: Path | None = None) -> AsyncIterator[Path]:
    """
    Make a directory, by default below the system's temporary one; it is gone after the context.

    Other users may pass through it (mode 0711), because workloads of theirs reach a socket in it.
    Raises StackError when `wanted` holds something that is not a leftover of ours.
    """
    directory, lock = await asyncio.to_thread(_claim, wanted)
    async with removed_afterwards(directory):
        try:
            yield directory
        finally:
            os.close(lock)  # the janitor waits for it


def _claim(wanted: Path | None) -> tuple[Path, int]:
    """Sweep leftovers, make the directory, lock it and only then mark it."""
    base = Path(tempfile.gettempdir())
    for left in base.glob(f"{_PREFIX}*"):
        _sweep(left)
    if wanted is None:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    else:
        directory = wanted.absolute()
        until = time.monotonic() + _LEAVING_SECONDS
        _sweep(directory)
        while (directory / _MARK).exists() and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            _sweep(directory)
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise StackError(f"{directory} is not empty, or another stack uses it")
    directory.chmod(0o711)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_SH)
    (directory / _MARK).touch()
    return directory, lock


def _sweep(directory: Path) -> None:
    """Remove a directory that is marked, ours, and locked by nobody."""
    with contextlib.suppress(OSError), _locked_alone(directory):
        if (directory / _MARK).exists() and directory.stat().st_uid == os.geteuid():
            shutil.rmtree(directory)


@contextlib.contextmanager
def _locked_alone(directory: Path) -> Iterator[None]:
    """Hold the exclusive lock, or raise OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(directory, flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
