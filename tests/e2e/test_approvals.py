"""
The AI-agent example on real servers: a production secret only after two other people's yes.

One of them signs in Vault's transit engine, set up by the very commands of docs/approvals.md.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from source_tree import REPOSITORY
from taskmint.client.client import TaskmintClient
from taskmint.client.workload_api import WorkloadApi
from taskmint.devstack.openbao import bao_binary
from taskmint.devstack.psql import libpq_environment, postgres_binaries, query
from taskmint.devstack.registration import Entry
from taskmint.devstack.stack import Stack
from taskmint.devstack.taskmint_command import recommended_revocation

from e2e.ground import Reply, Workload, daemon_log
from fenced import blocks
from plugins.canaries import Canaries
from stack import audited

if TYPE_CHECKING:
    from taskmint.client.answers import Waiting

pytestmark = pytest.mark.real

AGENT = "spiffe://example.org/agent/support/a1"
LEASE_SECONDS = 60  # the dead-man interval of the class that the example is of
LOGIN = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
ROLES = """
CREATE ROLE customers_read NOLOGIN;
CREATE ROLE customers_write NOLOGIN;
GRANT CONNECT ON DATABASE orders TO customers_read, customers_write;
CREATE TABLE customers (name text);
INSERT INTO customers VALUES ('Ada');
GRANT SELECT ON customers TO customers_read;
GRANT SELECT, INSERT ON customers TO customers_write;
GRANT customers_read, customers_write TO vault WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
"""


@dataclass
class House:
    """A stack of its own in which the example is in force, and what its people have."""

    stack: Stack
    workload: Workload
    desk: Path
    environment: dict[str, str]
    canaries: Canaries

    async def run(self, script: str, told: str = "", **more: str) -> str:
        """Run shell text as a person would, at the desk."""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", script),
            cwd=self.desk,
            env=self.environment | more,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate(told.encode())
        assert process.returncode == 0, out.decode()
        return out.decode()

    async def ask(self, access: str, rows: int, key: str) -> Reply:
        """Ask as the agent."""
        body = {
            "task": "agent-customer-lookup",
            "parameters": {"access": access, "rows": rows},
            "purpose": "the customer of the ticket",
            "ticket": "SUP-4711",
        }
        headers = {"Idempotency-Key": key}
        return await self.workload.ask("POST", "/v1/tasks", json=body, headers=headers)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(
    canaries: Canaries, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """Set up as docs/approvals.md says; the daemon runs, and nothing may be left at the end."""
    desk = tmp_path_factory.mktemp("desk")
    async with Stack.running() as stack:
        await stack.workload_api.register(Entry(AGENT, os.path.realpath("/proc/self/exe")))
        await _lay(stack)
        await _hire(stack)
        ann = await _login(stack)
        await _logout(stack, ann)
        places = (bao_binary().parent, Path(sys.executable).parent)
        environment = {
            **stack.environment(),
            "PATH": f"{':'.join(map(str, places))}:{os.environ['PATH']}",
            "HOME": str(desk),
            "BAO_ADDR": stack.bao.address,
            "ANN": ann["entity_id"],
        }
        async with Workload.of(stack, canaries) as workload:
            house = House(stack, workload, desk, environment, canaries)
            setting_up, exporting, _ = _page()
            root = stack.bao.root_token.reveal()
            await house.run(setting_up, BAO_TOKEN=root)
            await house.run(exporting, VAULT_TOKEN=root)
            await house.run("taskmint approvals keys --new lead.jwk > lead.json")
            await asyncio.to_thread(_configure, stack, desk)
            await stack.apply()
            async with audited(stack, canaries), stack.daemon() as daemon:
                ann = await _login(stack)
                canaries.plant(ann["client_token"], "Ann's token")
                house.environment["VAULT_TOKEN"] = ann["client_token"]
                yield house
                await _logout(stack, ann)
            assert "notice_failed" not in [line["event"] for line in daemon_log(daemon)]


def _page() -> list[str]:
    page = REPOSITORY / "docs" / "approvals.md"
    return [block.text for block in blocks(page) if block.info == "sh vault"]


async def _lay(stack: Stack) -> None:
    """Add what an administrator of the customers' database has."""
    assert (await query(stack.postgres.superuser_dsn("orders"), ROLES)).status == 0
    revocation = await recommended_revocation()
    async with stack.admin() as vault:
        held = (await vault.call("GET", "database/config/orders")).data
        roles = ["customers-read", "customers-write"]
        allowed = [*held["allowed_roles"], *roles]
        await vault.call("POST", "database/config/orders", {"allowed_roles": allowed})
        for role in roles:
            group = role.replace("-", "_")
            creation = [LOGIN, f'GRANT {group} TO "{{{{name}}}}"']
            await vault.call(
                "POST",
                f"database/roles/{role}",
                {
                    "db_name": "orders",
                    "default_ttl": LEASE_SECONDS,
                    "max_ttl": "25h",
                    "creation_statements": creation,
                    "revocation_statements": [revocation],
                },
            )


