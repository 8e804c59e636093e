"""
Fixtures for the real servers, started once per session and only when a test asks for them.

A plugin: conftest.py names it in `pytest_plugins`.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from taskmint.devstack.openbao import OpenBao
from taskmint.devstack.postgres import Postgres


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def openbao(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OpenBao]:
    """An OpenBao that the whole session shares: initialised, unsealed, audited, otherwise empty."""
    async with OpenBao.running(tmp_path_factory.mktemp("openbao")) as bao:
        yield bao


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    """A PostgreSQL that the whole session shares, with the orders database."""
    async with Postgres.running(tmp_path_factory.mktemp("postgres")) as running:
        yield running
