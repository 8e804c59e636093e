"""How many mints are at Vault at once, and who waits for how long (P10)."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from taskmint.errors import Limit, LimitExceeded
from taskmint.model.scope import Scope

WAITING_PER_PLACE: Final = 8
LONGEST_WAIT: Final = timedelta(seconds=10)
_SOON: Final = timedelta(seconds=1)


def mounts_of(scope: Scope) -> frozenset[str]:
    """Name the mounts that a scope mints at."""
    return frozenset(item.mount for item in scope.entitlements)


@dataclass(slots=True, eq=False)
class _Waiting:
    mounts: frozenset[str]
    turn: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class MintQueue:
    """
    Places for mints; at most half of them for any one mount, so that a slow one stalls no other.

    First come, first served, but whoever waits for a slow mount lets the others by. The queue is
    bounded in length and in time.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._share = max(1, places // 2)
        self._most_waiting = WAITING_PER_PLACE * places
        self._taken = 0
        self._by_mount: Counter[str] = Counter()
        self._waiting: deque[_Waiting] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    @asynccontextmanager
    async def place(self, mounts: frozenset[str]) -> AsyncIterator[None]:
        """Hold a place at these mounts. Raises LimitExceeded."""
        if self._fits(mounts):
            self._take(mounts)
        else:
            await self._wait(mounts)
        try:
            yield
        finally:
            self._give_back(mounts)

    async def _wait(self, mounts: frozenset[str]) -> None:
        if len(self._waiting) >= self._most_waiting:
            raise _full(f"{self._most_waiting} starts wait for Vault already")
        one = _Waiting(mounts)
        self._waiting.append(one)
        try:
            async with asyncio.timeout(LONGEST_WAIT.total_seconds()):
                await one.turn
        except BaseException as error:
            if one in self._waiting:
                self._waiting.remove(one)
            elif one.turn.done() and not one.turn.cancelled():
                self._give_back(mounts)  # its turn came in the same moment
            if isinstance(error, TimeoutError):
                raise _full("Vault takes too long with the starts before this one") from error
            raise

    def _fits(self, mounts: frozenset[str]) -> bool:
        return self._taken < self._places and all(
            self._by_mount[mount] < self._share for mount in mounts
        )

    def _take(self, mounts: frozenset[str]) -> None:
        self._taken += 1
        self._by_mount.update(mounts)

    def _give_back(self, mounts: frozenset[str]) -> None:
        self._taken -= 1
        self._by_mount.subtract(mounts)
        for one in tuple(self._waiting):
            if self._taken >= self._places:
                return
            if self._fits(one.mounts):
                self._waiting.remove(one)
                self._take(one.mounts)
                one.turn.set_result(None)


def _full(what: str) -> LimitExceeded:
    return LimitExceeded(
        Limit.MINTS_IN_FLIGHT, what, retry_after=_SOON, fix="start tasks more slowly"
    )
