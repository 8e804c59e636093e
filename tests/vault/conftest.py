"""One OpenBao, set up as an admin would for the Vault tests, and a client of it for each test."""

from collections.abc import AsyncIterator

import pytest_asyncio

from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.openbao import OpenBao
from taskmint.devstack.postgres import Postgres
from taskmint.model.secret import Secret
from taskmint.vault.client import VaultClient
from vault.ground import LOG, Ground, Signer, set_up


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ground(openbao: OpenBao, postgres: Postgres) -> Ground:
    """The session's OpenBao, holding the plan."""
    return await set_up(openbao.address, openbao.root_token, postgres, Signer(), "warehouse")


@pytest_asyncio.fixture
async def client(ground: Ground) -> AsyncIterator[VaultClient]:
    """A client that has logged in and found the plan in place."""
    async with VaultClient(ground.settings(), ground.plan, ground.signer.fetch, LOG) as client:
        assert client.ready() is None
        yield client


@pytest_asyncio.fixture
async def admin(ground: Ground) -> AsyncIterator[BaoHttp]:
    """An administrator's session."""
    async with ground.admin() as session:
        yield session


@pytest_asyncio.fixture
async def daemon(ground: Ground, admin: BaoHttp) -> AsyncIterator[BaoHttp]:
    """A session with a token as the daemon has it, held by somebody who would misuse it."""
    svid = await ground.signer.fetch()
    login = {"role": "taskmint", "jwt": svid.reveal()}
    token = (await admin.call("POST", "auth/jwt/login", login)).body["auth"]["client_token"]
    async with BaoHttp(ground.address, Secret(token)) as session:
        yield session
        await session.send("POST", "auth/token/revoke-self")
