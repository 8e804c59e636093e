"""A leader that steps down in mid-mint: nothing is lost, nothing is left (issue: a good client)."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from taskmint.devstack.postgres import Postgres
from taskmint.errors import BackendFailed, Code, Unavailable
from taskmint.ports import Revocable
from taskmint.vault.client import VaultClient
from vault.cluster import running_cluster
from vault.ground import LOG, Ground, Signer, set_up, token_request

pytestmark = [pytest.mark.real, pytest.mark.timeout(150)]

MOUNT = "raft"


@dataclass
class Work:
    """Starts and ends tasks, one after the other; keeps what it was given and what it was told."""

    client: VaultClient
    ground: Ground
    held: list[Revocable] = field(default_factory=list)
    failures: list[Unavailable | BackendFailed] = field(default_factory=list)
    done: int = 0

    async def until(self, stop: asyncio.Event) -> None:
        """One task after the other, the last one finished."""
        while not stop.is_set():
            await self._task()

    async def _task(self) -> None:
        try:
            token = await self.client.create_task_token(token_request())
            self.held.append(token.revocable)
            minted = await self.client.mint(token, self.ground.warehouse())
            assert minted.revocable is not None
            self.held.append(minted.revocable)
            self.done += 1
        except (Unavailable, BackendFailed) as error:
            self.failures.append(error)
            await asyncio.sleep(0.05)

    async def take_back(self) -> None:
        """Revoke until each is proven gone, as the task side does."""
        for revocable in reversed(self.held):
            async with asyncio.timeout(60):
                while not await self._gone(revocable):
                    await asyncio.sleep(0.1)

    async def _gone(self, revocable: Revocable) -> bool:
        with contextlib.suppress(Unavailable, BackendFailed):
            await self.client.revoke(revocable)
            return await self.client.is_gone(revocable)
        return False


async def test_a_leader_steps_down_in_mid_mint(tmp_path: Path, postgres: Postgres) -> None:
    """
    One client at the leader, one at a follower, both minting while the leader steps down.

    Every failure says honestly whether something may have been made; afterwards both go on, and
    when all is taken back, the server knows no lease of the mount.
    """
    async with running_cluster(tmp_path) as cluster, contextlib.AsyncExitStack() as stack:
        leader = await cluster.leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        ground = await set_up(leader.address, cluster.root_token, postgres, Signer(), MOUNT)
        works = []
        for node in (leader, follower):
            settings = ground.settings(address=node.address)
            client = VaultClient(settings, ground.plan, ground.signer.fetch, LOG)
            works.append(Work(await stack.enter_async_context(client), ground))
        stop = asyncio.Event()
        minting = [asyncio.create_task(work.until(stop)) for work in works for _ in range(2)]
        await minted(works, 3)
        await cluster.step_down()
        await minted(works, 3)
        stop.set()
        await asyncio.gather(*minting)
        await asyncio.gather(*(work.take_back() for work in works))
        codes = {error.code for work in works for error in work.failures}
        assert codes <= {Code.VAULT_UNAVAILABLE, Code.VAULT_ERROR}
        async with cluster.admin(await cluster.leader()) as admin:
            path = f"sys/leases/lookup/{MOUNT}/creds/orders-ro-eu?list=true"
            async with asyncio.timeout(30):
                while (await admin.send("GET", path)).status != 404:
                    await asyncio.sleep(0.2)


async def minted(works: list[Work], more: int) -> None:
    """Wait until each has minted so many more."""
    wanted = [work.done + more for work in works]
    async with asyncio.timeout(60):
        while any(work.done < least for work, least in zip(works, wanted, strict=True)):
            await asyncio.sleep(0.05)
