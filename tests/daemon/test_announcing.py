"""READY=1 when a task can start, and only then; afterwards the status line says what is missing."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest
import structlog

from taskmint.daemon.announcing import Announcer
from taskmint.telemetry.systemd import Systemd

WAIT_SECONDS = 5


class Manager:
    """A service manager: its socket, and the components' reasons, which the test changes."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self.reasons: dict[str, str | None] = {"vault": "sealed", "ledger": None}
        self.announcer = Announcer(
            Systemd(server.getsockname()),
            {name: partial(self.reasons.__getitem__, name) for name in self.reasons},
            structlog.stdlib.get_logger(),
        )

    async def told(self) -> list[str]:
        """The lines of the next message."""
        async with asyncio.timeout(WAIT_SECONDS):
            return (
                (await asyncio.get_running_loop().sock_recv(self._server, 4096))
                .decode()
                .split("\n")
            )

    def silent(self) -> bool:
        """Whether nothing has been said."""
        try:
            self._server.recv(4096)
        except BlockingIOError:
            return True
        return False

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """The announcer at work."""
        following = asyncio.create_task(self.announcer.follow("node-a"))
        yield
        following.cancel()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A manager that listens."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(str(tmp_path / "notify"))
        server.setblocking(False)
        yield Manager(server)


async def test_ready_means_that_a_task_can_start(manager: Manager) -> None:
    """While Vault is sealed it waits, and says for what; then READY=1, once."""
    async with manager.following():
        assert await manager.told() == ["STATUS=waiting for vault: sealed"]
        manager.reasons["vault"] = "away"
        assert await manager.told() == ["STATUS=waiting for vault: away"]
        manager.reasons["vault"] = None

        assert await manager.told() == ["READY=1", "STATUS=ready"]


async def test_what_is_missing_later_is_said(manager: Manager) -> None:
    """The service stays up, for revocation goes on; the line says why it takes no new task."""
    manager.reasons["vault"] = None
    async with manager.following():
        await manager.told()
        manager.reasons["ledger"] = "database or disk is full"
        assert await manager.told() == [
            "STATUS=refuses new tasks: ledger: database or disk is full"
        ]
        manager.reasons["ledger"] = None

        assert await manager.told() == ["STATUS=ready"]


async def test_a_reload_is_bracketed_and_a_refused_one_stays_visible(manager: Manager) -> None:
    """RELOADING=1 … READY=1; what was refused stands in the line until a reload succeeds."""
    manager.reasons["vault"] = None
    async with manager.following():
        await manager.told()
        manager.announcer.reloading()
        manager.announcer.reloaded("a policy was refused")
        assert (await manager.told())[0] == "RELOADING=1"
        assert await manager.told() == ["READY=1", "STATUS=ready; a policy was refused"]
        manager.announcer.reloading()
        manager.announcer.reloaded()
        assert (await manager.told())[0] == "RELOADING=1"

        assert await manager.told() == ["READY=1", "STATUS=ready"]


async def test_a_reload_before_the_start_is_over_announces_no_readiness(manager: Manager) -> None:
    """SIGHUP to a daemon that waits for Vault must not make its start look finished."""
    manager.announcer.reloading()
    manager.announcer.reloaded()

    assert manager.silent()


async def test_a_manager_that_is_gone_is_no_end() -> None:
    """The daemon goes on without somebody to tell."""
    announcer = Announcer(
        Systemd("/nonexistent/notify"), {"vault": lambda: None}, structlog.stdlib.get_logger()
    )
    announcer.stopping()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await announcer.follow("node-a")
