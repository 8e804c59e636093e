"""
What this node wrote in Vault for tasks that are no more, deleted: at the start, and now and then.

A task deletes what is its own when it ends. What is left all the same came from a request that the
server carried out after we had given up on it, or from a ledger that was lost. By itself it gives
nobody access, so there is no hurry.
"""

import asyncio
from datetime import timedelta
from typing import Final

from taskmint.errors import BackendFailed, Unavailable

from .jitter import between
from .outside import Outside, Settings
from .register import Register

INTERVAL: Final = timedelta(minutes=5)


class Sweeper:
    """Knows what is in use from the register, which must be complete before the first sweep."""

    def __init__(self, outside: Outside, settings: Settings, register: Register) -> None:
        self._vault = outside.vault
        self._log = outside.log
        self._node = settings.node
        self._register = register

    async def keep(self) -> None:
        """Sweep for ever; a sweep that fails is followed by another."""
        while True:
            await self.sweep()
            await asyncio.sleep(INTERVAL.total_seconds() * between(0.5, 1.5))

    async def sweep(self) -> None:
        """List, and delete what no revision owns; a revision owns its names before it writes."""
        try:
            for found in await self._vault.written(self._node):
                if not self._is_owned(found.path):
                    await self._vault.delete(found.path)
                    self._log.warning("leftover_deleted", task=found.task, path=found.path)
        except (Unavailable, BackendFailed) as error:
            self._log.warning("sweep_failed", code=error.code, problem=error.detail)

    def _is_owned(self, path: str) -> bool:
        return any(
            path in revision.written for task in self._register for revision in task.revisions
        )
