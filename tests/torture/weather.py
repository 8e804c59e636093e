"""What happens to the servers behind the daemons, one thing at a time, and then heals."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from taskmint.devstack.stack import Stack

from faults.tcp_proxy import Fault, TcpProxy
from torture.nodes import Node

CREATING = ("/v1/auth/token/create/", "/v1/database/creds/")
ENDING = ("/v1/sys/leases/revoke", "/v1/sys/leases/lookup", "/v1/auth/token/revoke-accessor")


@dataclass
class Weather:
    """`brought` counts what was done, by name; `clear` is set while nothing is."""

    stack: Stack
    proxy: TcpProxy
    nodes: list[Node]
    chance: random.Random
    brought: Counter[str] = field(default_factory=Counter)
    clear: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.clear.set()

    def kinds(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Name all there is."""
        return {
            "lost reply of a creating call": lambda: self._once(Fault.LOST_REPLY, CREATING),
            "lost reply of an ending call": lambda: self._once(Fault.LOST_REPLY, ENDING),
            "reset in the middle of a reply": lambda: self._once(Fault.RESET, CREATING + ENDING),
            "policy reload": self._reload,
            "network cut": lambda: self._network(Fault.REFUSE),
            "network black hole": lambda: self._network(Fault.BLACKHOLE),
            "Vault sealed": self._seal,
            "Vault killed": self._kill_vault,
            "Vault frozen": self._freeze_vault,
            "database killed": self._kill_database,
            "database frozen": self._freeze_database,
        }

    async def blow(self, pause: float, over: asyncio.Event) -> None:
        """Bring one thing after the other, with pauses, until it is over; the last one heals."""
        names: list[str] = []
        while not over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(pause * self.chance.uniform(0.5, 1.5)):
                    await over.wait()
                return
            if not names:
                names = list(self.kinds())
                self.chance.shuffle(names)
            await self.bring(names.pop())

    async def bring(self, name: str) -> None:
        """Do one thing, and heal it even when cancelled."""
        self.clear.clear()
        try:
            await self.kinds()[name]()
            self.brought[name] += 1
        finally:
            self.clear.set()

    async def _once(self, fault: Fault, paths: tuple[str, ...]) -> None:
        for _ in range(3):
            self.proxy.once(fault, self.chance.choice(paths))
        await asyncio.sleep(1)

    async def _reload(self) -> None:
        for node in self.nodes:
            if node.ready and node.alive:
                node.signal(signal.SIGHUP)

    async def _network(self, fault: Fault) -> None:
        await self.proxy.always(fault)
        try:
            await asyncio.sleep(self.chance.uniform(0.5, 3))
        finally:
            await self.proxy.heal()

    async def _seal(self) -> None:
        await self.stack.bao.seal()
        try:
            await asyncio.sleep(self.chance.uniform(0.2, 2))
        finally:
            await self.stack.bao.unseal()

    async def _kill_vault(self) -> None:
        await self.stack.bao.kill()
        await self.stack.bao.start()

    async def _freeze_vault(self) -> None:
        self.stack.bao.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(self.chance.uniform(0.5, 3))
        finally:
            self.stack.bao.signal(signal.SIGCONT)

    async def _kill_database(self) -> None:
        await self.stack.postgres.kill()
        await asyncio.sleep(self.chance.uniform(0.0, 2))
        await self.stack.postgres.start()

    async def _freeze_database(self) -> None:
        self.stack.postgres.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(self.chance.uniform(0.5, 3))
        finally:
            self.stack.postgres.signal(signal.SIGCONT)
