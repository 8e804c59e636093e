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
from taskmint.model.state import EndCause
from taskmint.ports import ProbeResult, Revocable

from .attempts import Attempts
from .jitter import between
from .lanes import Lanes, mount_of
from .outside import Outside, Settings
from .revision import Held, Revision
from .task import Task
from .together import together
from .tokens import token_request
from .unheard import Unheard

PARALLEL_REVOCATIONS: Final = 16  # for each mount
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 30.0
LAST_ATTEMPT_SECONDS: Final = 2.0  # at a stop; a mount that has not answered by then is away


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
        self._insists = False
        self._away: set[str] = set()  # mounts, as a stop found them
        self.attempts = Attempts()

    def hurry(self, *, insist: bool) -> None:
        """
        The daemon stops: pauses between attempts end, and nothing waits for clocks alone.

        Unless all is to be gone by then, what fails once more is left to the next start; what this
        stop itself ends is not.
        """
        self._insists = insist
        self._hurried.set()
        if not insist:
            self.attempts.cut_short(LAST_ATTEMPT_SECONDS)

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

        False when the daemon stops before that: the next start goes on.
        """
        items = [self._item(task, revision, held) for held in revision.held if held.revocable]
        if items and not all(await together(items)):
            return False
        self._failpoints.reach(Failpoint.AFTER_REVOKE_LEASE)
        if revision.token and not await self._until_gone(task, revision, revision.token):
            return False
        self._failpoints.reach(Failpoint.AFTER_REVOKE_TOKEN)
        if revision.written:
            paths = [self._until_deleted(task, revision, path) for path in sorted(revision.written)]
            if not all(await together(paths)):
                return False
            self._failpoints.reach(Failpoint.AFTER_DELETE)
        if revision.unheard_since is None:
            return True
        return await self._unheard.outwait(task, revision, revision.unheard_since)

    async def _item(self, task: Task, revision: Revision, held: Held) -> bool:
        if held.revocable is None:
            return True
        if not await self._until_gone(task, revision, held.revocable):
            return False
        if held.entitlement.proof is ProofLevel.SESSIONS:
            return await self._until_no_sessions(task, revision, held)
        if held.entitlement.proof is ProofLevel.CRL and held.serial is not None:
            return await self._until_listed(task, held, held.serial)
        return True

    async def _until_gone(self, task: Task, revision: Revision, revocable: Revocable) -> bool:
        async def attempt() -> bool:
            await self._vault.revoke(revocable)
            return await self._vault.is_gone(revocable)

        mount = mount_of(revision, revocable)
        return await self._persist(task, mount, f"{revocable.kind} still there", attempt)

    async def _until_no_sessions(self, task: Task, revision: Revision, held: Held) -> bool:
        request = token_request(self._node, task, revision)

        async def attempt() -> bool:
            result: ProbeResult = await self._vault.probe(request, held.entitlement)
            left = {held.entitlement.name: result.roles}
            revision.left_disabled = {**revision.left_disabled, **left}
            return result.sessions == 0

        mount = held.entitlement.mount
        if not await self._persist(task, mount, "sessions still open", attempt):
            return False
        if left := revision.left_disabled[held.entitlement.name]:
            self._log.warning(
                "account_disabled_not_dropped",
                task=task.id,
                mount=mount,
                user=held.user_name,
                accounts=left,
            )
        return True

    async def _until_listed(self, task: Task, held: Held, serial: str) -> bool:
        async def attempt() -> bool:
            if held.expires_at is not None and held.expires_at <= self._clock.utcnow():
                return True
            return await self._vault.is_listed(held.entitlement, serial)

        mount = held.entitlement.mount
        return await self._persist(task, mount, "certificate not on the CRL", attempt)

    async def _until_deleted(self, task: Task, revision: Revision, path: str) -> bool:
        async def attempt() -> bool:
            await self._vault.delete(path)
            return True

        mount = next(
            item.mount
            for item in revision.entitlements()
            if item.ephemeral is not None and item.ephemeral.path == path
        )
        if not await self._persist(task, mount, "not deleted", attempt):
            return False
        revision.written -= {path}
        return True

    async def _persist(
        self, task: Task, mount: str, problem: str, attempt: Callable[[], Awaitable[bool]]
    ) -> bool:
        """Try until it is proven; False when a stop leaves it to the next start."""
        if await self._tried(task, mount, problem, attempt):
            return True
        self._unproven[mount] += 1
        try:
            pause = FIRST_PAUSE_SECONDS
            while not self._leaves(task):
                # Jitter from half to one and a half, so that a returning Vault meets no herd.
                if await self._is_hurried(pause * between(0.5, 1.5)):
                    pause = FIRST_PAUSE_SECONDS
                if await self._tried(task, mount, problem, attempt):
                    return True
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        finally:
            self._unproven[mount] -= 1
        return False

    def _leaves(self, task: Task) -> bool:
        """Whether what fails now is left to the next start."""
        insists = self._insists or task.cause is EndCause.DAEMON_STOPPED
        return self._hurried.is_set() and not insists

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
                last = self._leaves(task)
                if last and mount in self._away:
                    return False
                async with asyncio.timeout(LAST_ATTEMPT_SECONDS if last else None) as bound:
                    with self.attempts.under_way(mount, bound):
                        proven = await attempt()
                if proven:
                    return True
            task.last_problem = problem
        except BackendFailed as error:
            task.last_problem = f"{error.code}: {error.detail}"
        except Unavailable as error:
            task.last_problem = f"{error.code}: {error.detail}"
            self._away |= {mount} if self._hurried.is_set() else set()
        except TimeoutError:
            task.last_problem = "no answer by the time of the daemon's stop"
            self._away.add(mount)
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
