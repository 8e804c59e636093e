"""What must outlive every restart: a database session, and tasks that end when they are let go."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp

from restarts.callers import Caller
from taskmint.devstack.process import put_an_end_to
from taskmint.devstack.psql import libpq_environment, postgres_binaries
from taskmint.model.secret import Secret

ANSWER_SECONDS: Final = 20.0
WHO: Final = "SELECT pg_backend_pid(), current_user, count(*) > 0 FROM orders;\n"


@dataclass
class Session:
    """One psql that stays connected; `who` asks the server who we are and reads the orders."""

    client: asyncio.subprocess.Process

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, dsn: Secret[str]) -> AsyncIterator[Self]:
        """Log in once, for as long as the context lasts."""
        client = await asyncio.create_subprocess_exec(
            *(str(postgres_binaries() / "psql"), "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=libpq_environment(dsn) | {"LC_ALL": "C"},
        )
        try:
            yield cls(client)
        finally:
            await put_an_end_to(client)

    async def who(self) -> str:
        """Return the session's backend, its user, and whether it still reads its table."""
        if self.client.stdin is None or self.client.stdout is None:
            raise AssertionError("psql has no pipes")
        self.client.stdin.write(WHO.encode())
        async with asyncio.timeout(ANSWER_SECONDS):
            return (await self.client.stdout.readline()).decode().strip()


@dataclass
class Follower:
    """Holds a task's event stream open, and comes back whenever it is closed."""

    caller: Caller
    task_id: str
    streams: int = 0
    told: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def follow(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._one_stream()
            except (aiohttp.ClientError, OSError) as error:
                self.failures.append(f"events: {type(error).__name__}: {error}")
            await asyncio.sleep(0.05)

    async def _one_stream(self) -> None:
        headers = await self.caller.headers()
        url = f"http://taskmint/v1/tasks/{self.task_id}/events"
        endless = aiohttp.ClientTimeout(total=None)
        async with self.caller.session.get(url, headers=headers, timeout=endless) as reply:
            if reply.status != 200:
                self.failures.append(f"events: {reply.status}")
                return
            self.streams += 1
            async for line in reply.content:
                if line.startswith(b"event:"):
                    self.told.append(line.decode().strip())


async def states(caller: Caller, *tasks: dict[str, Any]) -> list[str]:
    """Ask for the state of each task."""
    answers = [await caller.ask("GET", f"/v1/tasks/{task['id']}", 200) for task in tasks]
    return [answer["state"] for answer in answers]
