"""A counter that can be waited for: who waits learns that something changed, not what."""

import asyncio


class Changes:
    """Counts changes; starts at zero."""

    def __init__(self) -> None:
        self.count = 0
        self._next = asyncio.Event()

    def note(self) -> None:
        """Count one, and wake everybody who waits."""
        self.count += 1
        passed, self._next = self._next, asyncio.Event()
        passed.set()

    async def beyond(self, count: int) -> int:
        """Wait until more than `count` changes have been counted; returns how many have."""
        while self.count <= count:
            await self._next.wait()
        return self.count
