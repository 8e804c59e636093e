"""
Looks, at start, hourly and after each reload, whether the server still holds exactly the plan.

Wider at the first look: refuse at once. Wider later: an alarm at once, and no new tasks after a
grace. Missing: only the definitions that need it are refused. Renewing and taking back are never
stopped by anything here (decisions.md, rights drift).
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Final, Self

import structlog
from hvac.api.auth_methods import Token as TokenApi

from taskmint.errors import BackendFailed, Code, Unavailable
from taskmint.model.scope import Json
from taskmint.policy.plan_objects import Plan

from .http import Door
from .responses import Meaning, Reply, failure
from .rights import LiveRights, Rights, compare
from .session import OwnSession
from .settings import VaultSettings

_LOOK_AGAIN_SECONDS: Final = 15.0  # while something is wrong, so that an `apply` is seen soon
_SOON_SECONDS: Final = 5.0
_PARALLEL_READS: Final = 8


class DriftWatch:
    """Knows what may be started; `async with` owns the repeated look."""

    def __init__(
        self,
        session: OwnSession,
        plan: Plan,
        settings: VaultSettings,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._session = session
        self._plan = plan
        self._settings = settings
        self._log = log
        self._rights: Rights | None = None
        self._refuse_from: float | None = None
        self._looked_at = 0.0
        self._again = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start looking."""
        self._watcher = asyncio.create_task(self._watch(), name="vault-drift")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop looking."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher

    def swap_plan(self, plan: Plan) -> None:
        """Compare with another plan from now on, and look at once."""
        self._plan = plan
        self._looked_at = 0.0
        self._again.set()

    def look_soon(self) -> None:
        """Look again, but not all the time: something was refused that the plan holds."""
        if asyncio.get_running_loop().time() - self._looked_at >= _SOON_SECONDS:
            self._again.set()

    def ready(self) -> str | None:
        """None when tasks may be started, else why none may; single definitions do not count."""
        try:
            self._require_narrow()
        except Unavailable as error:
            return error.detail
        return None

    def require(self, definition: str) -> None:
        """Raise Unavailable (rights_too_wide, plan_not_applied) when it may not be started."""
        self._require_narrow()
        if self._rights is not None and definition in self._rights.missing:
            raise Unavailable(
                Code.PLAN_NOT_APPLIED,
                f"Vault lacks what {definition} needs: {self._rights.missing[definition]}",
                fix="run `taskmint vault apply`",
                created_nothing=True,
            )

    def wider(self) -> tuple[str, ...]:
        """What the server allows beyond the plan, as last looked at."""
        return tuple(self._rights.wider) if self._rights else ()

    def unapplied(self) -> frozenset[str]:
        """The definitions for which the server lacks something, as last looked at."""
        return frozenset(self._rights.missing) if self._rights else frozenset()

    async def look(self) -> Rights:
        """Read and compare, now. Raises Unavailable and BackendFailed when it cannot be read."""
        plan = self._plan
        rights = compare(plan, await self._read(plan))
        self._judge(rights)
        return rights

    def _require_narrow(self) -> None:
        if self._rights is None:
            raise Unavailable(
                Code.VAULT_UNAVAILABLE,
                "the daemon's rights in Vault have not been compared with the plan yet",
                created_nothing=True,
            )
        now = asyncio.get_running_loop().time()
        if self._refuse_from is not None and now >= self._refuse_from:
            raise too_wide(self._rights.wider)

    def _judge(self, rights: Rights) -> None:
        first = self._rights is None
        self._rights = rights
        if not rights.wider or self._settings.unsafe_allow_wide_rights:
            self._refuse_from = None
        elif self._refuse_from is None:
            grace = 0.0 if first else self._settings.drift_grace.total_seconds()
            self._refuse_from = asyncio.get_running_loop().time() + grace
        if rights.wider:
            self._log.error("vault_rights_too_wide", wider=rights.wider)
        if rights.missing:
            self._log.warning("vault_plan_not_applied", missing=dict(rights.missing))

    async def _watch(self) -> None:
        while True:
            self._again.clear()
            self._looked_at = asyncio.get_running_loop().time()
            pause = _LOOK_AGAIN_SECONDS
            try:
                rights = await self.look()
                if not rights.wider and not rights.missing:
                    pause = self._settings.drift_interval.total_seconds()
            except (Unavailable, BackendFailed) as error:
                self._log.warning("vault_rights_unread", code=error.code, problem=error.detail)
                if self._rights is None:
                    pause = 1.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._again.wait()

    async def _read(self, plan: Plan) -> LiveRights:
        door = await self._session.door()
        reply: Reply = await TokenApi(door).lookup_self()
        if reply.meaning is Meaning.DENIED and await self._session.replaced(door):
            door = await self._session.door()
            reply = await TokenApi(door).lookup_self()
        if reply.meaning is not Meaning.DONE:
            raise failure(reply, "looking up the daemon's own token")
        data = reply.part("data")
        policies = await _read_all(door, "sys/policies/acl", plan.policies)
        roles = await _read_all(door, "auth/token/roles", plan.token_roles)
        return LiveRights(
            token_policies=_names(data.get("policies")),
            identity_policies=_names(data.get("identity_policies"))
            | _names(data.get("external_namespace_policies")),
            policies={name: _policy_text(data) for name, data in policies.items()},
            token_roles=roles,
        )


def too_wide(wider: Iterable[str]) -> Unavailable:
    """Say that the server allows the daemon more than the plan, and what."""
    return Unavailable(
        Code.RIGHTS_TOO_WIDE,
        f"the daemon's rights in Vault are wider than the plan: {'; '.join(wider)}",
        fix="run `taskmint vault check`, then `taskmint vault apply`",
        created_nothing=True,
    )


async def _read_all(
    door: Door, prefix: str, names: Iterable[str]
) -> Mapping[str, Mapping[str, Json] | None]:
    """Read objects by name, some at a time; what is absent or may not be read is None."""
    slots = asyncio.Semaphore(_PARALLEL_READS)

    async def one(name: str) -> Mapping[str, Json] | None:
        async with slots:
            reply: Reply = await door.get(f"/v1/{prefix}/{name}")
        if reply.meaning is Meaning.DONE:
            return reply.part("data")
        if reply.meaning in {Meaning.ABSENT, Meaning.DENIED}:
            return None
        raise failure(reply, f"reading {prefix}/{name}")

    ordered = list(names)
    answers = await asyncio.gather(*map(one, ordered), return_exceptions=True)
    found: dict[str, Mapping[str, Json] | None] = {}
    for name, answer in zip(ordered, answers, strict=True):
        if isinstance(answer, BaseException):
            raise answer
        found[name] = answer
    return found


def _policy_text(data: Mapping[str, Json] | None) -> str | None:
    text = None if data is None else data.get("policy")
    return text if isinstance(text, str) else None


def _names(value: Json) -> frozenset[str]:
    return frozenset(map(str, value)) if isinstance(value, list) else frozenset()
