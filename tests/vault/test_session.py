"""The daemon's own token: renewed or replaced, one login at a time, given back at the end."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from taskmint.errors import Code, Unavailable
from taskmint.model.secret import Secret
from taskmint.vault.http import Transport
from taskmint.vault.login import Granted
from taskmint.vault.session import OwnSession
from taskmint.vault.settings import VaultSettings
from vault.fake_server import FakeVaultServer
from vault.ground import LOG, POLICY, plan_from, until

PLAN = plan_from(POLICY.replace("MOUNT", "warehouse"))


@pytest.fixture
async def server() -> AsyncIterator[FakeVaultServer]:
    """A server of the test's own."""
    async with FakeVaultServer(PLAN).running() as running:
        yield running


@dataclass
class Logins:
    """A way to log in that hands out tokens of the server, or fails as often as it is told."""

    server: FakeVaultServer
    granted: Granted
    failures: int = 0
    made: list[str] = field(default_factory=list)
    slow: asyncio.Event | None = None

    async def __call__(self) -> Granted:
        if self.slow is not None:
            await self.slow.wait()
        if self.failures:
            self.failures -= 1
            raise Unavailable(Code.VAULT_UNAVAILABLE, "away", created_nothing=True)
        token = f"own-{len(self.made)}"
        self.made.append(token)
        self.server.tokens[f"accessor-of-{token}"] = token
        given = self.granted
        return Granted(Secret(token), given.life, given.renewable, given.ours)


def session(logins: Logins, transport: Transport) -> OwnSession:
    """A session that logs in this way."""
    return OwnSession(transport, logins, PLAN.permits_daemon, LOG)


def transport(server: FakeVaultServer) -> Transport:
    """A way to the server."""
    return Transport(VaultSettings(server.address, timeout=timedelta(seconds=1)))


async def _made(logins: Logins, count: int) -> bool:
    return len(logins.made) >= count


async def test_a_token_that_cannot_be_renewed_is_replaced(server: FakeVaultServer) -> None:
    """At a third of its life; the one before is revoked, and the last one at the end."""
    logins = Logins(server, Granted(Secret(""), 0.6, renewable=False))
    async with transport(server) as way, session(logins, way):
        await until(lambda: _made(logins, 3))
        assert server.count("auth/token/renew-self") == 0
        assert len(server.tokens) <= 2
    assert server.tokens == {}


async def test_a_token_that_is_not_ours_is_left_alone(server: FakeVaultServer) -> None:
    """A token from a file: replaced by what the file holds then, never revoked by us."""
    logins = Logins(server, Granted(Secret(""), 0.6, renewable=False, ours=False))
    async with transport(server) as way, session(logins, way):
        await until(lambda: _made(logins, 2))
    assert len(server.tokens) == len(logins.made)
    assert server.count("auth/token/revoke-self") == 0


async def test_logging_in_is_tried_until_it_works(server: FakeVaultServer) -> None:
    """With pauses that grow; until then the reason is told, and asking fails at once with it."""
    logins = Logins(server, Granted(Secret(""), 60), failures=3)
    async with transport(server) as way, session(logins, way) as own:
        with pytest.raises(Unavailable, match="away"):
            await own.door()
        assert own.ready() == "away"
        await until(lambda: _made(logins, 1))
        assert own.ready() is None


async def test_one_login_at_a_time(server: FakeVaultServer) -> None:
    """However many ask while it is on its way."""
    logins = Logins(server, Granted(Secret(""), 60), slow=asyncio.Event())
    async with transport(server) as way, session(logins, way) as own:
        asking = [asyncio.create_task(own.door()) for _ in range(20)]
        await asyncio.sleep(0)
        assert logins.slow is not None
        logins.slow.set()
        doors = await asyncio.gather(*asking)
    assert len(logins.made) == 1
    assert len({id(door) for door in doors}) == 1


async def test_an_expired_token_is_not_used(server: FakeVaultServer) -> None:
    """When renewing failed for a whole life, the next call logs in first."""
    logins = Logins(server, Granted(Secret(""), 0.3, renewable=False))
    async with transport(server) as way, session(logins, way) as own:
        first = await own.door()
        logins.failures = 10_000
        await until(lambda: _not_ready(own))
        with pytest.raises(Unavailable):
            await own.door()
        logins.failures = 0
        assert await own.door() is not first


async def _not_ready(own: OwnSession) -> bool:
    return own.ready() is not None


async def test_a_closed_way_says_that_we_stop(server: FakeVaultServer) -> None:
    """Not a crash: whoever still asks during the stop is told so."""
    way = transport(server)
    async with way:
        pass
    with pytest.raises(Unavailable) as closed:
        await way.send("GET", "sys/health", None, None)
    assert (closed.value.code, closed.value.created_nothing) == (Code.SHUTTING_DOWN, True)
