"""
Three OpenBao servers on one Raft, each with a listener of its own; unsealed with one key share.

Like the embedded server they are real ones: initialised, unsealed, never `-dev`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import aiohttp

from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.loopback import HOST, reserved_port
from taskmint.devstack.openbao import bao_binary
from taskmint.devstack.process import Leashed, Program, leashed
from taskmint.model.secret import Secret

CONFIG = """\
disable_mlock = true
api_addr      = "http://{host}:{port}"
cluster_addr  = "http://{host}:{cluster_port}"
storage "raft" {{
  path                   = "{directory}"
  node_id                = "{name}"
  performance_multiplier = 1
{join}
}}
listener "tcp" {{
  address         = "{host}:{port}"
  cluster_address = "{host}:{cluster_port}"
  tls_disable     = true
}}
{more}
"""
_AUTOPILOT = "sys/storage/raft/autopilot/configuration"
JOIN = '  retry_join {{\n    leader_api_addr = "{address}"\n  }}'


@dataclass
class Node:
    """One server of the cluster."""

    name: str
    address: str
    process: Leashed


@dataclass
class Cluster:
    """The servers; `root_token` is an administrator's."""

    nodes: Sequence[Node]
    root_token: Secret[str]

    def admin(self, node: Node) -> BaoHttp:
        """Open a session with the root token to one node."""
        return BaoHttp(node.address, self.root_token)

    async def until_all_vote(self) -> None:
        """Wait until each node may become the leader."""
        async with asyncio.timeout(60), self.admin(self.nodes[0]) as session:
            while True:
                known = (await session.call("GET", "sys/storage/raft/configuration")).data
                if sum(server["voter"] for server in known["config"]["servers"]) == len(self.nodes):
                    return
                await asyncio.sleep(0.1)

    async def leader(self) -> Node:
        """Ask until some node says that it is active."""
        async with asyncio.timeout(30):
            while True:
                for node in self.nodes:
                    if await _health(node.address) == HTTPStatus.OK:
                        return node
                await asyncio.sleep(0.05)

    async def step_down(self) -> Node:
        """Let the leader step down; returns it, when another one leads."""
        former = await self.leader()
        async with self.admin(former) as session:
            await session.send("PUT", "sys/step-down")
        async with asyncio.timeout(30):
            while (await self.leader()) is former:
                await asyncio.sleep(0.05)
        return former


async def _health(address: str) -> int:
    async with BaoHttp(address) as http:
        try:
            return (await http.send("GET", "sys/health")).status
        except (OSError, aiohttp.ClientError):
            return 0


async def _until(address: str, *statuses: int) -> None:
    async with asyncio.timeout(30):
        while await _health(address) not in statuses:
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def running_cluster(directory: Path, size: int = 3, more: str = "") -> AsyncIterator[Cluster]:
    """Start, initialise and unseal a cluster; `more` is added to each configuration."""
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[Node] = []
        key = root = ""
        for number in range(size):
            node = await _start(stack, directory, f"n{number}", nodes[0] if nodes else None, more)
            await _until(node.address, 501, 503)
            async with BaoHttp(node.address) as http:
                if not nodes:
                    shares = {"secret_shares": 1, "secret_threshold": 1}
                    made = (await http.call("PUT", "sys/init", shares)).body
                    key, root = made["keys"][0], made["root_token"]
                await _unseal(http, key)
            await _until(node.address, 200, 429)
            nodes.append(node)
            if number == 0:
                await _until(node.address, 200)
                async with BaoHttp(node.address, Secret(root)) as http:
                    await http.call("POST", _AUTOPILOT, {"server_stabilization_time": "1s"})
        cluster = Cluster(nodes, Secret(root))
        await cluster.until_all_vote()
        yield cluster


async def _unseal(http: BaoHttp, key: str) -> None:
    """Unseal; a node that has not joined yet is asked again."""
    async with asyncio.timeout(30):
        while (await http.send("PUT", "sys/unseal", {"key": key})).body.get("sealed") is not False:
            await asyncio.sleep(0.1)


async def _start(
    stack: contextlib.AsyncExitStack, directory: Path, name: str, leader: Node | None, more: str
) -> Node:
    port = stack.enter_context(reserved_port())
    cluster_port = stack.enter_context(reserved_port())
    storage = directory / name
    text = CONFIG.format(
        host=HOST,
        port=port,
        cluster_port=cluster_port,
        directory=storage,
        name=name,
        join=JOIN.format(address=leader.address) if leader else "",
        more=more,
    )
    config = directory / f"{name}.hcl"
    await asyncio.to_thread(storage.mkdir, 0o700)
    await asyncio.to_thread(config.write_text, text)
    program = Program(
        name=f"OpenBao {name}",
        command=(str(bao_binary()), "server", f"-config={config}"),
        log=directory / f"{name}.log",
        environment={"HOME": str(directory), "GOMEMLIMIT": "128MiB"},
    )
    process = await stack.enter_async_context(leashed(program, directory))
    return Node(name, f"http://{HOST}:{port}", process)
