"""The daemon under a real SPIRE: every door, rotation by force, deletion, federation."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import pytest

from spire.conftest import PARTNERS_ID, World, believe, own_path
from spire.servers import WHY_NOT, installed
from taskmint.client import workload_api as client_api
from taskmint.client.client import TaskmintClient
from taskmint.clock import SystemClock
from taskmint.devstack.stack_files import DAEMON_ID, WORKLOAD_ID
from taskmint.errors import TaskmintError
from taskmint.identity.tls import client_context
from taskmint.identity.workload_api import WorkloadApi

from plugins.canaries import Canaries

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not installed(), reason=WHY_NOT),
    pytest.mark.timeout(180),
]

HEADER: Final = {"X-Taskmint-Request": "true"}
SOON: Final = 40.0  # seconds; an agent hears of the server's news within a few


class TlsConnector(aiohttp.UnixConnector):
    """aiohttp's own ignores `ssl=` and speaks plain text to https:// URLs."""

    def __init__(self, path: str, terms: ssl.SSLContext) -> None:
        super().__init__(path)
        self._terms = terms

    async def _create_connection(self, *_: Any) -> Any:
        _transport, protocol = await asyncio.get_running_loop().create_unix_connection(
            self._factory, self._path, ssl=self._terms, server_hostname="taskmint"
        )
        return protocol


@dataclass
class Caller:
    """This process as a caller, through one of the doors."""

    session: aiohttp.ClientSession
    canaries: Canaries
    authorization: Callable[[], Any]
    scheme: str = "http"

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any]]:
        """Send one request; returns status and body."""
        headers = HEADER | await self.authorization()
        url = f"{self.scheme}://taskmint{path}"
        async with self.session.request(method, url, headers=headers, **more) as reply:
            return reply.status, await reply.json(content_type=None)

    async def start(self, task: str = "spire-report") -> str:
        """Start a task that must be granted; returns its id."""
        status, body = await self.ask("POST", "/v1/tasks", json={"task": task})
        assert status == 201, body
        self.canaries.plant(body["credentials"]["warehouse"]["data"]["password"], task)
        task_id: str = body["id"]
        return task_id

    async def state(self, task_id: str, wait: str = "0s") -> dict[str, Any]:
        """Return the task as its owner sees it."""
        status, body = await self.ask("GET", f"/v1/tasks/{task_id}?wait={wait}")
        assert status == 200, body
        return body

    async def end(self, task_id: str) -> None:
        """End a task, which must be proven."""
        status, body = await self.ask("DELETE", f"/v1/tasks/{task_id}")
        assert (status, body["state"]) == (200, "revoked"), body


async def _nothing() -> dict[str, str]:
    return {}


@asynccontextmanager
async def by_token(
    world: World, canaries: Canaries, endpoint: str | None = None
) -> AsyncIterator[Caller]:
    """Through the JWT door, with a token that this process fetches each time."""
    connector = aiohttp.UnixConnector(str(world.stack.paths.task_socket))
    async with (
        WorkloadApi(endpoint or world.spire.endpoint, SystemClock()) as api,
        aiohttp.ClientSession(connector=connector) as session,
    ):

        async def bearer() -> dict[str, str]:
            token = (await api.fetch_jwt_svid("taskmint")).token.reveal()
            return {"Authorization": f"Bearer {canaries.plant(token, 'SPIRE token')}"}

        async with asyncio.timeout(SOON):
            await api.first_bundles()
        yield Caller(session, canaries, bearer)


@asynccontextmanager
async def by_certificate(world: World, canaries: Canaries) -> AsyncIterator[Caller]:
    """Through the TLS door."""
    async with WorkloadApi(world.spire.endpoint, SystemClock()) as api:
        async with asyncio.timeout(SOON):
            while api.trust.own is None:
                await api.changed(api.version)
        terms = client_context(api.trust.own, api.trust.x509)
        connector = TlsConnector(str(world.stack.paths.task_socket), terms)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Caller(session, canaries, _nothing, "https")


@asynccontextmanager
async def by_delegation(world: World, canaries: Canaries) -> AsyncIterator[Caller]:
    """Through the door without a credential."""
    connector = aiohttp.UnixConnector(str(world.stack.paths.task_socket))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Caller(session, canaries, _nothing)


@pytest.mark.parametrize("door", [by_token, by_certificate, by_delegation])
async def test_a_whole_task_through_every_door(
    world: World, canaries: Canaries, door: Callable[..., Any]
) -> None:
    """JWT-SVID, X.509-SVID, and the agent's own word for a caller that shows nothing."""
    async with door(world, canaries) as caller:
        task = await caller.start()
        assert (await caller.state(task))["state"] == "active"
        await caller.end(task)


