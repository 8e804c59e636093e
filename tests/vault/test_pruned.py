"""
A definition leaves the policy and the plan while its tasks live and the daemon is away: the next
start takes them back, on the real servers, in a namespace (P4, P5, P11).
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import pytest_asyncio

from taskmint.devstack.postgres import VAULT_USER, Postgres
from taskmint.model.scope import RequestFacts
from taskmint.model.state import EndCause
from taskmint.policy.database import POSTGRESQL_REVOCATION, USERNAME_TEMPLATE
from taskmint.policy.plan_objects import PlanSettings
from taskmint.ports import Event
from taskmint.tasks.outside import Outside, Settings
from taskmint.tasks.service import TaskService
from taskmint.vault.client import VaultClient
from taskmint.vault.settings import VaultSettings
from vault.ground import DAEMON, LOG, Ground, plan_from

from fakes.clock import SteppedClock
from fakes.ledger import MemoryLedger
from fakes.observer import Seen
from fakes.processes import FakeProcesses
from tasks.world import caller, policy

pytestmark = pytest.mark.real

NAMESPACE = "pruned"
WAIT = timedelta(seconds=20)
CREATION = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
HEAD = """\
    owner: team-orders@example.org
    class: batch
    who: [spiffe://example.org/job]
    deadline: {default: 5m, max: 30m}
    ends: {deadline_only: true}
"""
STAYS = f"""\
version: 1
tasks:
  stays:
{HEAD}    scope:
      it: {{secret: {{mount: database, path: creds/standing, proof: login}}}}
"""
BEFORE = f"""\
{STAYS}
  role:
{HEAD}    scope:
      it:
        database:
          mount: database
          connection: tasks
          creation: [{json.dumps(CREATION)}]
          revocation: [{json.dumps(POSTGRESQL_REVOCATION)}]
          proof: login
  policy:
{HEAD}    parameters: {{team: {{type: segment}}}}
    scope:
      it: {{token: {{paths: [{{path: "kv/data/{{team}}", capabilities: [read]}}], ttl: 10m}}}}
"""
PLANNED = PlanSettings(mount="jwt", spiffe_id=DAEMON, namespace=NAMESPACE)


class Inside(Ground):
    """The ground, seen from the namespace."""

    def settings(self, **changed: object) -> VaultSettings:
        """As the ground's, in the namespace."""
        return super().settings(namespace=NAMESPACE, **changed)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def inside(ground: Ground, postgres: Postgres) -> Ground:
    """A namespace with a database, a place for notes, and the plan of both definitions."""
    async with ground.admin() as admin:
        await admin.call("POST", f"sys/namespaces/{NAMESPACE}")
        for mount in ("database", "kv"):
            await admin.call("POST", f"{NAMESPACE}/sys/mounts/{mount}", {"type": mount})
        await admin.call("POST", f"{NAMESPACE}/sys/auth/jwt", {"type": "jwt"})
        keys = {"jwt_validation_pubkeys": [ground.signer.public]}
        await admin.call("POST", f"{NAMESPACE}/auth/jwt/config", keys)
        at = f"{postgres.host}:{postgres.port}/orders?sslmode=disable"
        connection = {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@{at}",
            "username": VAULT_USER,
            "password": postgres.vault_password.reveal(),
            "username_template": USERNAME_TEMPLATE,
            "allowed_roles": [],
        }
        await admin.call("POST", f"{NAMESPACE}/database/config/tasks", connection)
    plan = plan_from(BEFORE, PLANNED)
    held = Inside(ground.address, ground.root_token, postgres, ground.signer, "database", plan)
    await held.apply()
    return held


@asynccontextmanager
async def daemon(inside: Ground, text: str, ledger: MemoryLedger) -> AsyncIterator[TaskService]:
    """A task service under a policy, with a client whose plan is that policy's."""
    crashes: list[BaseException] = []
    plan = plan_from(text, PLANNED)
    async with VaultClient(inside.settings(), plan, inside.signer.fetch, LOG) as client:
        assert client.wider() == ()
        outside = Outside(client, ledger, FakeProcesses(), SteppedClock(), Seen(), LOG)
        async with TaskService(
            policy(text), outside, Settings("node-pruned", "boot-1"), crashes.append
        ) as service:
            await service.recover()
            yield service
            assert await service.stop(revoke=False, grace=WAIT) == 0
    assert crashes == []


async def standing(inside: Ground) -> dict[str, list[str]]:
    """What an administrator finds of single tasks: roles, policies, accounts that can log in."""
    async with inside.admin() as admin:
        found: dict[str, list[str]] = {}
        for place in ("database/roles", "sys/policies/acl"):
            answer = await admin.send("LIST", f"{NAMESPACE}/{place}")
            names = answer.data["keys"] if answer.status == 200 else []
            found[place] = [name for name in names if "node-pruned-" in name]
    rows = (
        "SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'taskmint-node-pruned-%'"
    )
    return {**found, "accounts": list(await inside.postgres.sql(rows))}


async def test_p4_a_restart_under_a_policy_without_the_definition_ends_its_tasks_as_revoked(
    inside: Ground,
) -> None:
    """The last `database` and the last `paths` are gone, pruned from the server as well."""
    ledger = MemoryLedger()
    async with daemon(inside, BEFORE, ledger) as service:
        await service.start(caller(), RequestFacts("role"), None)
        await service.start(caller(), RequestFacts("policy", {"team": "red"}), None)
    assert {place: len(names) for place, names in (await standing(inside)).items()} == {
        "database/roles": 1,
        "sys/policies/acl": 1,
        "accounts": 1,
    }

    inside.plan = plan_from(STAYS, PLANNED)
    await inside.apply()  # with `--prune`
    async with daemon(inside, STAYS, ledger):
        pass
    ends = [row for row in ledger.entries if row.event in {Event.ENDING, Event.REVOKED}]
    assert {row.facts["cause"] for row in ends} == {EndCause.POLICY_NARROWED}
    assert [row.event for row in ends].count(Event.REVOKED) == 2
    assert not any((await standing(inside)).values())
