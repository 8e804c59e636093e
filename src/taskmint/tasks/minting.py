"""From a decided revision to credentials, through every durable point (design.md, section 3)."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from taskmint.errors import BackendFailed, Code, Conflict, Unavailable
from taskmint.failpoints import Failpoint
from taskmint.model.scope import ISSUED, Entitlement, EntitlementKind, Ephemeral
from taskmint.ports import Minted, TaskToken, TokenRequest

from . import entries
from .outside import Outside, Settings
from .queueing import MintQueue, mounts_of
from .renewal import first_renewal
from .revision import Held, Revision
from .sharing import SharedScopes
from .task import Task
from .tokens import token_request

_HANDED: Final = EntitlementKind.TOKEN  # the caller's own: its end is none of the task's
_SKEW: Final = timedelta(minutes=1)  # between our clock and Vault's


class Minter:
    """
    Mints what a revision's scope names.

    1. ledger: the intent, durable before the first call to Vault, naming all that will be written;
    2. the task token, by role; beside it what must exist before it can mint (a database role);
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
        self._scopes = SharedScopes()
        self._queue = MintQueue(settings.limits.mints_in_flight)

    @property
    def waiting(self) -> int:
        """How many mints wait for a place."""
        return self._queue.waiting

    async def mint(self, task: Task, revision: Revision) -> Mapping[str, Minted]:
        """
        Do the five steps when there is a place for it.

        Raises Unavailable or BackendFailed; and before the first step LimitExceeded, or
        Conflict(task_ended) when the task has ended while it waited.

        Afterwards, also after a failure, the revision's `token`, `held`, `written`, `unheard` and
        `unheard_since` say everything that may have to be taken back.
        """
        async with self._queue.place(mounts_of(revision.scope)):
            if task.cause is not None:
                raise Conflict(Code.TASK_ENDED, "the task ended before anything was minted")
            return await self._steps(task, revision)

    async def _steps(self, task: Task, revision: Revision) -> Mapping[str, Minted]:
        reach, now = self._failpoints.reach, self._clock.utcnow
        reach(Failpoint.BEFORE_INTENT)
        await self._ledger.append(entries.intent(task, revision, now(), self._boot_id))
        reach(Failpoint.AFTER_INTENT)
        revision.recorded(self._scopes.same(revision.scope))
        asked_at = self._clock.boottime()
        token = await self._prepared(task, revision)
        minted = await self._entitlements(revision, token, asked_at)
        reach(Failpoint.AFTER_MINT)
        await self._ledger.append(entries.active(task, revision, now()))
        reach(Failpoint.AFTER_ACTIVE)
        return minted

    async def _prepared(self, task: Task, revision: Revision) -> TaskToken:
        """Do steps 2 and 3; what fails does not keep the others from being noted."""
        request = token_request(self._node, task, revision)
        first = revision.ephemerals()
        if not first:
            return await self._token(task, revision, request)
        revision.written |= {one.path for one in first}
        token, *others = await asyncio.gather(
            self._token(task, revision, request),
            *(self._write(revision, request, one) for one in first),
            return_exceptions=True,
        )
        for problem in (token, *others):
            if isinstance(problem, BaseException):
                raise problem
        if not isinstance(token, TaskToken):
            raise TypeError("what is no error is the token")
        return token

    async def _token(self, task: Task, revision: Revision, request: TokenRequest) -> TaskToken:
        try:
            token = await self._vault.create_task_token(request)
        except (Unavailable, BackendFailed) as error:
            if not error.created_nothing:
                revision.unheard_since = self._clock.boottime()
            raise
        self._failpoints.reach(Failpoint.AFTER_TOKEN)
        revision.token = token.revocable
        await self._ledger.append(entries.accessor(task, revision, self._clock.utcnow()))
        self._failpoints.reach(Failpoint.AFTER_ACCESSOR)
        return token

    async def _write(self, revision: Revision, request: TokenRequest, first: Ephemeral) -> None:
        try:
            await self._vault.write(request, first)
        except (Unavailable, BackendFailed) as error:
            if error.created_nothing:
                revision.written -= {first.path}
            raise
        self._failpoints.reach(Failpoint.AFTER_WRITE)

    async def _entitlements(
        self, revision: Revision, token: TaskToken, asked_at: float
    ) -> dict[str, Minted]:
        items = revision.entitlements()
        answers = await asyncio.gather(
            *(self._vault.mint(token, self._bounded(item, revision)) for item in items),
            return_exceptions=True,
        )
        minted: dict[str, Minted] = {}
        held: list[Held] = []
        problem: BaseException | None = None
        life = token.ttl
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, BaseException):
                problem = problem or answer
                if not getattr(answer, "created_nothing", False):
                    revision.unheard_since = self._clock.boottime()
                    revision.unheard |= {item.name}
                continue
            minted[item.name] = _with_warning(answer, revision)
            held.append(_held(item, answer))
            if answer.ttl is not None and answer.renewable and item.kind is not _HANDED:
                life = min(life, answer.ttl)
        revision.held = tuple(held)
        if problem is not None:
            raise problem
        revision.granted(life, asked_at)
        revision.renew_at = first_renewal(life, asked_at)
        return minted

    def _bounded(self, item: Entitlement, revision: Revision) -> Entitlement:
        """Ask for a certificate that ends with the task, and take none that lives longer."""
        if item.ceiling is None or item.kind not in ISSUED:
            return item
        left = timedelta(seconds=revision.deadline - self._clock.boottime())
        seconds = max(1, int(min(item.ceiling, left).total_seconds()))
        body = {**item.body, "ttl": f"{seconds}s"}
        return replace(item, body=body, ceiling=timedelta(seconds=seconds))


def _with_warning(answer: Minted, revision: Revision) -> Minted:
    """Say it to the caller when something that nothing takes back works on after the task."""
    ends = answer.expires_at
    if answer.revocable is not None or ends is None or ends <= revision.expires_at + _SKEW:
        return answer
    said = f"nothing takes this back, and it works until {ends:%Y-%m-%dT%H:%M:%SZ}, after the task"
    return replace(answer, warnings=(*answer.warnings, said))


def _held(item: Entitlement, answer: Minted) -> Held:
    return Held(
        item,
        answer.revocable,
        answer.renewable,
        user_name=answer.user_name,
        serial=answer.serial,
        expires_at=answer.expires_at,
    )
