"""
Bounds the calls in flight for each mount, so that one slow mount does not stall another (P10).

Making and taking back have separate places: mints that hang do not keep revocations waiting.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeVar

from taskmint.errors import Code, Unavailable

T = TypeVar("T")

_WAITING_PER_PLACE: Final = 32


class Purpose(StrEnum):
    """What a call is for."""

    MAKE = "make"
    TAKE_BACK = "take_back"


class _Gate:
    __slots__ = ("places", "waiting", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.places = asyncio.Semaphore(width)
        self.waiting = 0


class Bulkhead:
    """Gates by mount and purpose, made on first use; mounts come from the policy, so few."""

    def __init__(self, connections: int, patience: timedelta) -> None:
        self._width = {
            Purpose.MAKE: max(1, connections // 2),
            Purpose.TAKE_BACK: max(1, connections // 4),
        }
        self._patience = patience.total_seconds()
        self._gates: dict[tuple[str, Purpose], _Gate] = {}

    async def through(self, mount: str, purpose: Purpose, call: Callable[[], Awaitable[T]]) -> T:
        """
        Make the call when there is a place for it.

        Raises Unavailable(vault_unavailable), with nothing created, when the queue is full or no
        place came free in time.
        """
        gate = self._gates.get((mount, purpose))
        if gate is None:
            gate = self._gates[mount, purpose] = _Gate(self._width[purpose])
        if gate.places.locked():
            await self._wait(gate, mount)
        else:
            await gate.places.acquire()
        try:
            return await call()
        finally:
            gate.places.release()

    async def _wait(self, gate: _Gate, mount: str) -> None:
        if gate.waiting >= gate.width * _WAITING_PER_PLACE:
            raise _busy(mount)
        gate.waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await gate.places.acquire()
        except TimeoutError:
            raise _busy(mount) from None
        finally:
            gate.waiting -= 1


def _busy(mount: str) -> Unavailable:
    return Unavailable(
        Code.VAULT_UNAVAILABLE,
        f"too many calls to Vault's {mount} are in flight already",
        fix="see why that mount answers slowly",
        created_nothing=True,
    )
