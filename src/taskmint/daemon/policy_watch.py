"""
The policy files on disk in, a reload when they are others than those last read out.

They are looked at once a second, in a thread, with stat(2). inotify would need a library of its own
and does not see what is changed underneath a network file system or an overlay.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from .files import is_policy_name

Fingerprint: TypeAlias = tuple[tuple[str | int, ...], ...]


def fingerprint(places: Sequence[str]) -> Fingerprint:
    """
    Return what tells these files from others: names, inodes, sizes, times of content and of status.

    Directories stand for their *.yaml, as they are read. Blocks.
    """
    return tuple(_of(file) for place in map(Path, places) for file in _files(place))


def _files(place: Path) -> list[Path]:
    try:
        return sorted(each for each in place.iterdir() if is_policy_name(each.name))
    except OSError:  # a file, or what reading it will refuse
        return [place]


def _of(file: Path) -> tuple[str | int, ...]:
    try:
        status = file.lstat()
    except OSError as error:
        return str(file), error.errno or 0
    times = status.st_mtime_ns, status.st_ctime_ns
    return str(file), status.st_dev, status.st_ino, status.st_size, *times


async def watch(
    now: Callable[[], Fingerprint],
    last_read: Callable[[], Fingerprint],
    reload: Callable[[], Awaitable[None]],
    seconds: float,
) -> None:
    """
    Reload, until cancelled, when the files differ from those last read and stand still.

    Those that change faster than they are looked at are one change: a reload waits for two looks in
    a row that agree. One that was refused is not tried again before the files change again.
    """
    before = last_read()
    while True:
        await asyncio.sleep(seconds)
        found = await asyncio.to_thread(now)
        if found == before and found != last_read():
            await reload()
        before = found
