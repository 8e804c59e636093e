"""
Watches PostgreSQL's own list of accounts, with the superuser's eyes: when can who no longer log in?

It knows the names that tasks' accounts have and nothing of any ledger. A role that is gone, may not
log in, or is past its VALID UNTIL counts as gone.
"""

import asyncio
import time
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass, field

from taskmint.devstack.postgres import Postgres
from taskmint.devstack.process import put_an_end_to
from taskmint.devstack.psql import libpq_environment, postgres_binaries

from torture.nodes import Node

LOOK_SECONDS = 0.1
ACCOUNTS = """
SELECT rolname FROM pg_authid WHERE rolname LIKE 'taskmint-%' AND rolcanlogin
  AND (rolvaliduntil IS NULL OR rolvaliduntil > clock_timestamp());
\\echo .
"""


@dataclass
class Account:
    """One account: when it was first seen, and since when it should be on its way out."""

    node: str
    ulid: str
    seen: float
    due: float | None = None
    why: str = ""


@dataclass
class Accounts:
    """`gone` are the seconds from an end, or from a kill, until nobody could log in any more."""

    postgres: Postgres
    nodes: list[Node]
    gone: dict[str, list[float]] = field(default_factory=lambda: {"ended": [], "killed": []})
    there: dict[str, Account] = field(default_factory=dict)

    async def watch(self) -> None:
        """Look until cancelled; a database that is away lets nobody in, and is asked again."""
        while True:
            client = await asyncio.create_subprocess_exec(
                *(str(postgres_binaries() / "psql"), "-X", "-q", "-At"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env=libpq_environment(self.postgres.superuser_dsn())
                | {"LC_ALL": "C", "PGAPPNAME": "taskmint-auditor"},
            )
            try:
                await self._look_through(client)
            finally:
                await put_an_end_to(client)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_through(self, client: asyncio.subprocess.Process) -> None:
        assert client.stdin is not None
        assert client.stdout is not None
        while True:
            try:
                client.stdin.write(ACCOUNTS.encode())
                await client.stdin.drain()
            except ConnectionError:
                return
            names = []
            while (line := (await client.stdout.readline()).decode()) != ".\n":
                if not line:
                    return
                names.append(line.strip())
            self.looked(names, time.monotonic())
            await asyncio.sleep(LOOK_SECONDS)

    def looked(self, names: list[str], now: float) -> None:
        """Compare what there is with what there was."""
        for name in names:
            if name not in self.there:
                _, node, ulid, _ = name.split("-")
                self.there[name] = Account(node, ulid, now)
        by_name = {node.name: node for node in self.nodes}
        present = set(names)
        for name, account in tuple(self.there.items()):
            if account.due is None:
                account.due, account.why = _due(account, by_name[account.node])
            if name not in present:
                del self.there[name]
                if account.due is not None:
                    self.gone[account.why].append(now - account.due)

    def end_all_of(self, node: Node) -> None:
        """The kill switch is pulled: whatever is left of a node is on its way out since now."""
        now = time.monotonic()
        for account in self.there.values():
            if account.node == node.name:
                account.due, account.why = now, "ended"


def _due(account: Account, node: Node) -> tuple[float | None, str]:
    """An end that was asked for; or the kill of a daemon before anybody was told of the task."""
    if account.ulid in node.ends:
        return node.ends[account.ulid], "ended"
    if f"tm_{account.ulid}" in node.told:
        return None, ""
    after = [moment for moment in node.killed_at if moment >= account.seen]
    return (after[0], "killed") if after else (None, "")


def percentiles(values: list[float]) -> tuple[float, float, float]:
    """Return the median, the 99th percentile and the maximum; zeros of nothing."""
    if not values:
        return 0.0, 0.0, 0.0
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[last // 2], ordered[int(last * 0.99)], ordered[-1]
