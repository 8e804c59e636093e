"""A flag to wait for that costs next to nothing; asyncio.Event keeps a deque, tasks have two."""

import asyncio
from datetime import timedelta


class Flag:
    """Down, then up for good. Waiters cost memory only while they wait."""

    __slots__ = ("_up", "_waiters")

    def __init__(self) -> None:
        self._up = False
        self._waiters: list[asyncio.Future[None]] | None = None

    def is_up(self) -> bool:
        """Whether it has been raised."""
        return self._up

    def put_up(self) -> None:
        """Raise it and let everyone go who waits."""
        self._up = True
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        self._waiters = None

    async def wait(self, at_most: timedelta) -> bool:
        """Wait until it is up; False when `at_most` passed first."""
        if self._up:
            return True
        if self._waiters is None:
            self._waiters = []
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(at_most.total_seconds()):
                await waiter
        except TimeoutError:
            return self._up
        finally:
            self._forget(waiter)
        return True

    def _forget(self, waiter: asyncio.Future[None]) -> None:
        if self._waiters is not None:
            self._waiters.remove(waiter)
