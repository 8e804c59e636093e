"""What is being tried right now, and since when: an attempt that never ends shows here."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Oldest:
    """The attempt that has been under way for longest."""

    mount: str
    seconds: float


class Attempts:
    """
    Attempts under way, in the order of their beginning.

    Their age is of the loop's clock, on which their own deadlines run: a machine that slept has
    not made them any older.
    """

    def __init__(self) -> None:
        self._began: dict[int, tuple[str, float, asyncio.Timeout]] = {}
        self._numbers = itertools.count()

    @contextmanager
    def under_way(self, mount: str, bound: asyncio.Timeout) -> Iterator[None]:
        """Count an attempt, made within `bound`, for as long as the block takes."""
        number = next(self._numbers)
        self._began[number] = mount, asyncio.get_running_loop().time(), bound
        try:
            yield
        finally:
            del self._began[number]

    def cut_short(self, seconds: float) -> None:
        """Let each of them take so long from now, and no longer."""
        until = asyncio.get_running_loop().time() + seconds
        for _, _, bound in self._began.values():
            bound.reschedule(until)

    def oldest(self) -> Oldest | None:
        """Show the oldest attempt, None when there is none."""
        for mount, began, _ in self._began.values():
            return Oldest(mount, asyncio.get_running_loop().time() - began)
        return None
