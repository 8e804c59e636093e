"""The real stack with a few definitions more, and a workload in the test's own process."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import aiohttp

from taskmint.client.workload_api import WorkloadApi
from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.daemon_process import Daemon
from taskmint.devstack.psql import Answer, query
from taskmint.devstack.registration import Entry
from taskmint.devstack.stack import Stack
from taskmint.devstack.stack_files import WORKLOAD_ID
from taskmint.devstack.vault_setup import set_up_task_connection
from taskmint.model.secret import Secret
from taskmint.policy.database import POSTGRESQL_REVOCATION

from e2e.examples import examples, make_roles
from plugins.canaries import Canaries

HAND_POLICY = "e2e-reader"

CREATION = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
_POLICY = """
version: 1
tasks:
  e2e-report:
    owner: team-tests@example.org
    class: batch
    dead_man: 10s
    who: [spiffe://example.org/ns/orders/sa/report]
    parameters: {region: {enum: [eu, us]}}
    deadline: {default: 5m, max: 30m}
    ends: {deadline_only: true}
    scope:
      warehouse: {secret: {mount: database, path: "creds/orders-ro-{region}", proof: sessions}}
  e2e-brief:
    owner: team-tests@example.org
    class: batch
    dead_man: 10s
    who: [spiffe://example.org/ns/orders/sa/report]
    deadline: {default: 2s, max: 30m}
    ends: {deadline_only: true}
    scope:
      warehouse: {secret: {mount: database, path: creds/orders-ro-eu, proof: login}}
      books:
        database:
          mount: database
          connection: tasks
          creation: [CREATION, 'GRANT orders_ro_eu TO "{{name}}"']
          revocation: [REVOCATION]
          proof: sessions
  e2e-bound:
    owner: team-tests@example.org
    class: batch
    dead_man: 10s
    who: [spiffe://example.org/ns/orders/sa/report]
    deadline: {default: 5m, max: 30m}
    ends: {bind: [peer]}
    scope:
      reader: {token: {policy: e2e-reader}}
  e2e-beating:
    owner: team-tests@example.org
    class: batch
    dead_man: 10s
    who: [spiffe://example.org/ns/orders/sa/report]
    deadline: {default: 5m, max: 30m}
    ends: {heartbeat: 2s}
    scope:
      reader: {token: {policy: e2e-reader}}
  e2e-deploy:
    owner: team-tests@example.org
    class: batch
    dead_man: 10s
    who: [spiffe://example.org/ns/orders/sa/report]
    deadline: {default: 5m, max: 30m}
    ends: {deadline_only: true}
    scope:
      web: {pki: {mount: pki, role: web, operation: sign, common_name: a.example.org, ttl: 10m,
                  proof: crl}}
      made: {pki: {mount: pki, role: web, common_name: b.example.org, ttl: 10m, proof: crl}}
      host: {ssh: {mount: ssh, role: ops, operation: sign, principals: [deploy], ttl: 10m}}
"""


POLICY = _POLICY.replace("CREATION", json.dumps(CREATION)).replace(
    "REVOCATION", json.dumps(POSTGRESQL_REVOCATION)
)


@dataclass(frozen=True)
class Reply:
    """One answer of the daemon."""

    status: int
    body: dict[str, Any]


class Workload:
    """A caller in this process, known to the Workload API by this interpreter's path."""

    def __init__(self, stack: Stack, session: aiohttp.ClientSession, canaries: Canaries) -> None:
        self._svids = WorkloadApi(stack.workload_api.endpoint)
        self.stack = stack
        self._session = session
        self._canaries = canaries

    @classmethod
    @asynccontextmanager
    async def of(cls, stack: Stack, canaries: Canaries) -> AsyncIterator[Self]:
        """Connect to the task socket; each request says who we are."""
        connector = aiohttp.UnixConnector(str(stack.paths.task_socket), force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield cls(stack, session, canaries)

    async def ask(self, method: str, path: str, **more: Any) -> Reply:
        """Send one request."""
        headers = {
            "X-Taskmint-Request": "true",
            "Authorization": f"Bearer {await self._svids.token(fresh=True)}",
            **more.pop("headers", {}),
        }
        async with self._session.request(
            method, f"http://taskmint{path}", headers=headers, **more
        ) as reply:
            return Reply(reply.status, await reply.json(content_type=None))

    async def start(self, task: str = "e2e-report", **more: Any) -> dict[str, Any]:
        """Start a task that must be granted; every secret of it is hunted from now on."""
        if task == "e2e-report":
            more.setdefault("parameters", {"region": "eu"})
        reply = await self.ask("POST", "/v1/tasks", json={"task": task, **more})
        assert reply.status == 201, reply.body
        for name, credential in reply.body["credentials"].items():
            for key in ("password", "client_token", "token", "private_key"):
                if key in credential["data"]:
                    secret = str(credential["data"][key]).splitlines()
                    self._canaries.plant(secret[len(secret) > 1], f"{task} {name} {key}")
        return reply.body

    async def end(self, task: dict[str, Any]) -> Reply:
        """End a task."""
        return await self.ask("DELETE", f"/v1/tasks/{task['id']}")

    def login(self, task: dict[str, Any]) -> Secret[str]:
        """Return the URL of the task's database login."""
        data = task["credentials"]["warehouse"]["data"]
        return self.stack.postgres.dsn(data["username"], Secret(data["password"]))

    async def query(self, task: dict[str, Any], statement: str = "SELECT 1") -> Answer:
        """Log in as the task and run a statement."""
        return await query(self.login(task), statement)


async def lay_ground(stack: Stack) -> None:
    """Add the tests' definitions and identity to a stack, as an admin would."""
    async with stack.admin() as vault:
        rule = 'path "auth/token/lookup-self" { capabilities = ["read"] }'
        await vault.call("POST", f"sys/policies/acl/{HAND_POLICY}", {"policy": rule})
        await _certificates(vault)
        await set_up_task_connection(vault, stack.postgres)
        await make_roles(vault)
    for name, text in {"e2e.yaml": POLICY, **examples()}.items():
        await asyncio.to_thread(_write, stack.paths.policy / name, text)
    await stack.workload_api.register(Entry(WORKLOAD_ID, os.path.realpath("/proc/self/exe")))
    await stack.apply()


async def _certificates(vault: BaoHttp) -> None:
    """Mount what makes certificates and signed keys, with a role each."""
    for kind in ("pki", "ssh"):
        await vault.call("POST", f"sys/mounts/{kind}", {"type": kind})
    await vault.call("POST", "pki/root/generate/internal", {"common_name": "CA", "ttl": "700h"})
    web = {
        "allowed_domains": ["example.org"],
        "allow_subdomains": True,
        "key_type": "ec",
        "use_csr_common_name": False,
        "use_csr_sans": False,
        "max_ttl": "10m",
        "generate_lease": True,
    }
    await vault.call("POST", "pki/roles/web", web)
    await vault.call("POST", "ssh/config/ca", {"generate_signing_key": True})
    users = {"key_type": "ca", "allow_user_certificates": True, "allowed_users": "deploy"}
    await vault.call("POST", "ssh/roles/ops", {**users, "max_ttl": "10m"})


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)


def daemon_log(daemon: Daemon) -> list[dict[str, Any]]:
    """Read what the daemon logged."""
    return [json.loads(line) for line in daemon.log.read_text().splitlines() if line[:1] == "{"]


async def until_refused(workload: Workload, task: dict[str, Any], within: timedelta) -> None:
    """Log in again and again until the database refuses."""
    async with asyncio.timeout(within.total_seconds()):
        while (await workload.query(task)).status == 0:
            await asyncio.sleep(0.1)


async def admin(stack: Stack, *arguments: str) -> tuple[int, str]:
    """Run one of the operator's commands."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", *arguments),
        env={"PATH": os.environ["PATH"], **stack.environment()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()
