"""One incarnation of a daemon, as the world behind its ports sees it: slow, cut off, or dead."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from taskmint.model.scope import Entitlement, Ephemeral
from taskmint.ports import (
    Entry,
    Event,
    Minted,
    ProbeResult,
    Revocable,
    TaskToken,
    TokenRequest,
    Unfinished,
    Written,
)

from fakes.ledger import MemoryLedger
from fakes.vault import FakeVault, away

LEG: Final = 0.01  # seconds that a call takes to get there, and its answer to come back


@dataclass
class Mortal:
    """
    The fakes as one incarnation of the daemon sees them: each call takes time both ways.

    After `die` nothing that it still tries arrives, whatever its code does while it is torn down.
    """

    vault: FakeVault
    ledger: MemoryLedger
    outage: asyncio.Event
    dead: bool = False
    never: list["asyncio.Future[None]"] = field(default_factory=list)

    async def there(self) -> None:
        """On the way to Vault: away now means that nothing was created."""
        await self._leg()
        if self.outage.is_set():
            raise away(created_nothing=True)

    async def back(self) -> None:
        """On the way back: away now means that nobody knows."""
        await self._leg()
        if self.outage.is_set():
            raise away(created_nothing=False)

    async def _leg(self) -> None:
        await asyncio.sleep(LEG)
        if self.dead:
            # Held, since the loop itself holds no task that waits for what never comes.
            self.never.append(asyncio.get_running_loop().create_future())
            await self.never[-1]

    async def create_task_token(self, request: TokenRequest) -> TaskToken:
        """As the fake."""
        await self.there()
        token = await self.vault.create_task_token(request)
        await self.back()
        return token

    async def write(self, request: TokenRequest, ephemeral: Ephemeral) -> None:
        """As the fake."""
        await self.there()
        await self.vault.write(request, ephemeral)
        await self.back()

    async def delete(self, path: str) -> None:
        """As the fake."""
        await self.there()
        await self.vault.delete(path)
        await self.back()

    async def written(self, node: str) -> list[Written]:
        """As the fake."""
        await self.there()
        return await self.vault.written(node)

    async def mint(self, token: TaskToken, entitlement: Entitlement) -> Minted:
        """As the fake."""
        await self.there()
        minted = await self.vault.mint(token, entitlement)
        await self.back()
        return minted

    async def renew(self, revocable: Revocable, increment: timedelta) -> timedelta:
        """As the fake."""
        await self.there()
        life = await self.vault.renew(revocable, increment)
        await self.back()
        return life

    async def revoke(self, revocable: Revocable) -> None:
        """As the fake."""
        await self.there()
        await self.vault.revoke(revocable)
        await self.back()

    async def is_gone(self, revocable: Revocable) -> bool:
        """As the fake."""
        await self.there()
        gone = await self.vault.is_gone(revocable)
        await self.back()
        return gone

    async def probe(self, request: TokenRequest, entitlement: Entitlement) -> ProbeResult:
        """As the fake."""
        await self.there()
        return await self.vault.probe(request, entitlement)

    async def own_clock(self, entitlement: Entitlement) -> timedelta | None:
        """Read the role."""
        await self.there()
        return await self.vault.own_clock(entitlement)

    async def is_listed(self, entitlement: Entitlement, serial: str) -> bool:
        """Look at the revocation list."""
        await self.there()
        return await self.vault.is_listed(entitlement, serial)

    def ready(self) -> str | None:
        """Always; what is away is noticed by calling."""
        return None

    async def append(self, entry: Entry) -> None:
        """As the fake; what died on the way back is on the disk."""
        await self._leg()
        await self.ledger.append(entry)
        await self._leg()

    async def newest_first(self, events: Collection[Event], look: Callable[[Entry], bool]) -> None:
        """As the fake."""
        await self._leg()
        await self.ledger.newest_first(events, look)
        await self._leg()

    async def unfinished(self) -> Unfinished:
        """As the fake; what is written while it is read may be in it or not."""
        for _ in range(3):
            await self._leg()
        found = await self.ledger.unfinished()
        await self._leg()
        return found
