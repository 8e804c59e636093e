"""From a decided task to credentials, through every durable point (design.md, section 3)."""

import asyncio
from collections.abc import Mapping

from taskmint.errors import BackendFailed, Unavailable
from taskmint.failpoints import Failpoint
from taskmint.ports import Minted, TaskToken

from . import entries
from .outside import Outside, Settings
from .renewal import first_renewal
from .task import Held, Task
from .tokens import token_request


class Minter:
    """
    Mints what a task's scope names.

    1. ledger: the intent, durable before the first call to Vault;
    2. the task token, by role;
    3. ledger: its accessor, durable before the first mint, so that a crash can take it back;
    4. every entitlement, in parallel, with that token: a lease whose reply is lost belongs to it;
    5. ledger: what stands, durable before any reply carries a secret (P7).
    """

    def __init__(self, outside: Outside, settings: Settings) -> None:
        self._vault = outside.vault
        self._ledger = outside.ledger
        self._clock = outside.clock
        self._failpoints = outside.failpoints
        self._node = settings.node
        self._boot_id = settings.boot_id

    async def mint(self, task: Task) -> Mapping[str, Minted]:
        """
        Do the five steps. Raises Unavailable or BackendFailed.

        Afterwards, also after a failure, `task.token`, `task.held` and
        `task.unheard_since` say everything that may have to be taken back.
        """
        reach = self._failpoints.reach
        reach(Failpoint.BEFORE_INTENT)
        await self._ledger.append(entries.intent(task, self._clock.utcnow(), self._boot_id))
        reach(Failpoint.AFTER_INTENT)
        token = await self._token(task)
        reach(Failpoint.AFTER_TOKEN)
        task.token = token.revocable
        await self._ledger.append(entries.accessor(task, self._clock.utcnow()))
        reach(Failpoint.AFTER_ACCESSOR)
        minted = await self._entitlements(task, token)
        reach(Failpoint.AFTER_MINT)
        await self._ledger.append(entries.active(task, self._clock.utcnow()))
        reach(Failpoint.AFTER_ACTIVE)
        return minted

    async def _token(self, task: Task) -> TaskToken:
        asked_at = self._clock.boottime()
        try:
            token = await self._vault.create_task_token(token_request(self._node, task))
        except (Unavailable, BackendFailed) as error:
            if not error.created_nothing:
                task.unheard_since = self._clock.boottime()
            raise
        task.guaranteed_until = asked_at + token.ttl.total_seconds()
        task.renew_at = first_renewal(token.ttl, asked_at)
        return token

    async def _entitlements(self, task: Task, token: TaskToken) -> dict[str, Minted]:
        asked_at = self._clock.boottime()
        answers = await asyncio.gather(
            *(self._vault.mint(token, item) for item in task.scope.entitlements),
            return_exceptions=True,
        )
        minted: dict[str, Minted] = {}
        held: list[Held] = []
        problem: BaseException | None = None
        for item, answer in zip(task.scope.entitlements, answers, strict=True):
            if isinstance(answer, BaseException):
                problem = problem or answer
                if not getattr(answer, "created_nothing", False):
                    task.unheard_since = self._clock.boottime()
                continue
            minted[item.name] = answer
            held.append(Held(item, answer.revocable, answer.renewable, answer.user_name))
            if answer.ttl is not None:
                lapses = asked_at + answer.ttl.total_seconds()
                task.guaranteed_until = min(task.guaranteed_until, lapses)
                task.renew_at = min(task.renew_at, first_renewal(answer.ttl, asked_at))
        task.held = tuple(held)
        if problem is not None:
            raise problem
        return minted