async def _hire(stack: Stack) -> None:
    """Give Ann a login of her own, with the approvers' policy."""
    async with stack.admin() as vault:
        await vault.call("POST", "sys/auth/userpass", {"type": "userpass"})
        user = {"password": "of-ann", "token_policies": ["approvers"]}
        await vault.call("POST", "auth/userpass/users/ann", user)


async def _login(stack: Stack) -> dict[str, Any]:
    async with stack.admin() as vault:
        answer = await vault.call("POST", "auth/userpass/login/ann", {"password": "of-ann"})
    return dict(answer.body["auth"])


async def _logout(stack: Stack, ann: dict[str, Any]) -> None:
    async with stack.admin() as vault:
        accessor = {"accessor": ann["accessor"]}
        await vault.call("POST", "auth/token/revoke-accessor", accessor)


def _configure(stack: Stack, desk: Path) -> None:
    """Put the example in force, and two people into the directory."""
    paths = stack.paths
    shutil.copy(REPOSITORY / "config" / "examples" / "agent-secret.yaml", paths.policy)
    (paths.policy / "agent-secret.yaml").chmod(0o644)
    config = json.loads(paths.config.read_text())
    config["node"]["labels"] = {"environment": "prod"}
    for name in ("ann.json", "lead.json"):
        (desk / name).chmod(0o644)
    config["approvals"] = {
        "approvers": {
            "dpo@example.org": {"keys": str(desk / "ann.json")},
            "lead@example.org": {"keys": str(desk / "lead.json"), "groups": ["support-leads"]},
        }
    }
    config["notices"] = {"command": ["/bin/sh", "-c", f"cat >> {desk}/notices"]}
    paths.config.write_text(json.dumps(config))


async def login(house: House, task: Reply, statement: str) -> tuple[int, list[str]]:
    """Use the agent's credential."""
    data = task.body["credentials"]["customers"]["data"]
    house.canaries.plant(data["password"], "the agent's password")
    credentials = {"credentials": {"warehouse": {"data": data}}}
    answer = await house.workload.query(credentials, statement)
    return answer.status, list(answer.rows)


async def test_a_small_first_look_is_approved_by_itself(house: House) -> None:
    """The automatic condition holds once; the ledger says so."""
    task = await house.ask("read", 1, "first")
    assert task.status == 201, task.body
    assert await login(house, task, "SELECT name FROM customers") == (0, ["Ada"])
    assert (await house.workload.end(task.body)).body["state"] == "revoked"
    row = await house.run(
        f"taskmint audit show --output json --ledger {house.stack.paths.ledger} {task.body['id']}"
    )
    assert "approval: automatic" in row


async def test_the_agent_reaches_the_secret_only_after_two_people_approved(house: House) -> None:
    """Asked, shown, approved in transit and with a key file, collected, used, gone."""
    asked = await house.ask("write", 1, "second")
    assert (asked.status, asked.body["state"]) == (202, "awaiting_approval")
    task = asked.body["id"]
    assert (await house.ask("write", 1, "second")).status == 202

    *_, approving = _page()
    said = await house.run(approving, "y\n", TASK=task)
    assert "NEW" in said
    assert "database/creds/customers-write" in said
    assert "awaiting_approval, 1 of 2 have approved" in said
    waiting = asyncio.create_task(house.workload.ask("GET", f"/v1/tasks/{task}?wait=30s"))
    await house.run(f"taskmint approvals approve {task} --key jwk:lead.jwk --yes")
    assert (await waiting).body["state"] == "approved"

    given = await house.ask("write", 1, "second")
    assert (given.status, given.body["id"]) == (201, task), given.body
    write = "INSERT INTO customers VALUES ('Grace'); SELECT count(*) FROM customers"
    assert await login(house, given, write) == (0, ["2"])
    ended = await house.workload.end(given.body)
    assert (ended.status, ended.body["state"]) == (200, "revoked")
    assert (await login(house, given, "SELECT 1"))[0] == 2
    told = [json.loads(line) for line in _notices(house)]
    assert [one["kind"] for one in told if one["task"] == task] == [
        "approval_requested",
        "approval_given",
    ]


async def test_nobody_else_can_sign_with_anns_key(house: House) -> None:
    """The policy is templated on the entity: her token signs with her key and with no other."""
    root = {"BAO_TOKEN": house.stack.bao.root_token.reveal()}
    await house.run("bao write -f transit/keys/approver-other type=ed25519", **root)
    said = await house.run("taskmint approvals keys --key transit:approver-other || test $? = 1")
    assert "does not permit reading the key" in said
    public = await house.run(
        "taskmint approvals keys --key transit:approver-other", VAULT_TOKEN=root["BAO_TOKEN"]
    )
    assert json.loads(public)["keys"][0]["alg"] == "EdDSA"


