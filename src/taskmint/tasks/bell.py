"""Wakes who waits for something to change, and costs next to nothing while nobody does."""

import asyncio
from collections.abc import Callable
from datetime import timedelta


class Bell:
    """
    Rings again and again; who wakes looks for itself at what has changed.

    Looking and then waiting, without an `await` in between, misses nothing.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] | None = None

    def ring(self) -> None:
        """Wake everyone who waits now."""
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        self._waiters = None

    async def until(self, condition: Callable[[], bool], at_most: timedelta | None = None) -> bool:
        """Wait until the condition holds, looked at again at each ring; False after `at_most`."""
        try:
            async with asyncio.timeout(None if at_most is None else at_most.total_seconds()):
                while not condition():
                    await self._next()
        except TimeoutError:
            return condition()
        return True

    async def _next(self) -> None:
        if self._waiters is None:
            self._waiters = []
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._forget(waiter)

    def _forget(self, waiter: asyncio.Future[None]) -> None:
        if self._waiters is not None and waiter in self._waiters:
            self._waiters.remove(waiter)