@pytest.mark.parametrize("tls", [False, True])
async def test_our_client_speaks_with_the_real_agent(
    world: World, canaries: Canaries, *, tls: bool
) -> None:
    """Its own gRPC reads what SPIRE sends; by mutual TLS it finds the daemon's SPIFFE ID."""
    endpoint = world.spire.endpoint
    svid = client_api.MutualTls(DAEMON_ID, endpoint) if tls else client_api.WorkloadApi(endpoint)
    async with (
        TaskmintClient(str(world.stack.paths.task_socket), svid) as client,
        client.task("spire-report") as task,
    ):
        canaries.plant(task.credentials["warehouse"].data["password"], "a client's password")

    assert task.ended is not None
    assert task.ended.state == "revoked"


async def test_an_agent_killed_in_mid_task_ends_nothing(world: World, canaries: Canaries) -> None:
    """The task goes on without it; after its return callers are proven within 6 s."""
    async with by_token(world, canaries) as caller:
        task = await caller.start()
        await world.spire.kill_agent()
        await asyncio.sleep(2)
        await world.spire.start_agent()
        async with asyncio.timeout(6):
            while True:
                try:
                    assert (await caller.state(task))["state"] == "active"
                    break
                except (AssertionError, TaskmintError):
                    await asyncio.sleep(0.2)
        await caller.end(task)


async def test_a_jwt_authority_rotated_by_force_ends_what_rests_on_it(
    world: World, canaries: Canaries
) -> None:
    """P4: prepared, activated, tainted, revoked; the old token and its task are gone."""
    async with by_token(world, canaries) as caller:
        task = await caller.start()
        await world.spire.rotate("jwt")
        await believe(world.stack, world.spire)
        ended = await eventually(caller, task, "revoked")
        assert ended["end_cause"] == "identity_withdrawn"
        await until_proven(caller)
        await caller.end(await caller.start())


async def until_proven(caller: Caller) -> None:
    """Wait until the agent gives out what its server now signs: until then 401 is right."""
    async with asyncio.timeout(SOON):
        while (await caller.ask("GET", "/v1/tasks/tm_none"))[0] != 404:
            await asyncio.sleep(0.5)


async def eventually(caller: Caller, task: str, state: str) -> dict[str, Any]:
    """Wait until the task is in a state; while identities move, refusals are waited out."""
    async with asyncio.timeout(SOON):
        while True:
            status, body = await caller.ask("GET", f"/v1/tasks/{task}?wait=2s")
            if status == 200 and body["state"] == state:
                return body
            await asyncio.sleep(0.2)


async def test_an_x509_authority_rotated_by_force_closes_its_door(
    world: World, canaries: Canaries
) -> None:
    """A connection under the old authority proves nobody any more; a new one does."""
    async with by_certificate(world, canaries) as caller:
        task = await caller.start()
        await world.spire.rotate("x509")
        async with asyncio.timeout(SOON):
            while (await caller.ask("GET", f"/v1/tasks/{task}"))[0] == 200:
                await asyncio.sleep(0.2)
    async with asyncio.timeout(SOON):
        while True:
            try:
                async with by_certificate(world, canaries) as again:
                    await again.end(await again.start())
                break
            except (aiohttp.ClientError, ssl.SSLError):
                await asyncio.sleep(0.5)


async def test_two_federated_domains_speak_for_themselves(world: World, canaries: Canaries) -> None:
    """A workload of the partner's, known by the partner's agent, has a task of its own here."""
    async with by_token(world, canaries, world.partner.endpoint) as caller:
        task = await caller.start()
        async with by_token(world, canaries) as other:
            status, _ = await other.ask("GET", f"/v1/tasks/{task}")
            assert status == 404
        await caller.end(task)
    assert PARTNERS_ID != WORKLOAD_ID


async def test_a_deleted_entry_is_seen_by_reproof_and_by_delegation(
    world: World, canaries: Canaries
) -> None:
    """P4: delegated callers lose their tasks at once, others when they fail to re-prove."""
    async with by_delegation(world, canaries) as shown, by_token(world, canaries) as caller:
        delegated = await shown.start()
        proving = await caller.start("spire-proving")
        await world.spire.delete(world.entry)
        causes = await causes_of_ends(world, {delegated, proving})
        assert causes == {delegated: "identity_withdrawn", proving: "reprove_missed"}
        await world.spire.register(WORKLOAD_ID, own_path())


async def causes_of_ends(world: World, tasks: set[str]) -> dict[str, str]:
    """Read from the daemon's log why these tasks ended: their owner has no identity to ask with."""
    async with asyncio.timeout(SOON):
        while True:
            found = {}
            for line in world.daemon.log.read_text().splitlines():
                for task in tasks:
                    for cause in ("identity_withdrawn", "reprove_missed"):
                        if task in line and cause in line:
                            found[task] = cause
            if found.keys() == tasks:
                return found
            await asyncio.sleep(0.5)
