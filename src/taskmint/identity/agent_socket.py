"""
An agent's address in, what stands there and whether it may be believed out.

Whoever binds that path first says who everybody is, so it must be root, this daemon's own user or
the one that the config names who could have done it (reliability: a fake agent's socket). SPIRE
lets everybody write to the socket itself, for that is how one connects; the path to it is another
thing.
"""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from .channel import StreamLost, heard, socket_path

_ROOT: Final = 0
_MOST_LINKS: Final = 16


@dataclass(frozen=True, slots=True)
class Standing:
    """A socket's device and inode, or why it is not to be used; neither, when nothing is there."""

    inode: tuple[int, int] | None
    why_not: str | None


NOTHING_THERE: Final = Standing(None, None)


@dataclass(frozen=True, slots=True)
class AgentSocket:
    """A path, and the uids whose files may be believed."""

    path: str
    trusted: frozenset[int]

    @classmethod
    def at(cls, endpoint: str, agent_uid: int | None) -> Self:
        """Read `unix:///path`; besides root, ourselves and `agent_uid` nobody is trusted."""
        named = _ROOT if agent_uid is None else agent_uid
        return cls(socket_path(endpoint), frozenset({_ROOT, os.geteuid(), named}))

    def look(self) -> Standing:
        """
        Look at the path from the root of the file system on; blocks.

        1. Each directory, each link and the socket belongs to a trusted user: nobody else made it.
        2. Nobody else may write to a directory, unless its sticky bit keeps what others own.
        3. What links point to is looked at in the same way.
        4. At the end there is a socket.
        """
        try:
            for step, found in _steps(Path(self.path)):  # 3.
                # 1.
                if found.st_uid not in self.trusted:
                    return Standing(
                        None, f"{step} belongs to uid {found.st_uid}, who is not trusted"
                    )
                # 2.
                if _open_to_others(found):
                    return Standing(None, f"others may write to the directory {step}")
            # 4.
            at_the_end = Path(self.path).stat()
        except FileNotFoundError:
            return NOTHING_THERE
        except OSError as error:
            return Standing(None, f"{self.path} cannot be looked at: {error.strerror}")
        if not stat.S_ISSOCK(at_the_end.st_mode):
            return Standing(None, f"{self.path} is no socket")
        return Standing((at_the_end.st_dev, at_the_end.st_ino), None)


async def heard_at(at: AgentSocket, seen: Standing, call: Any) -> AsyncGenerator[Any, None]:
    """
    Yield the messages of a stream (channel.py, `heard`), from the socket that was seen alone.

    gRPC connects when it likes. That it was this socket is known when it still stands there, after
    the first message came: who may not be trusted can put his in its place, and never it back.
    """
    looked = False
    async with aclosing(heard(call)) as arriving:
        async for message in arriving:
            if not looked and await asyncio.to_thread(at.look) != seen:
                raise StreamLost("SOCKET_REPLACED")
            looked = True
            yield message


def _open_to_others(found: os.stat_result) -> bool:
    writers = stat.S_IWOTH | (stat.S_IWGRP if found.st_gid != _ROOT else 0)
    mode = found.st_mode
    return stat.S_ISDIR(mode) and bool(mode & writers) and not mode & stat.S_ISVTX


def _steps(path: Path, links: int = _MOST_LINKS) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield what is met on the way to a path, not following links; then what links point to."""
    if not links:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    for step in (*reversed(path.parents), path):
        found = step.lstat()
        yield step, found
        if stat.S_ISLNK(found.st_mode):
            yield from _steps(step.parent / step.readlink(), links - 1)
