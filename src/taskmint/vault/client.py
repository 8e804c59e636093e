"""
The port to Vault: every call checked against the plan, sent once, bounded, and read with distrust.

Creating calls are never repeated here, except where the answer proves that nothing was created: a
403 because the daemon's own token is dead, a 412 of a node that is behind. Task tokens are used
for minting and for nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeAlias

import structlog
from hvac.api.auth_methods import Token as TokenApi
from hvac.api.system_backend import Lease as LeaseApi

from taskmint.errors import BackendFailed, Code, TaskmintError, Unavailable
from taskmint.model.scope import Entitlement, Ephemeral, Json
from taskmint.model.task_id import parse_revision_name
from taskmint.policy.database import PROBE_ANSWER
from taskmint.policy.plan_objects import Plan
from taskmint.policy.plan_rules import probe_path, standing_role
from taskmint.ports import (
    Minted,
    ProbeResult,
    Revocable,
    RevocableKind,
    TaskToken,
    TokenRequest,
    VaultCall,
    Written,
)

from .breaker import Breaker
from .bulkhead import Bulkhead, Purpose
from .certificates import lists
from .clocks import account_clock
from .drift import DriftWatch, too_wide
from .http import MAX_LIST_BYTES, Door, OutsidePlan, Transport
from .login import FetchCertificate, FetchSvid, login_method, no_certificate
from .minting import WrongToken, minted, remaining, task_token
from .responses import (
    MOUNT_FAILED,
    NO_SUCH_LEASE,
    NO_SUCH_TOKEN,
    NO_TOKEN_LEFT,
    Meaning,
    Reply,
    failure,
    says_gone,
    says_token_gone,
)
from .session import OwnSession
from .settings import VaultSettings
from .stopwatch import UNWATCHED, Stopwatch

Body: TypeAlias = Mapping[str, Json] | None
Call: TypeAlias = Callable[[Door], Awaitable[Reply]]

_TOKENS: Final = "auth/token"
_FIRST_LOOK_SECONDS: Final = 5.0
_RETIRED_PLANS: Final = 8
_CATCH_UP_SECONDS: Final = (0.05, 0.1, 0.2)
_MAKES: Final = frozenset({VaultCall.CREATE_TOKEN, VaultCall.WRITE, VaultCall.MINT})


class VaultClient:
    """
    Implements `ports.Vault`; `async with` opens it and begins to keep the daemon's own token.

    Entering raises Unavailable(rights_too_wide) when the server, at the first look, allows more
    than the plan; a Vault that is away does not keep the daemon from starting.
    """

    def __init__(
        self,
        settings: VaultSettings,
        plan: Plan,
        fetch_svid: FetchSvid,
        log: structlog.stdlib.BoundLogger,
        fetch_certificate: FetchCertificate = no_certificate,
        *,
        stopwatch: Stopwatch = UNWATCHED,
    ) -> None:
        self._plan = plan
        self._stopwatch = stopwatch
        self._retired: tuple[Plan, ...] = ()
        self._settings = settings
        self._log = log
        self._transport = Transport(settings, outgoing=stopwatch.outgoing)
        log_in = login_method(self._transport, settings, fetch_svid, fetch_certificate)
        self._session = OwnSession(self._transport, log_in, self._permits_own, log)
        self._drift = DriftWatch(self._session, plan, settings, log)
        self._breaker = Breaker()
        self._bulkhead = Bulkhead(settings.max_connections, settings.timeout)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect, log in and look at the rights; wait for that a few seconds at most."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._transport)
            await stack.enter_async_context(self._session)
            try:
                async with asyncio.timeout(_FIRST_LOOK_SECONDS):
                    rights = await self._drift.look()
            except (Unavailable, BackendFailed, TimeoutError) as error:
                self._log.warning("vault_away_at_start", problem=str(error))
            else:
                if rights.wider and not self._settings.unsafe_allow_wide_rights:
                    raise too_wide(rights.wider)
            await stack.enter_async_context(self._drift)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the daemon's own token back and close every connection."""
        await self._stack.aclose()

    def wider(self) -> tuple[str, ...]:
        """What the server allows the daemon beyond the plan, as last looked at."""
        return self._drift.wider()

    def unapplied(self) -> frozenset[str]:
        """The definitions for which the server lacks something, as last looked at."""
        return self._drift.unapplied()

    def swap_plan(self, plan: Plan) -> None:
        """Use another plan from now on; what runs under the old one can still be proven ended."""
        self._retired = self._plans()[:_RETIRED_PLANS]
        self._plan = plan
        self._drift.swap_plan(plan)

    def ready(self) -> str | None:
        """None when tasks can be started now, else the reason why not."""
        return self._session.ready() or self._drift.ready()

    async def create_task_token(self, request: TokenRequest) -> TaskToken:
        """Create by role (auth/token/create/:role), with the one policy as a text."""
        self._require(request)
        return await self._create(request)

    async def write(self, request: TokenRequest, ephemeral: Ephemeral) -> None:
        """Write a task's own object with the daemon's token, once; what exists is not changed."""
        self._require(request)
        mount, url = self._mount_at(ephemeral.path), f"/v1/{ephemeral.path}"
        reply = await self._make(
            mount,
            lambda: self._own(
                mount, VaultCall.WRITE, lambda door: door.post(url, json=dict(ephemeral.body))
            ),
        )
        if reply.meaning is Meaning.DENIED:
            self._drift.look_soon()
        if reply.meaning is not Meaning.DONE:
            raise failure(reply, f"writing {ephemeral.path}")

    async def mint(self, token: TaskToken, entitlement: Entitlement) -> Minted:
        """Make the entitlement's one request with the task token, once."""
        door = Door(self._transport, token.token, partial(self._permits_task, token.policy))
        url = f"/v1/{entitlement.mount}/{entitlement.path}"
        body: dict[str, Json] | None = None
        if entitlement.method == "POST":
            body = dict(entitlement.body)
        reply = await self._make(
            entitlement.mount,
            lambda: self._through(
                entitlement.mount,
                VaultCall.MINT,
                partial(_caught_up, lambda: door.request(entitlement.method, url, json=body)),
            ),
        )
        if reply.meaning is Meaning.DENIED:
            self._drift.look_soon()
        return minted(reply, entitlement, datetime.now(UTC))

    async def renew(self, revocable: Revocable, increment: timedelta) -> timedelta:
        """Renew by lease id or accessor; returns the life that is left now."""
        seconds = int(increment.total_seconds())
        mount = self._mount(revocable)
        if revocable.kind is RevocableKind.LEASE:
            reply = await self._own(
                mount,
                VaultCall.RENEW,
                lambda door: LeaseApi(door).renew_lease(revocable.id, increment=seconds),
            )
            return remaining(reply, reply.body or {})
        reply = await self._own(
            mount,
            VaultCall.RENEW,
            lambda door: TokenApi(door).renew_accessor(revocable.id, increment=seconds),
        )
        return remaining(reply, reply.part("auth"))

    async def revoke(self, revocable: Revocable) -> None:
        """
        Take back, synchronously; only `is_gone` proves it.

        A lease with `sync`, which hvac cannot send: without it the server only makes a note.
        """
        if revocable.kind is RevocableKind.LEASE:
            body = {"lease_id": revocable.id, "sync": True}
            reply = await self._own(
                self._mount(revocable),
                VaultCall.REVOKE,
                lambda door: door.put("/v1/sys/leases/revoke", json=body),
            )
        else:
            reply = await self._own(
                _TOKENS,
                VaultCall.REVOKE,
                lambda door: TokenApi(door).revoke_accessor(revocable.id),
            )
            # Vault before 1.10 does not call the first of these success; the look-up decides.
            if says_gone(reply, NO_SUCH_TOKEN) or says_gone(reply, NO_TOKEN_LEFT):
                return
        if reply.meaning is not Meaning.DONE:
            raise failure(reply, f"revoking a {revocable.kind}")

    async def is_gone(self, revocable: Revocable) -> bool:
        """Look up; True only when the server says, in exactly its words, that it is not there."""
        if revocable.kind is RevocableKind.LEASE:
            reply = await self._own(
                self._mount(revocable),
                VaultCall.LOOK_UP,
                lambda door: LeaseApi(door).read_lease(revocable.id),
            )
            gone = says_gone(reply, NO_SUCH_LEASE)
        else:
            reply = await self._own(
                _TOKENS,
                VaultCall.LOOK_UP,
                lambda door: TokenApi(door).lookup_accessor(revocable.id),
            )
            gone = says_token_gone(reply)
        if gone:
            return True
        if reply.meaning is Meaning.DONE:
            return False
        raise failure(reply, f"looking up a {revocable.kind}")

    async def probe(self, request: TokenRequest, entitlement: Entitlement) -> ProbeResult:
        """
        Terminate and count the sessions of the task's users (decisions.md 4).

        1. a token named after the task, so that the probe sees the task's prefix;
        2. read the probe role: it always fails, and the error carries the counts;
        3. revoke the token, whatever happened.
        """
        path = probe_path(entitlement)
        if path is None:
            raise ValueError(f"{entitlement.name} promises no proof of its sessions")
        token = await self._create(request)
        door = Door(self._transport, token.token, partial(self._permits_task, token.policy))
        try:
            reply = await self._through(
                entitlement.mount, VaultCall.PROBE, lambda: door.get(f"/v1/{path}")
            )
        finally:
            await asyncio.shield(self._forget(token.revocable))
        for error in reply.errors or ():
            if match := PROBE_ANSWER.search(error):
                return ProbeResult(sessions=int(match[1]), roles=int(match[2]))
        if reply.meaning is Meaning.DONE:
            raise BackendFailed(
                Code.VAULT_ERROR, f"{path} made an account instead of counting sessions",
                fix="run `taskmint vault apply`",
            )  # fmt: skip
        raise failure(reply, "counting sessions")

    async def own_clock(self, entitlement: Entitlement) -> timedelta | None:
        """
        Read the role: its accounts' VALID UNTIL is their lease's first end, that of `default_ttl`.

        Where the role leaves that to the mount, nobody says how long it is.
        """
        path = standing_role(entitlement)
        if path is None:
            return None
        reply = await self._own(
            entitlement.mount, VaultCall.LOOK_UP, lambda door: door.get(f"/v1/{path}")
        )
        if reply.meaning not in {Meaning.DONE, Meaning.ABSENT}:
            raise failure(reply, f"reading {path}")
        return account_clock(reply.part("data"))

    async def is_listed(self, entitlement: Entitlement, serial: str) -> bool:
        """
        Look for a certificate on its issuer's revocation list, asking as any relying party.

        1. without a token: what Vault says of the certificate, with the issuer's id once revoked;
        2. the list of that issuer, and whether the serial number stands on it.
        """
        mount = entitlement.mount
        door = Door(self._transport, None, self._permits_anyone, largest=MAX_LIST_BYTES)
        said = await self._anyone(door, mount, f"cert/{serial}")
        issuer = said.part("data").get("issuer_id")
        if not said.part("data").get("revocation_time") or not isinstance(issuer, str):
            return False
        listed = await self._anyone(door, mount, f"issuer/{issuer}/crl")
        return lists(str(listed.part("data").get("crl")), serial)

    async def _anyone(self, door: Door, mount: str, path: str) -> Reply:
        reply = await self._bulkhead.through(
            mount, Purpose.TAKE_BACK, partial(_caught_up, lambda: door.get(f"/v1/{mount}/{path}"))
        )
        if reply.meaning is not Meaning.DONE:
            raise failure(reply, f"reading {mount}/{path}")
        return reply

    async def delete(self, path: str) -> None:
        """Delete an object that was written for a task; that it is not there is success."""
        reply = await self._own(
            self._mount_at(path), VaultCall.DELETE, lambda door: door.delete(f"/v1/{path}")
        )
        if reply.meaning not in {Meaning.DONE, Meaning.ABSENT}:
            raise failure(reply, f"deleting {path}")

    async def written(self, node: str) -> Sequence[Written]:
        """List the plan's kinds of objects that exist for one task, of one node, by their names."""
        found: list[Written] = []
        for place, prefix in sorted(self._plan.task_object_places):
            for name in await self._names(place):
                told = parse_revision_name(name.rpartition(".")[2])
                if name.startswith(prefix) and told is not None and told[0] == node:
                    found.append(Written(f"{place}/{name}", told[1]))
        return found

    async def _names(self, place: str) -> list[str]:
        reply = await self._own(
            self._mount_at(place), VaultCall.LIST, lambda door: door.list(f"/v1/{place}")
        )
        if reply.meaning not in {Meaning.DONE, Meaning.ABSENT}:
            raise failure(reply, f"listing {place}")
        keys = reply.part("data").get("keys")
        return [str(name) for name in keys] if isinstance(keys, list) else []

    async def _create(self, request: TokenRequest) -> TaskToken:
        reply = await self._own(
            _TOKENS,
            VaultCall.CREATE_TOKEN,
            lambda door: TokenApi(door).create(
                role_name=request.role,
                policies=request.policy,
                meta=dict(request.meta),
                display_name=request.display_name,
                # hvac's own defaults would go along, and the plan permits no such field
                no_parent=None,
                no_default_policy=None,
                renewable=None,
                num_uses=None,
            ),
        )
        if reply.meaning in {Meaning.DENIED, Meaning.REFUSED}:
            self._drift.look_soon()
        try:
            return task_token(reply, request)
        except WrongToken as wrong:
            await asyncio.shield(self._forget(wrong.revocable))
            raise

    async def _make(self, mount: str, call: Callable[[], Awaitable[Reply]]) -> Reply:
        """Make a call that makes something, unless its mount is being spared."""
        self._breaker.admit(mount)
        try:
            reply = await call()
        except Unavailable:
            self._breaker.failed(mount)
            raise
        if reply.meaning in MOUNT_FAILED:
            self._breaker.failed(mount)
        else:
            self._breaker.succeeded(mount)
        return reply

    async def _own(self, mount: str, what: VaultCall, call: Call) -> Reply:
        """Make a call with the daemon's own token; once more when that token proves dead."""
        door = await self._session.door()
        reply = await self._through(mount, what, partial(call, door))
        if reply.meaning is Meaning.BEHIND:
            reply = await self._through(mount, what, partial(_caught_up, partial(call, door)))
        if reply.meaning is Meaning.DENIED and await self._session.replaced(door):
            fresh = await self._session.door()
            reply = await self._through(mount, what, partial(call, fresh))
        return reply

    async def _through(
        self, mount: str, what: VaultCall, call: Callable[[], Awaitable[Reply]]
    ) -> Reply:
        """Make a call when there is a place for it, and time it."""
        purpose = Purpose.MAKE if what in _MAKES else Purpose.TAKE_BACK
        return await self._bulkhead.through(
            mount, purpose, partial(self._stopwatch.timed, mount, what, call)
        )

    async def _forget(self, revocable: Revocable) -> None:
        """Revoke a token nobody needs; if that fails, its period ends it, since none renews it."""
        try:
            await self.revoke(revocable)
        except TaskmintError as error:
            self._log.warning("vault_token_left", code=error.code, problem=error.detail)

    def _permits_own(self, method: str, path: str, body: Body) -> bool:
        # The plan in force first: almost every request is one of its own.
        return self._plan.permits_daemon(method, path, body) or any(
            plan.permits_daemon(method, path, body) for plan in self._retired
        )

    def _permits_task(self, policy: str, method: str, path: str, body: Body) -> bool:
        return any(plan.permits_task(policy, method, path, body) for plan in self._plans())

    def _permits_anyone(self, method: str, path: str, body: Body) -> bool:
        return any(plan.permits_anyone(method, path, body) for plan in self._plans())

    def _plans(self) -> tuple[Plan, ...]:
        """The plan in force, then those under which tasks may still be on their way out."""
        return (self._plan, *self._retired)

    def _require(self, request: TokenRequest) -> None:
        """Raise unless tasks of the request's definition may be started, and its mounts work."""
        definition = self._plan.definition_of.get(request.role)
        if definition is None:
            raise OutsidePlan("POST", f"auth/token/create/{request.role}")
        self._drift.require(definition)
        for mount in self._plan.needs[definition].mounts:
            self._breaker.check(mount)

    def _mount(self, revocable: Revocable) -> str:
        """Name the mount that a lease is of."""
        return _TOKENS if revocable.kind is RevocableKind.TOKEN else self._mount_at(revocable.id)

    def _mount_at(self, path: str) -> str:
        """Name the mount of a path; only to keep mounts apart, so a guess will do."""
        fitting = (mount for mount in self._plan.mounts if path.startswith(f"{mount}/"))
        return max(fitting, key=len, default=path.partition("/")[0])


async def _caught_up(call: Callable[[], Awaitable[Reply]]) -> Reply:
    """Ask again, a few times, a node that is behind (412): it did nothing, and will catch up."""
    for pause in _CATCH_UP_SECONDS:
        reply = await call()
        if reply.meaning is not Meaning.BEHIND:
            return reply
        await asyncio.sleep(pause)
    return await call()
