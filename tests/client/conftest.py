"""A fake agent and a fake daemon for the client's tests; the real ones are in tests/end_to_end."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from fakes.spiffe_agent import FakeAgent
from fakes.task_socket import FakeDaemon
from plugins.canaries import Canaries


@pytest_asyncio.fixture
async def agent(tmp_path: Path) -> AsyncIterator[FakeAgent]:
    """A Workload API of this test alone."""
    async with FakeAgent(tmp_path / "agent.sock").serving() as serving:
        yield serving


@pytest_asyncio.fixture
async def daemon(tmp_path: Path, canaries: Canaries) -> AsyncIterator[FakeDaemon]:
    """A task socket of this test alone; it gives `warehouse` with a planted password."""
    fake = FakeDaemon(tmp_path / "task.sock")
    password = canaries.plant(secrets.token_urlsafe(24), "a password of the fake daemon")
    fake.credentials = {"warehouse": {"username": "v-orders", "password": password, "port": 5432}}
    async with fake.serving():
        yield fake
