"""
The daemon's own Vault token: a way to log in in, a short token in memory out, kept while we live.

Logging in again is always possible, because what it takes is fetched anew for each login
(login.py); one login runs at a time, however many ask.
"""

import asyncio
import contextlib
import random
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

import structlog
from hvac.api.auth_methods import Token as TokenApi

from taskmint.errors import BackendFailed, TaskmintError, Unavailable

from .http import Door, Permits, Transport
from .login import LogIn
from .responses import Meaning, Reply, failure

_LONGEST_PAUSE: Final = 30.0
_GOODBYE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Held:
    """A token; `life` is what the server granted last, `until` is on the loop's clock."""

    door: Door
    life: float
    until: float
    renewable: bool
    ours: bool


class OwnSession:
    """
    Holds the token: `async with` starts the renewal and ends with revoking the token.

    Renewed at a third of its life, retried at a twelfth; when a renewal no longer gives the whole
    life, because the server's own maximum nears, or when the server does not know the token any
    more, a new login replaces it.
    """

    def __init__(
        self,
        transport: Transport,
        log_in: LogIn,
        permits: Permits,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._transport = transport
        self._log_in = log_in
        self._permits = permits
        self._log = log
        self._held: _Held | None = None
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._problem: str | None = "not logged in to Vault yet"

    async def __aenter__(self) -> Self:
        """Start keeping a token; the first login happens in the background or on first use."""
        self._keeper = asyncio.create_task(self._keep(), name="vault-session")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and revoke the token: between runs nothing stands."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        held, self._held = self._held, None
        if held is not None:
            await self._goodbye(held)

    async def door(self) -> Door:
        """Return the way to Vault with the daemon's own token. Raises Unavailable."""
        held = self._held
        if held is not None and asyncio.get_running_loop().time() < held.until:
            return held.door
        return (await self._login_once(held)).door

    def ready(self) -> str | None:
        """None while a token is held that has not expired, else why there is none."""
        held = self._held
        if held is not None and asyncio.get_running_loop().time() < held.until:
            return None
        return self._problem or "the daemon's own Vault token has expired"

    async def replaced(self, door: Door) -> bool:
        """
        Find out, after a 403, whether the token itself is dead; then log in again.

        True means that the call may be made again, with `door()`: it created nothing.
        """
        held = self._held
        if held is None or held.door is not door:
            return True
        reply: Reply = await TokenApi(door).lookup_self()
        if reply.meaning is not Meaning.DENIED:
            return False
        await self._login_once(held)
        return True

    async def _login_once(self, stale: _Held | None) -> _Held:
        """Log in, unless somebody did since `stale` was held. Raises Unavailable."""
        async with self._lock:
            held = self._held
            if held is not None and held is not stale:
                return held
            try:
                self._held = await self._fresh()
            except TaskmintError as error:
                self._problem = error.detail
                raise
            self._problem = None
            self._wake.set()
            return self._held

    async def _fresh(self) -> _Held:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        made = await self._log_in()
        self._log.info("vault_login", life_seconds=made.life)
        door = Door(self._transport, made.token, self._permits)
        return _Held(door, made.life, asked_at + made.life, made.renewable, made.ours)

    async def _keep(self) -> None:
        """Have a token at all times; every failure is waited out, with jitter."""
        pause = 0.25
        while True:
            held = self._held
            try:
                if held is None:
                    held = await self._login_once(None)
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._until_renewal(held)):
                        await self._wake.wait()
                if self._held is held:
                    await self._renew(held)
                pause = 0.25
            except (Unavailable, BackendFailed) as error:
                self._problem = error.detail
                self._log.warning("vault_session_failed", code=error.code, problem=error.detail)
                longest = _LONGEST_PAUSE if held is None else held.life / 12
                await asyncio.sleep(min(pause, longest) * (0.5 + random.random()))  # noqa: S311 - jitter
                pause *= 2

    def _until_renewal(self, held: _Held) -> float:
        """A third of the life after it was granted; at once when that is past."""
        left = held.until - asyncio.get_running_loop().time()
        return max(left - held.life * 2 / 3, 0.0)

    async def _renew(self, held: _Held) -> None:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        if asked_at >= held.until or not held.renewable:
            await self._login_once(held)
            await self._goodbye(held)
            return
        reply: Reply = await TokenApi(held.door).renew_self()
        life = reply.part("auth").get("lease_duration")
        if reply.meaning is Meaning.DENIED:
            await self._login_once(held)
            return
        if reply.meaning is not Meaning.DONE or not isinstance(life, int):
            raise failure(reply, "renewing the daemon's own token")
        if life < held.life * 0.9:
            self._held = replace(held, until=asked_at + life)
            await self._login_once(self._held)
            await self._goodbye(held)
            return
        self._problem = None
        self._held = replace(held, until=asked_at + life)

    async def _goodbye(self, held: _Held) -> None:
        """Revoke a token of ours; when that fails it ends by its own short life."""
        if not held.ours:
            return
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await TokenApi(held.door).revoke_self()
        except (Unavailable, BackendFailed, TimeoutError):
            self._log.warning("vault_own_token_left", expires_in_seconds=held.life)
