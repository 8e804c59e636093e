"""
The answer to a mint is lost before a real OpenBao whose engine cannot revoke: no false proof (P5).

The task side is the real one as well; its clock is stepped, those of the servers are not.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.openbao import OpenBao
from taskmint.devstack.postgres import VAULT_USER, Postgres
from taskmint.errors import Unavailable
from taskmint.model.scope import RequestFacts
from taskmint.model.state import TaskState
from taskmint.policy.database import POSTGRESQL_REVOCATION, USERNAME_TEMPLATE
from taskmint.tasks.outside import Outside, Settings
from taskmint.tasks.service import TaskService
from taskmint.vault.client import VaultClient
from vault.engines import holding
from vault.ground import LOG, Ground

from fakes.clock import SteppedClock
from fakes.ledger import MemoryLedger
from fakes.observer import Seen
from fakes.processes import FakeProcesses
from faults.tcp_proxy import Fault, TcpProxy
from tasks.world import caller, policy

pytestmark = pytest.mark.real

NODE = "node-lost"
AFTER_DEAD_MAN = timedelta(seconds=66)
TASK = """\
  NAME:
    owner: team-orders@example.org
    class: batch
    who: [spiffe://example.org/job]
    deadline: {default: 5m, max: 30m}
    ends: {deadline_only: true}
    scope:
      it: {ENTITLEMENT}
"""
ROLES = {"short": 60, "lasting": 3600, "timeless": 60}
ENTITLEMENTS = {name: f"secret: {{mount: database, path: creds/{name}}}" for name in ROLES} | {
    "otp": "ssh: {mount: ssh, role: otp, operation: otp, ip: 10.1.2.3, username: ubuntu}"
}
POLICY = "version: 1\ntasks:\n" + "".join(
    TASK.replace("NAME", name).replace("ENTITLEMENT", text) for name, text in ENTITLEMENTS.items()
)


async def write_roles(admin: BaoHttp, revocation: str) -> None:
    """Roles whose accounts end by themselves after a minute, after an hour, and never."""
    for name, seconds in ROLES.items():
        until = "" if name == "timeless" else " VALID UNTIL '{{expiration}}'"
        creation = f"CREATE ROLE \"{{{{name}}}}\" LOGIN PASSWORD '{{{{password}}}}'{until}"
        role = {
            "db_name": "orders",
            "default_ttl": seconds,
            "max_ttl": "2h",
            "creation_statements": [creation],
            "revocation_statements": [revocation],
        }
        await admin.call("POST", f"database/roles/{name}", role)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ground(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> AsyncIterator[Ground]:
    """An OpenBao with a database engine that cannot revoke, and one-time passwords."""

    async def prepare(admin: BaoHttp) -> None:
        for mount in ("database", "ssh"):
            await admin.call("POST", f"sys/mounts/{mount}", {"type": mount})
        at = f"{postgres.host}:{postgres.port}/orders?sslmode=disable"
        connection = {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@{at}",
            "username": VAULT_USER,
            "password": postgres.vault_password.reveal(),
            "password_authentication": "scram-sha-256",
            "username_template": USERNAME_TEMPLATE,
            "allowed_roles": list(ROLES),
        }
        await admin.call("POST", "database/config/orders", connection)
        await write_roles(admin, "SELECT 1/0")
        otp = {"key_type": "otp", "default_user": "ubuntu", "cidr_list": "10.0.0.0/8"}
        await admin.call("POST", "ssh/roles/otp", otp)

    async with (
        OpenBao.running(tmp_path_factory.mktemp("unheard")) as bao,
        holding(bao, postgres, POLICY, prepare) as ground,
    ):
        yield ground
        async with ground.admin() as admin:
            await write_roles(admin, POSTGRESQL_REVOCATION)
            await admin.call("PUT", "sys/leases/revoke-prefix/database/creds", {"sync": True})


class Lost:
    """A task whose one mint OpenBao carried out, and whose answer did not arrive."""

    def __init__(self, service: TaskService, clock: SteppedClock) -> None:
        self.service = service
        self.clock = clock

    async def state_after(self, passed: timedelta) -> TaskState:
        """Let time pass for the daemon, and see where the task is a little later."""
        self.clock.pass_time(passed)
        (view,) = self.service.operators.overview()
        shown = await self.service.show(caller(), view.id, timedelta(seconds=2))
        return shown.state

    @property
    def problem(self) -> str:
        """What operators are told."""
        (view,) = self.service.operators.overview()
        return view.last_problem


@asynccontextmanager
async def lost(ground: Ground, definition: str, path: str) -> AsyncIterator[Lost]:
    """Start a task through a proxy that loses the answer to its mint."""
    at = urlsplit(ground.address)
    crashes: list[BaseException] = []
    clock = SteppedClock()
    async with TcpProxy.before(str(at.hostname), at.port or 0) as proxy:
        settings = ground.settings(
            address=f"http://127.0.0.1:{proxy.port}", timeout=timedelta(seconds=2)
        )
        client = VaultClient(settings, ground.plan, ground.signer.fetch, LOG)
        async with client:
            outside = Outside(client, MemoryLedger(), FakeProcesses(), clock, Seen(), LOG)
            node = Settings(NODE, "boot-1")
            async with TaskService(policy(POLICY), outside, node, crashes.append) as service:
                await service.recover()
                proxy.once(Fault.LOST_REPLY, path)
                with pytest.raises(Unavailable):
                    await service.start(caller(), RequestFacts(definition), None)
                yield Lost(service, clock)
    assert crashes == []


async def logins(ground: Ground) -> int:
    """How many accounts of this node's tasks PostgreSQL would let in now, by its own clock."""
    (count,) = await ground.postgres.sql(
        "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND (rolvaliduntil IS NULL OR"
        f" rolvaliduntil > now()) AND rolname LIKE 'taskmint-{NODE}-%'"
    )
    return int(count)


async def test_p5_an_account_is_outwaited_for_the_life_that_its_role_gives(ground: Ground) -> None:
    """The dead-man interval where that is the role's `default_ttl`; a longer one otherwise."""
    before = await logins(ground)
    async with lost(ground, "short", "/v1/database/creds/short") as task:
        assert await logins(ground) == before + 1
        assert await task.state_after(AFTER_DEAD_MAN) is TaskState.REVOKED
    async with lost(ground, "lasting", "/v1/database/creds/lasting") as task:
        assert await task.state_after(AFTER_DEAD_MAN) is TaskState.REVOKING
        assert await logins(ground) == before + 2  # it would have been a false proof
        assert await task.state_after(timedelta(hours=1)) is TaskState.REVOKED


@pytest.mark.parametrize("name", ["timeless", "otp"])
async def test_p5_what_no_clock_ends_stays_revoking_and_says_why(ground: Ground, name: str) -> None:
    """An account without VALID UNTIL, a one-time password: nobody can prove that it is gone."""
    path = "ssh/creds/otp" if name == "otp" else f"database/creds/{name}"
    async with lost(ground, name, f"/v1/{path}") as task:
        assert await task.state_after(timedelta(days=400)) is TaskState.REVOKING
        assert task.problem.startswith(f"no answer came for it ({path})")
