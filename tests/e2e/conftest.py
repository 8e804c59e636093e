"""One stack for all end-to-end tests, audited before and after."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from taskmint.devstack.daemon_process import Daemon
from taskmint.devstack.stack import Stack

from auditor import Auditor
from e2e.ground import Workload, lay_ground
from plugins.canaries import Canaries
from stack import DEAD_MAN, audited


@dataclass(frozen=True)
class Ground:
    """The stack with the tests' definitions, and who audits it."""

    stack: Stack
    auditor: Auditor


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ground(canaries: Canaries) -> AsyncIterator[Ground]:
    """Nothing that these tests make may be left when they are over (P1, P8)."""
    async with Stack.running(dead_man=DEAD_MAN) as running:
        await lay_ground(running)
        async with audited(running, canaries) as auditor:
            yield Ground(running, auditor)


@pytest.fixture(scope="session")
def stack(ground: Ground) -> Stack:
    """The stack alone."""
    return ground.stack


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def daemon(stack: Stack) -> AsyncIterator[Daemon]:
    """One daemon for a module's tests, when it says `usefixtures("daemon")`."""
    async with stack.daemon() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def workload(ground: Ground, canaries: Canaries) -> AsyncIterator[Workload]:
    """A caller with an identity."""
    async with Workload.of(ground.stack, canaries) as running:
        yield running
