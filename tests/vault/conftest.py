"""One OpenBao, set up as an admin would for the Vault tests, and a client of it for each test."""

from collections.abc import AsyncIterator

import pytest_asyncio

from taskmint.devstack.openbao import OpenBao
from taskmint.devstack.postgres import Postgres
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
