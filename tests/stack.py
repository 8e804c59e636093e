"""
Fixtures for the real servers, started once per session and only when a test asks for them.

A plugin: conftest.py names it in `pytest_plugins`. `openbao` and `postgres` are bare servers;
`stack` is everything, set up as an admin would, with a short dead-man interval. `auditor` looks at
the stack without knowing anything of ours, and at the end of the session nothing may be left.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import pytest_asyncio

from taskmint.devstack.openbao import OpenBao
from taskmint.devstack.postgres import Postgres
from taskmint.devstack.psql import libpq_environment, postgres_binaries
from taskmint.devstack.stack import Stack

from auditor import Auditor, Inventory, difference
from plugins.canaries import Canaries

DEAD_MAN = timedelta(seconds=10)
SETTLE_SECONDS = DEAD_MAN.total_seconds() + 20

# What the stack and its daemons write in clear; storage is the servers' own.
WRITTEN = ("*.log", "*.yaml", "state", "agent/*.json", "agent/*.log", "*/server.log", "*/audit.log")
# The daemon logs in with a token of its own, which lives on for a while after a SIGKILL.
LOGIN = "auth/jwt/login"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def openbao(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries
) -> AsyncIterator[OpenBao]:
    """An OpenBao that the whole session shares: initialised, unsealed, audited, otherwise empty."""
    async with OpenBao.running(tmp_path_factory.mktemp("openbao")) as bao:
        canaries.plant(bao.root_token.reveal(), "root token")
        yield bao


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries
) -> AsyncIterator[Postgres]:
    """A PostgreSQL that the whole session shares, with the orders database."""
    async with Postgres.running(tmp_path_factory.mktemp("postgres")) as running:
        canaries.plant(running.vault_password.reveal(), "Vault's password in PostgreSQL")
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(canaries: Canaries) -> AsyncIterator[Stack]:
    """The embedded stack, shared by the whole session; its daemons are the tests' own."""
    async with Stack.running(dead_man=DEAD_MAN) as running, audited(running, canaries):
        yield running


@asynccontextmanager
async def audited(stack: Stack, canaries: Canaries) -> AsyncIterator[Auditor]:
    """
    Look at a stack before and after.

    Everything that tests made in it must be gone, at most the dead-man interval later, and none
    of its secrets may stand in anything that it wrote.
    """
    canaries.plant(stack.bao.root_token.reveal(), "the stack's root token")
    canaries.plant(stack.postgres.vault_password.reveal(), "Vault's password in PostgreSQL")
    look = auditor_of(stack)
    before = await asyncio.to_thread(look.inventory)

    yield look

    left = await asyncio.to_thread(wait_until_nothing_is_left, look, before)
    standing = await run_standing(stack)
    for pattern in WRITTEN:
        for path in stack.paths.directory.glob(pattern):
            canaries.search(path)
    assert left == []
    assert standing == (0, "")


async def run_standing(stack: Stack) -> tuple[int, str]:
    """Ask `taskmint vault standing`, as an operator does: its exit code and what it reports."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", "vault", "standing"),
        *("--token-file", str(stack.paths.root_token)),
        env={"PATH": os.environ["PATH"], **stack.environment(), "TASKMINT_ADMIN_SOCKET": ""},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@pytest.fixture(scope="session")
def auditor(stack: Stack) -> Auditor:
    """An administrator's independent look at the stack; its methods block."""
    return auditor_of(stack)


def auditor_of(stack: Stack) -> Auditor:
    """Give the auditor the root token and the superuser's login."""
    return Auditor(
        address=stack.bao.address,
        token=stack.bao.root_token.reveal(),
        libpq=libpq_environment(stack.postgres.superuser_dsn()),
        psql=postgres_binaries() / "psql",
    )


def wait_until_nothing_is_left(auditor: Auditor, before: Inventory) -> list[str]:
    """Return what is still different after the dead-man interval; at once when nothing is."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        lines = [line for line in difference(before, auditor.inventory()) if LOGIN not in line]
        if not lines or time.monotonic() > deadline:
            return lines
        time.sleep(0.2)
