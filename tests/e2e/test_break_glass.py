"""The break-glass example on real servers: a write during an incident that ends with its ticket."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from source_tree import REPOSITORY
from taskmint.client.client import TaskmintClient
from taskmint.client.errors import Refused
from taskmint.client.running_task import RunningTask
from taskmint.client.workload_api import MutualTls, WorkloadApi
from taskmint.devstack.daemon_process import Daemon
from taskmint.devstack.psql import query
from taskmint.devstack.registration import Entry
from taskmint.devstack.stack import Stack
from taskmint.devstack.stack_files import DAEMON_ID
from taskmint.devstack.taskmint_command import recommended_revocation
from taskmint.model.secret import Secret

from e2e.ground import admin, daemon_log
from e2e.test_approvals import LOGIN
from plugins.canaries import Canaries
from stack import audited

pytestmark = pytest.mark.real

ADA = "spiffe://example.org/oncall/ada"
WHY = "orders of 12:05 were booked twice"
LEASE_SECONDS = 60  # the example's dead-man interval
ROLES = """
CREATE ROLE orders_rw NOLOGIN BYPASSRLS;
GRANT CONNECT ON DATABASE orders TO orders_rw;
GRANT SELECT, INSERT ON orders TO orders_rw;
CREATE POLICY repair ON orders TO orders_rw USING (true) WITH CHECK (true);
GRANT orders_rw TO vault WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
"""


@dataclass
class Door:
    """The emergency door's daemon, and the incident desk: a ticket is open while its file is."""

    stack: Stack
    daemon: Daemon
    desk: Path
    canaries: Canaries

    async def writes(self, data: dict[str, str]) -> int:
        """Log in with a credential and write; psql's status."""
        self.canaries.plant(data["password"], "an emergency's password")
        dsn = self.stack.postgres.dsn(data["username"], Secret(data["password"]))
        write = "INSERT INTO orders (region, placed, total) VALUES ('eu', '2026-01-01', 1)"
        return (await query(dsn, write)).status

    def alarms(self) -> list[str]:
        """The moments at which the alarm was raised."""
        lines = [line for line in daemon_log(self.daemon) if line["event"] == "break_glass"]
        assert all(line["level"] == "critical" and line["alarm"] for line in lines)
        return [line["moment"] for line in lines]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def door(canaries: Canaries, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    """A stack of its own, whose daemon is the emergency door; nothing may be left at the end."""
    desk = tmp_path_factory.mktemp("desk")
    async with Stack.running() as stack:
        await stack.workload_api.register(Entry(ADA, os.path.realpath("/proc/self/exe")))
        await _lay(stack)
        await asyncio.to_thread(_configure, stack, desk)
        await stack.apply()
        pruning = ("--yes", "--prune", "--daemon-spiffe-id", DAEMON_ID)  # the stack's own policy
        token = ("--token-file", str(stack.paths.root_token))
        assert (await admin(stack, "vault", "apply", *pruning, *token))[0] == 0
        async with stack.admin() as vault:
            for region in ("eu", "us"):
                await vault.call("DELETE", f"database/roles/taskmint-probe-orders-ro-{region}")
        async with audited(stack, canaries), stack.daemon() as daemon:
            yield Door(stack, daemon, desk, canaries)


async def _lay(stack: Stack) -> None:
    assert (await query(stack.postgres.superuser_dsn("orders"), ROLES)).status == 0
    revocation = await recommended_revocation()
    roles = ["orders-rw-eu", "orders-rw-us"]
    async with stack.admin() as vault:
        held = (await vault.call("GET", "database/config/orders")).data
        allowed = [*held["allowed_roles"], *roles]
        await vault.call("POST", "database/config/orders", {"allowed_roles": allowed})
        for role in roles:
            body = {
                "db_name": "orders",
                "default_ttl": LEASE_SECONDS,
                "max_ttl": "25h",
                "creation_statements": [LOGIN, 'GRANT orders_rw TO "{{name}}"'],
                "revocation_statements": [revocation],
            }
            await vault.call("POST", f"database/roles/{role}", body)


def _configure(stack: Stack, desk: Path) -> None:
    """Put the example in force, behind a door with an auth role of its own."""
    paths = stack.paths
    (paths.policy / "orders.yaml").unlink()
    shutil.copy(REPOSITORY / "config" / "examples" / "break-glass.yaml", paths.policy)
    (paths.policy / "break-glass.yaml").chmod(0o644)
    hook = desk / "hook"
    hook.write_text(
        'grep -o \'"ticket":"[A-Z0-9-]*"\' | cut -d\'"\' -f4 | (read t; test -e "$1/$t")\n'
    )
    config = json.loads(paths.config.read_text())
    config["vault"]["auth"] = {"role": "taskmint-breakglass"}
    config["break_glass"] = {
        "ticket_hook": ["/bin/sh", str(hook), str(desk)],
        "ticket_interval": "500ms",
        "max": "1h",
    }
    paths.config.write_text(json.dumps(config))


@pytest_asyncio.fixture(loop_scope="session")
async def ada(door: Door) -> AsyncIterator[TaskmintClient]:
    """The engineer on call, who proves herself by certificate."""
    proof = MutualTls(DAEMON_ID, door.stack.workload_api.endpoint)
    async with TaskmintClient(str(door.stack.paths.task_socket), proof) as client:
        yield client


async def _emergency(client: TaskmintClient, region: str, ticket: str) -> RunningTask:
    """
    Start one that ends with this process.

    The example's default is the session, as it suits a person at a terminal. These tests must also
    run where there is none: under a process manager of another pid namespace their session has no
    leader to hold.
    """
    return await client.start(
        "break-glass-orders",
        parameters={"region": region},
        purpose=WHY,
        ticket=ticket,
        bind="peer",
    )


async def test_p4_a_write_is_possible_while_the_incident_is_open_and_not_after(
    door: Door, ada: TaskmintClient
) -> None:
    """P4: loud from its start; the ticket closes, and the database refuses; reported afterwards."""
    (door.desk / "INC-1").touch()
    task = await _emergency(ada, "eu", "INC-1")
    data = dict(task.credentials["orders"].data)
    assert await door.writes(data) == 0
    assert door.alarms() == ["started"]
    (door.desk / "INC-1").unlink()
    async with asyncio.timeout(30):
        while await door.writes(data) == 0:
            await asyncio.sleep(0.1)
    await ada.__aexit__()

    assert door.alarms() == ["started", "ended"]
    code, report = await admin(
        door.stack, "audit", "breakglass", "--ledger", str(door.stack.paths.ledger)
    )
    assert code == 0
    for text in (ADA, "break-glass-orders", "INC-1", WHY, "ticket_closed", task.id):
        assert text in report


async def test_without_an_open_ticket_or_a_certificate_the_door_stays_shut(
    door: Door, ada: TaskmintClient
) -> None:
    """A closed ticket, and a token that could have been copied: 403, and no alarm."""
    before = door.alarms()
    (door.desk / "INC-2").touch()
    by_token = TaskmintClient(
        str(door.stack.paths.task_socket), WorkloadApi(door.stack.workload_api.endpoint)
    )
    for client, ticket in ((ada, "INC-3"), (by_token, "INC-2")):
        with pytest.raises(Refused) as raised:
            await _emergency(client, "eu", ticket)
        assert raised.value.code == "not_permitted"

    assert door.alarms() == before


async def test_p4_the_ticket_system_ends_an_emergency_by_the_admin_call(
    door: Door, ada: TaskmintClient
) -> None:
    """P4: `taskmint revoke --ticket --signal` returns when it is proven."""
    (door.desk / "INC-4").touch()
    task = await _emergency(ada, "us", "INC-4")
    code, said = await admin(door.stack, "revoke", "--ticket", "INC-4", "--signal")

    assert (code, "nothing of them is left" in said) == (0, True)
    assert await door.writes(dict(task.credentials["orders"].data)) == 2
