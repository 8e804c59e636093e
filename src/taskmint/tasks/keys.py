"""One start at a time for each (owner, idempotency key): the second finds what the first began."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from .task import IdempotencyKey, Owner


class KeysInUse:
    """
    Holds a key from the look whether it is known until it is known by a task or a request.

    In between a ticket's hook may be asked and a row written. A lock lives as long as its holders.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[Owner, str], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def held(self, owner: Owner, key: IdempotencyKey | None) -> AsyncIterator[None]:
        """Hold it, after whoever holds it now; without a key there is nothing to hold."""
        if key is None:
            yield
            return
        lock = self._locks.setdefault((owner, key.key), asyncio.Lock())
        async with lock:
            yield
