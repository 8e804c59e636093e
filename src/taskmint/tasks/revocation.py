"""
Takes back what a revision was given, and proves it; retries without limit, needs no disk.

Only the server's own "there is no such thing" closes a handle (P5); an answer of success alone
does not. What cannot be proven yet keeps the task `revoking`, visible and counted.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from taskmint.errors import BackendFailed, Unavailable
from taskmint.failpoints import Failpoint
from taskmint.model.scope import ProofLevel
from taskmint.ports import ProbeResult, Revocable

from .attempts import Attempts
from .jitter import between
from .lanes import Lanes, mount_of
from .outside import Outside, Settings
from .revision import Held, Revision
from .task import Task
from .tokens import token_request
from .unheard import Unheard

PARALLEL_REVOCATIONS: Final = 16  # for each mount
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 30.0


class Revoker:
    """
    Revokes a revision's handles in parallel, then its token; each until it is proven gone.

    `unproven` counts, for each mount, what could not be proven gone at the first attempt;
    `attempts` are those under way.
    """

    def __init__(self, outside: Outside, settings: Settings, unproven: Counter[str]) -> None:
        self._vault = outside.vault
        self._clock = outside.clock
        self._failpoints = outside.failpoints
        self._log = outside.log
        self._node = settings.node
        self._lanes = Lanes(PARALLEL_REVOCATIONS)
        self._unproven = unproven
        self._hurried = asyncio.Event()
        self._unheard = Unheard(outside, unproven, self._hurried)
        self.attempts = Attempts()

    def hurry(self) -> None:
        """The daemon stops: pauses between attempts end, and nothing waits for clocks alone."""
        self._hurried.set()

    async def take_back(self, task: Task, revision: Revision) -> bool:
        """
        Return when nothing the revision was given works any more, to the level each item promises.

        1. every lease and every handed-out token: revoke synchronously, then look it up;
        2. where `sessions` is promised: probe until no open session is counted; where `crl` is:
           fetch the issuer's list until it names the certificate, or that has expired;
        3. the task token, which takes along whatever was minted without our hearing of it;
        4. what was written for this revision alone: no lease could be renewed without, so not
           before (decisions.md 2); revoking needs it no more, and a mint that comes late fails;
        5. a creating call went without an answer: revoking the token only queues what it owns,
           and without an id nothing can be looked up, so wait for clocks (unheard.py).

        False when the daemon stops before these have: then nothing but waiting is left to do, and
        the next start does it.
        """
        await asyncio.gather(*(self._item(task, revision, held) for held in revision.held))
        self._failpoints.reach(Failpoint.AFTER_REVOKE_LEASE)
        if revision.token is not None:
            await self._until_gone(task, revision, revision.token)
        self._failpoints.reach(Failpoint.AFTER_REVOKE_TOKEN)
        if revision.written:
            await asyncio.gather(
                *(self._until_deleted(task, revision, path) for path in sorted(revision.written))
            )
            self._failpoints.reach(Failpoint.AFTER_DELETE)
        if revision.unheard_since is None:
            return True
        return await self._unheard.outwait(task, revision, revision.unheard_since)

    async def _item(self, task: Task, revision: Revision, held: Held) -> None:
        if held.revocable is None:
            return
        await self._until_gone(task, revision, held.revocable)
        if held.entitlement.proof is ProofLevel.SESSIONS:
            await self._until_no_sessions(task, revision, held)
        if held.entitlement.proof is ProofLevel.CRL and held.serial is not None:
            await self._until_listed(task, held, held.serial)

    async def _until_gone(self, task: Task, revision: Revision, revocable: Revocable) -> None:
        async def attempt() -> bool:
            await self._vault.revoke(revocable)
            return await self._vault.is_gone(revocable)

        mount = mount_of(revision, revocable)
        await self._persist(task, mount, f"{revocable.kind} still there", attempt)

    async def _until_no_sessions(self, task: Task, revision: Revision, held: Held) -> None:
        request = token_request(self._node, task, revision)

        async def attempt() -> bool:
            result: ProbeResult = await self._vault.probe(request, held.entitlement)
            revision.left_disabled[held.entitlement.name] = result.roles
            return result.sessions == 0

        await self._persist(task, held.entitlement.mount, "sessions still open", attempt)
        if left := revision.left_disabled[held.entitlement.name]:
            self._log.warning(
                "account_disabled_not_dropped",
                task=task.id,
                mount=held.entitlement.mount,
                user=held.user_name,
                accounts=left,
            )

    async def _until_listed(self, task: Task, held: Held, serial: str) -> None:
        async def attempt() -> bool:
            if held.expires_at is not None and held.expires_at <= self._clock.utcnow():
                return True
            return await self._vault.is_listed(held.entitlement, serial)

        await self._persist(task, held.entitlement.mount, "certificate not on the CRL", attempt)

    async def _until_deleted(self, task: Task, revision: Revision, path: str) -> None:
        async def attempt() -> bool:
            await self._vault.delete(path)
            return True

        mount = next(
            item.mount
            for item in revision.entitlements()
            if item.ephemeral is not None and item.ephemeral.path == path
        )
        await self._persist(task, mount, "not deleted", attempt)
        revision.written -= {path}

    async def _persist(
        self, task: Task, mount: str, problem: str, attempt: Callable[[], Awaitable[bool]]
    ) -> None:
        if await self._tried(task, mount, problem, attempt):
            return
        self._unproven[mount] += 1
        try:
            pause = FIRST_PAUSE_SECONDS
            while True:
                # Jitter from half to one and a half, so that a returning Vault meets no herd.
                if await self._is_hurried(pause * between(0.5, 1.5)):
                    pause = FIRST_PAUSE_SECONDS
                if await self._tried(task, mount, problem, attempt):
                    return
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        finally:
            self._unproven[mount] -= 1

    async def _is_hurried(self, seconds: float) -> bool:
        """Pause; a stop that comes meanwhile ends the pause, and is told once."""
        if self._hurried.is_set():
            await asyncio.sleep(seconds)
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        return self._hurried.is_set()

    async def _tried(
        self, task: Task, mount: str, problem: str, attempt: Callable[[], Awaitable[bool]]
    ) -> bool:
        try:
            async with self._lanes.through(mount):
                with self.attempts.under_way(mount):
                    proven = await attempt()
                if proven:
                    return True
            task.last_problem = problem
        except (Unavailable, BackendFailed) as error:
            task.last_problem = f"{error.code}: {error.detail}"
        task.attempts_failed += 1
        if task.attempts_failed.bit_count() == 1:  # 1, 2, 4, ...: an outage logs little
            self._log.warning(
                "revocation_unproven",
                task=task.id,
                mount=mount,
                problem=task.last_problem,
                attempts=task.attempts_failed,
            )
        return False
