"""A Vault that behaves: tokens own leases, revoking a token ends them, and faults are injected."""

import asyncio
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from taskmint.errors import BackendFailed, Code, Unavailable
from taskmint.model.scope import ISSUED, Entitlement, EntitlementKind, Ephemeral, Json
from taskmint.model.secret import Secret
from taskmint.model.task_id import parse_revision_name
from taskmint.ports import (
    Minted,
    ProbeResult,
    Revocable,
    RevocableKind,
    TaskToken,
    TokenRequest,
    Written,
)


def away(*, created_nothing: bool = True) -> Unavailable:
    """Vault did not answer."""
    return Unavailable(Code.VAULT_UNAVAILABLE, "away", fix="wait", created_nothing=created_nothing)


def refused() -> BackendFailed:
    """Vault answered 500, so whether something came to be is not known."""
    return BackendFailed(Code.VAULT_ERROR, "500", fix="read its log")


_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass
class _Thing:
    owner: str | None
    expires: float
    alive: bool = True


@dataclass
class FakeVault:
    """
    `faults[method]` is a queue of errors to raise, one per call.

    `lost[method]` counts calls whose effect happens and whose answer is lost.
    With a clock in `now`, what nobody renews lapses after its `ttl`.
    `gates[method]` holds calls until the event is set. `stubborn` makes revocations answer
    success and change nothing.
    """

    ttl: timedelta = timedelta(seconds=60)
    now: Callable[[], float] = lambda: 0.0
    stubborn: bool = False
    not_ready: str | None = None
    sessions: int = 0
    undroppable: int = 0
    unlisted: int = 0  # how often a certificate is not on the revocation list yet
    certificates_end: datetime = _NEVER
    lives: dict[str, timedelta] = field(default_factory=dict)  # of entitlements, if not `ttl`
    clocks: dict[str, timedelta | None] = field(default_factory=dict)  # what ends accounts
    fixed: dict[str, datetime] = field(default_factory=dict)  # when leases that none renews end
    bodies: dict[str, dict[str, Json]] = field(default_factory=dict)  # what was minted with
    ceilings: dict[str, timedelta | None] = field(default_factory=dict)  # and held to
    faults: defaultdict[str, deque[Exception]] = field(default_factory=lambda: defaultdict(deque))
    lost: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)  # mounts that answer no renewal any more
    in_flight: Counter[str] = field(default_factory=Counter)
    peak: Counter[str] = field(default_factory=Counter)  # how many calls there were at once
    calls: list[str] = field(default_factory=list)
    accessors: list[str] = field(default_factory=list)
    requests: list[TokenRequest] = field(default_factory=list)
    things: dict[str, _Thing] = field(default_factory=dict)
    objects: dict[str, dict[str, Json]] = field(default_factory=dict)  # written for one task
    quiet: asyncio.Event = field(default_factory=asyncio.Event)  # nothing is alive any more
    pulse: asyncio.Condition = field(default_factory=asyncio.Condition)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def alive(self) -> set[str]:
        """The ids of every lease and token that still works."""
        return {name for name in self.things if self._works(name)}

    def _works(self, name: str) -> bool:
        """Neither revoked nor lapsed, and neither is the token that owns it."""
        thing = self.things[name]
        lives = thing.alive and self.now() < thing.expires
        return lives and (thing.owner is None or self._works(thing.owner))

    async def create_task_token(self, request: TokenRequest) -> TaskToken:
        """Make a token."""
        await self._called("create_task_token")
        accessor = f"accessor-{next(self.numbers)}"
        self.things[accessor] = self._made(None)
        self.requests.append(request)
        self.accessors.append(accessor)
        self._maybe_lost("create_task_token")
        return TaskToken(Secret(f"s.{accessor}-canary-token"), accessor, self.ttl)

    async def write(self, request: TokenRequest, ephemeral: Ephemeral) -> None:
        """Keep an object by its path."""
        del request
        await self._called("write")
        self.objects[ephemeral.path] = dict(ephemeral.body)
        self._maybe_lost("write")

    async def delete(self, path: str) -> None:
        """Forget an object."""
        await self._called("delete")
        self.objects.pop(path, None)

    async def written(self, node: str) -> list[Written]:
        """Those whose names say so."""
        await self._called("written")
        told = {path: parse_revision_name(path.rpartition(".")[2]) for path in self.objects}
        return [Written(path, name[1]) for path, name in told.items() if name and name[0] == node]

    async def mint(self, token: TaskToken, entitlement: Entitlement) -> Minted:
        """Make a lease that the token owns."""
        await self._called("mint")
        first = entitlement.ephemeral
        if first is not None and first.path not in self.objects:
            raise BackendFailed(Code.VAULT_ERROR, "unknown role")
        lease = f"{entitlement.mount}/{entitlement.path}/{next(self.numbers)}"
        self.things[lease] = self._made(token.accessor)
        self._maybe_lost("mint")
        self.bodies[entitlement.name] = dict(entitlement.body)
        self.ceilings[entitlement.name] = entitlement.ceiling
        data = Secret[dict[str, Json]]({"username": "u", "password": f"canary-password-{lease}"})
        if not entitlement.revocable or entitlement.kind in ISSUED:
            handle = Revocable(RevocableKind.LEASE, lease) if entitlement.revocable else None
            return Minted(
                entitlement.name,
                data,
                handle,
                None,
                renewable=False,
                serial="0a-1b",
                expires_at=self.certificates_end,
            )
        handed = entitlement.kind is EntitlementKind.TOKEN
        fixed = self.fixed.get(entitlement.name)
        ends = datetime.now(UTC) + entitlement.ceiling if entitlement.ceiling else fixed
        return Minted(
            entitlement.name,
            data,
            Revocable(RevocableKind.TOKEN if handed else RevocableKind.LEASE, lease),
            self.lives.get(entitlement.name, self.ttl),
            renewable=fixed is None,
            user_name="u",
            expires_at=ends,
        )

    async def renew(self, revocable: Revocable, increment: timedelta) -> timedelta:
        """Grant the increment to what is alive."""
        await self._called("renew")
        while revocable.id.partition("/")[0] in self.hanging:
            await asyncio.sleep(0.01)
        if not self._works(revocable.id):
            raise BackendFailed(Code.VAULT_ERROR, "no such lease")
        role = revocable.id.rpartition("/")[0].replace("/creds/taskmint-db-", "/roles/taskmint-db-")
        if "/roles/" in role and role not in self.objects:
            raise BackendFailed(Code.VAULT_ERROR, "its role is gone")
        self.things[revocable.id].expires = self.now() + increment.total_seconds()
        return increment

    async def revoke(self, revocable: Revocable) -> None:
        """End a thing and what it owns."""
        await self._called("revoke")
        if self.stubborn:
            return
        for name, thing in self.things.items():
            if revocable.id in {name, thing.owner}:
                thing.alive = False
        if not self.alive:
            self.quiet.set()

    async def is_gone(self, revocable: Revocable) -> bool:
        """Look up."""
        await self._called("is_gone")
        return not self._works(revocable.id)

    async def probe(self, request: TokenRequest, entitlement: Entitlement) -> ProbeResult:
        """Terminate one session per call."""
        del request, entitlement
        await self._called("probe")
        seen = self.sessions
        self.sessions = max(0, seen - 1)
        return ProbeResult(sessions=seen, roles=self.undroppable)

    async def own_clock(self, entitlement: Entitlement) -> timedelta | None:
        """As told, or a second, which no dead-man interval is shorter than."""
        await self._called("own_clock")
        return self.clocks.get(entitlement.name, timedelta(seconds=1))

    async def is_listed(self, entitlement: Entitlement, serial: str) -> bool:
        """Say no as often as told, then yes."""
        del entitlement, serial
        await self._called("is_listed")
        self.unlisted -= 1
        return self.unlisted < 0

    def expire(self, request: TokenRequest) -> None:
        """The server ends a token by itself, with what it owns, because nobody renews it."""
        accessor = self.accessors[self.requests.index(request)]
        for name, thing in self.things.items():
            if accessor in {name, thing.owner}:
                thing.alive = False

    def _made(self, owner: str | None) -> _Thing:
        return _Thing(owner, self.now() + self.ttl.total_seconds())

    def ready(self) -> str | None:
        """As told."""
        return self.not_ready

    async def until_called(self, method: str, times: int = 1) -> None:
        """Wait until a method has been called so often."""
        async with self.pulse:
            await self.pulse.wait_for(lambda: self.calls.count(method) >= times)

    async def _called(self, method: str) -> None:
        self.calls.append(method)
        self.in_flight[method] += 1
        self.peak[method] = max(self.peak[method], self.in_flight[method])
        try:
            async with self.pulse:
                self.pulse.notify_all()
            if method in self.gates:
                await self.gates[method].wait()
            if self.faults[method]:
                raise self.faults[method].popleft()
        finally:
            self.in_flight[method] -= 1

    def _maybe_lost(self, method: str) -> None:
        if self.lost[method]:
            self.lost[method] -= 1
            raise away(created_nothing=False)
