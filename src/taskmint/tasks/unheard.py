"""
What may have been made without our hearing of it: outwaited, where a clock ends it by itself.

A creating call went without an answer, or the daemon died before the answer was written down. The
task token is gone by now; that only queues the leases it owned, an engine may refuse to revoke
them, and without an id nothing can be looked up. So proof is a clock that nobody has to run: a
token's period, a certificate's own end, an account's VALID UNTIL. What has none is never called
gone: its task stays `revoking`, and says why.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from taskmint.errors import BackendFailed, Unavailable
from taskmint.model.scope import Entitlement, EntitlementKind, ProofLevel
from taskmint.policy.database import expires_by_itself

from .jitter import between
from .lanes import TOKENS
from .outside import Outside
from .revision import Revision
from .task import Task

MARGIN: Final = timedelta(seconds=5)  # Vault adds as much to an account's VALID UNTIL
_PAUSE_SECONDS: Final = 5.0  # between two questions that Vault did not answer


class Unheard:
    """Waits; `stopping` ends every wait, and `unproven` counts them by mount."""

    def __init__(self, outside: Outside, unproven: Counter[str], stopping: asyncio.Event) -> None:
        self._vault = outside.vault
        self._clock = outside.clock
        self._log = outside.log
        self._unproven = unproven
        self._stopping = stopping

    async def outwait(self, task: Task, revision: Revision, since: float) -> bool:
        """
        Return True when nothing works any more that was made by `since` without our hearing of it.

        1. learn of each entitlement how long at most what was made for it works, unrenewed;
        2. where nobody can say, wait for nothing but the daemon's stop;
        3. wait for the longest, and for the dead-man interval, by which an unknown token ends.

        False when the daemon stops before; the next start begins here again.
        """
        lost = [
            item
            for item in revision.entitlements()
            if item.name in revision.unheard and item.revocable
        ]
        mounts = {item.mount for item in lost} or {TOKENS}
        self._unproven.update(mounts)
        try:
            lives = [await self._life(task, revision, item) for item in lost]
            if endless := [item for item, life in zip(lost, lives, strict=True) if life is None]:
                self._say(task, endless)
                await self._stopping.wait()
                return False
            longest = max([revision.scope.dead_man, *(life for life in lives if life is not None)])
            return await self._passed(since + (longest + MARGIN).total_seconds())
        finally:
            self._unproven.subtract(mounts)

    async def _life(self, task: Task, revision: Revision, item: Entitlement) -> timedelta | None:
        """
        How long it works unrenewed; None when nobody can say, or when the daemon stops.

        What may have been delivered may have sessions open, which outlive the account; and without
        its name, which the lost row had, they cannot be counted.
        """
        held = any(each.entitlement.name == item.name for each in revision.held)
        if revision.in_doubt and not held and item.proof is ProofLevel.SESSIONS:
            return None
        match item.kind:
            case EntitlementKind.TOKEN:
                return revision.scope.dead_man  # its role's period is no longer
            case EntitlementKind.PKI:
                return item.ceiling
            case EntitlementKind.DATABASE:
                creation = item.body["creation_statements"]
                ends = isinstance(creation, list | tuple) and expires_by_itself(map(str, creation))
                return revision.scope.dead_man if ends else None  # the role's default_ttl
            case EntitlementKind.SSH:
                return None
            case EntitlementKind.SECRET:
                return await self._asked(task, item)

    async def _asked(self, task: Task, item: Entitlement) -> timedelta | None:
        while True:  # once also while the daemon stops: what has lapsed by then is proven
            try:
                return await self._vault.own_clock(item)
            except (Unavailable, BackendFailed) as error:
                task.last_problem = f"{error.code}: {error.detail}"
                task.attempts_failed += 1
            if self._stopping.is_set():
                return None
            await self._paused(_PAUSE_SECONDS * between(0.5, 1.5))

    def _say(self, task: Task, endless: Sequence[Entitlement]) -> None:
        if self._stopping.is_set():
            return
        names = ", ".join(f"{item.name} ({item.mount}/{item.path})" for item in endless)
        task.attempts_failed += 1
        task.last_problem = f"no answer came for {names}, and no clock ends what may have been made"
        self._log.error("revocation_unprovable", task=task.id, entitlements=names)

    async def _passed(self, moment: float) -> bool:
        while (left := moment - self._clock.boottime()) > 0:
            if self._stopping.is_set():
                return False
            await self._paused(min(left, 1.0))
        return True

    async def _paused(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