async def test_p4_withdrawing_ends_the_agents_task_on_the_server(house: House) -> None:
    """P4: the database refuses the agent after one of its approvers has taken the yes back."""
    asked = await house.ask("read", 100, "third")
    task = asked.body["id"]
    key = f"transit:approver-{house.environment['ANN']}"
    await house.run(f"taskmint approvals approve {task} --key {key} --yes")
    await house.run(f"taskmint approvals approve {task} --key jwk:lead.jwk --yes")
    given = await house.ask("read", 100, "third")
    assert (await login(house, given, "SELECT 1"))[0] == 0
    await house.run(f"taskmint approvals withdraw {task} --key jwk:lead.jwk --yes")
    over = await house.workload.ask("GET", f"/v1/tasks/{task}?wait=30s")

    assert (over.body["state"], over.body["end_cause"]) == ("revoked", "approval_withdrawn")
    assert (await login(house, given, "SELECT 1"))[0] == 2


async def wrapped(house: House, *command: str) -> tuple[asyncio.subprocess.Process, str]:
    """Start `taskmint run` as the agent; also the request's id, which it says on its way."""
    libpq = libpq_environment(house.stack.postgres.superuser_dsn("orders"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", "run", "--task", "agent-customer-lookup"),
        *("-p", "access=write", "-p", "rows=1", "--ticket", "SUP-4711"),
        *("--env", "PGUSER=customers.username", "--env", "PGPASSWORD=customers.password"),
        *("--", *command),
        env={**house.environment, **libpq, "PATH": f"{postgres_binaries()}:{os.environ['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(30):
        while b"Ctrl-C" not in said:
            line = await process.stderr.readline()
            assert line, said
            said += line
    assert b"2 of group:support-leads, user:dpo@example.org" in said
    (task,) = set(re.findall(r"tm_[0-9a-z]{26}", said.decode()))
    return process, task


async def approve(house: House, task: str) -> None:
    """By both."""
    for key in (f"transit:approver-{house.environment['ANN']}", "jwk:lead.jwk"):
        await house.run(f"taskmint approvals approve {task} --key {key} --yes")


async def test_a_wrapped_command_waits_for_two_people_and_then_runs(house: House) -> None:
    """`taskmint run` says whom it needs and what they type; then psql has its account."""
    process, task = await wrapped(house, "psql", "-XAtc", "SELECT name FROM customers LIMIT 1")
    await approve(house, task)
    out, err = await process.communicate()
    ended = await house.workload.ask("GET", f"/v1/tasks/{task}")

    assert (process.returncode, out, err) == (0, b"Ada\n", b"")
    assert (ended.body["state"], ended.body["end_cause"]) == ("revoked", "succeeded")


async def test_a_wrapped_command_that_is_given_up_leaves_nothing_to_approve(house: House) -> None:
    """Ctrl-C: the request is cancelled and cannot be approved any more; nothing has run."""
    process, task = await wrapped(house, "echo", "ran")
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()

    assert (process.returncode, out) == (128 + signal.SIGINT, b"")
    assert f"request {task} is cancelled".encode() in err
    assert await house.run("taskmint approvals list") == "nothing waits for an approval\n"
    said = await house.run(
        f"taskmint approvals approve {task} --key jwk:lead.jwk --yes || test $? = 1"
    )
    assert "the request is over: cancelled" in said


async def test_a_python_program_waits_for_its_approval(house: House) -> None:
    """taskmint.client: the block begins once both have said yes."""
    told: asyncio.Queue[Waiting] = asyncio.Queue()
    svid = WorkloadApi(house.stack.workload_api.endpoint)

    async def program() -> tuple[str, str | None]:
        async with (
            TaskmintClient(str(house.stack.paths.task_socket), svid) as client,
            client.task(
                "agent-customer-lookup",
                told.put_nowait,
                parameters={"access": "write", "rows": 1},
                ticket="SUP-4711",
            ) as task,
        ):
            data = task.credentials["customers"].data
            house.canaries.plant(data["password"], "the program's password")
        assert task.ended is not None
        return task.id, task.ended.cause

    running = asyncio.create_task(program())
    view = await asyncio.wait_for(told.get(), 30)
    assert view.plan["ticket"] == "SUP-4711"
    await approve(house, view.id)
    assert await running == (view.id, "succeeded")


def _notices(house: House) -> list[str]:
    text = (house.desk / "notices").read_text()
    return text.replace("}{", "}\n{").splitlines()
