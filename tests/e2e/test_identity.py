"""The doors to the task socket on the real daemon, and what a rotation does to live tasks."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from taskmint.clock import SystemClock
from taskmint.devstack.stack import Stack
from taskmint.identity.tls import client_context, verified_chain
from taskmint.identity.workload_api import WorkloadApi
from taskmint.identity.x509_svid import X509Svid, verify_x509_svid

from e2e.ground import Workload

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("daemon")]

REPORT = {"task": "e2e-report", "parameters": {"region": "eu"}}


class TlsConnector(aiohttp.UnixConnector):
    """aiohttp's own ignores `ssl=` and speaks plain text to https:// URLs."""

    def __init__(self, path: str, context: ssl.SSLContext) -> None:
        super().__init__(path, force_close=False)
        self._terms = context
        self.transports: list[asyncio.Transport] = []

    async def _create_connection(self, *_: Any) -> Any:
        transport, protocol = await asyncio.get_running_loop().create_unix_connection(
            self._factory, self._path, ssl=self._terms, server_hostname="taskmint"
        )
        self.transports.append(transport)
        return protocol


@asynccontextmanager
async def by_certificate(
    stack: Stack,
) -> AsyncIterator[tuple[aiohttp.ClientSession, TlsConnector, WorkloadApi]]:
    """A caller that has its X.509-SVID and no token."""
    async with WorkloadApi(stack.workload_api.endpoint, SystemClock()) as api:
        async with asyncio.timeout(10):
            while api.trust.own is None:
                await api.changed(api.version)
        connector = TlsConnector(
            str(stack.paths.task_socket), client_context(api.trust.own, api.trust.x509)
        )
        headers = {"X-Taskmint-Request": "true"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            yield session, connector, api


def daemons_identity(transport: asyncio.Transport, api: WorkloadApi) -> X509Svid:
    """Verify the daemon's certificate as a careful client does."""
    chain = verified_chain(transport.get_extra_info("ssl_object"))
    now = SystemClock().utcnow()
    return verify_x509_svid(chain, api.trust.x509, now, ExtendedKeyUsageOID.SERVER_AUTH)


async def test_a_whole_task_by_mutual_tls(stack: Stack, canaries: Any) -> None:
    """Start, look and end with a certificate alone; the daemon proves itself in return."""
    async with by_certificate(stack) as (session, connector, api):
        async with session.post("https://taskmint/v1/tasks", json=REPORT) as reply:
            task = await reply.json()
            assert reply.status == 201, task
        canaries.plant(task["credentials"]["warehouse"]["data"]["password"], "mTLS password")
        url = f"https://taskmint/v1/tasks/{task['id']}"
        async with session.get(url) as reply:
            assert (await reply.json())["state"] == "active"
        async with session.delete(url) as reply:
            assert (reply.status, (await reply.json())["state"]) == (200, "revoked")

        assert len(connector.transports) == 1
        assert str(daemons_identity(connector.transports[0], api).spiffe_id).endswith("taskmint")


async def test_p4_a_retired_signing_key_ends_the_tasks_that_rest_on_it(
    stack: Stack, workload: Workload
) -> None:
    """P4: withdrawn at the agent, ended at the daemon within a second; a new token works."""
    task = await workload.start()
    await stack.workload_api.rotate_jwt(retire=True)
    withdrawn = asyncio.get_running_loop().time()
    async with asyncio.timeout(10):
        while True:
            reply = await workload.ask("GET", f"/v1/tasks/{task['id']}?wait=5s")
            # The new token may arrive before the news of its key: 401 until the daemon has heard.
            assert reply.status in {200, 401}, reply.body
            if reply.body.get("state") == "revoked":
                break
    assert reply.body["end_cause"] == "identity_withdrawn"
    assert asyncio.get_running_loop().time() - withdrawn < 5
    fresh = await workload.start()
    await workload.end(fresh)


async def test_a_rotation_that_keeps_the_old_key_ends_nothing(
    stack: Stack, workload: Workload
) -> None:
    """An ordinary rotation is not seen by anybody."""
    task = await workload.start()
    await stack.workload_api.rotate_jwt()
    await stack.workload_api.rotate_x509()
    await asyncio.sleep(0.5)
    reply = await workload.ask("GET", f"/v1/tasks/{task['id']}")

    assert reply.body["state"] == "active"
    await workload.end(task)


async def test_an_agent_that_goes_away_ends_nothing(stack: Stack, workload: Workload) -> None:
    """Tasks go on without the agent, and callers are proven again when it is back."""
    task = await workload.start()
    await stack.workload_api.stop()
    await asyncio.sleep(0.5)
    await stack.workload_api.start()
    async with asyncio.timeout(6):
        while True:
            reply = await workload.ask("GET", f"/v1/tasks/{task['id']}")
            if reply.status == 200:
                break
            await asyncio.sleep(0.1)
    assert reply.body["state"] == "active"
    await workload.end(task)
