"""
Takes back what a task was given, and proves it; retries without limit, needs no disk.

Only the server's own "there is no such thing" closes a handle (P5); an answer of success alone
does not. What cannot be proven yet keeps the task `revoking`, visible and counted.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from taskmint.errors import BackendFailed, Unavailable
from taskmint.failpoints import Failpoint
from taskmint.model.scope import ProofLevel
from taskmint.ports import ProbeResult, Revocable

from .outside import Outside, Settings
from .task import Held, Task
from .tokens import token_request

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 30.0
# What was made without our hearing of it is renewed by nobody, so the server ends it one dead-man
# interval later, and the database refuses its login at lease TTL + 5 s (VALID UNTIL).
UNHEARD_MARGIN: Final = timedelta(seconds=5)


class Revoker:
    """Revokes a task's handles in parallel, then its token; each until it is proven gone."""

    def __init__(self, outside: Outside, settings: Settings) -> None:
        self._vault = outside.vault
        self._clock = outside.clock
        self._failpoints = outside.failpoints
        self._log = outside.log
        self._node = settings.node

    async def take_back(self, task: Task) -> None:
        """
        Return when nothing the task was given works any more, to the level each item promises.

        1. every lease and every handed-out token: revoke synchronously, then look it up;
        2. where `sessions` is promised: probe until no open session is counted;
        3. the task token, which takes along whatever was minted without our hearing of it;
        4. a creating call went without an answer: revoking the token only queues what it owns,
           and without an id nothing can be looked up, so wait until the server's clocks end it.
        """
        await asyncio.gather(*(self._take_back_item(task, held) for held in task.held))
        self._failpoints.reach(Failpoint.AFTER_REVOKE_LEASE)
        if task.token is not None:
            await self._until_gone(task, task.token)
        if task.unheard_since is not None:
            await self._outwait(task, task.unheard_since)
        self._failpoints.reach(Failpoint.AFTER_REVOKE_TOKEN)

    async def _take_back_item(self, task: Task, held: Held) -> None:
        if held.revocable is None:
            return
        await self._until_gone(task, held.revocable)
        if held.entitlement.proof is ProofLevel.SESSIONS:
            await self._until_no_sessions(task, held)

    async def _until_gone(self, task: Task, revocable: Revocable) -> None:
        async def attempt() -> bool:
            await self._vault.revoke(revocable)
            return await self._vault.is_gone(revocable)

        await self._persist(task, f"{revocable.kind} still there", attempt)

    async def _until_no_sessions(self, task: Task, held: Held) -> None:
        request = token_request(self._node, task)

        async def attempt() -> bool:
            result: ProbeResult = await self._vault.probe(request, held.entitlement)
            task.disabled = result.roles
            return result.sessions == 0

        await self._persist(task, "sessions still open", attempt)

    async def _persist(
        self, task: Task, problem: str, attempt: Callable[[], Awaitable[bool]]
    ) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                if await attempt():
                    return
                task.last_problem = problem
            except (Unavailable, BackendFailed) as error:
                task.last_problem = f"{error.code}: {error.detail}"
            task.attempts_failed += 1
            self._log.warning(
                "revocation_unproven",
                task=task.id,
                problem=task.last_problem,
                attempts=task.attempts_failed,
                seconds=round(self._clock.boottime() - task.ended, 3),
            )
            # Jitter from half to one and a half, so that a returning Vault meets no herd.
            await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311 - not for secrecy
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _outwait(self, task: Task, since: float) -> None:
        lapses = since + (task.scope.dead_man + UNHEARD_MARGIN).total_seconds()
        while (left := lapses - self._clock.boottime()) > 0:  # noqa: ASYNC110 - waits for a clock
            await asyncio.sleep(min(left, 1.0))
