"""The stack is set up as an administrator would, and whole."""

import asyncio
import json
import os
import stat
import tempfile
from pathlib import Path

import pytest

from taskmint.devstack.daemon_process import daemon_environment
from taskmint.devstack.process import StackError
from taskmint.devstack.psql import query
from taskmint.devstack.stack import DAEMON, STRANGER, WORKLOAD, Stack
from taskmint.devstack.stack_files import DAEMON_ID, WORKLOAD_ID
from taskmint.model.secret import Secret

from auditor import Auditor, difference

pytestmark = pytest.mark.real

SCRIPT = Path(__file__).with_name("fetch_svid.py")


async def identity(stack: Stack, name: str, audience: str = "taskmint") -> list[str]:
    """Ask the Workload API as one of the stack's programs: [SPIFFE ID, token], or [status]."""
    process = await asyncio.create_subprocess_exec(
        *(str(stack.python[name]), str(SCRIPT), str(stack.paths.workload_socket)),
        *(str(os.geteuid()), audience),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return out.decode().split()


async def test_each_program_has_its_identity(stack: Stack) -> None:
    """The daemon and the workload have one each; the stranger has none."""
    assert (await identity(stack, DAEMON))[0] == DAEMON_ID
    assert (await identity(stack, WORKLOAD))[0] == WORKLOAD_ID
    assert await identity(stack, STRANGER) == ["PERMISSION_DENIED"]


@pytest.mark.parametrize("region", ["eu", "us"])
async def test_a_role_reads_its_region_and_ends(
    stack: Stack, auditor: Auditor, region: str
) -> None:
    """A credential of the database role reads one region's orders, until its lease is revoked."""
    before = await asyncio.to_thread(auditor.inventory)
    async with stack.admin() as vault:
        made = await vault.call("GET", f"database/creds/orders-ro-{region}")
        dsn = stack.postgres.dsn(made.data["username"], Secret(made.data["password"]))
        assert (await query(dsn, "SELECT DISTINCT region FROM orders")).rows == (region,)
        assert made.body["lease_duration"] == 10

        lease = {"lease_id": made.body["lease_id"], "sync": True}
        assert (await vault.send("PUT", "sys/leases/revoke", lease)).status == 204
    assert "28P01" in (await query(dsn, "SELECT 1")).errors or (
        "authentication failed" in (await query(dsn, "SELECT 1")).errors
    )
    assert difference(before, await asyncio.to_thread(auditor.inventory)) == []


async def test_the_daemon_logs_in_with_its_svid_and_nobody_else(stack: Stack) -> None:
    """Vault believes the stack's trust domain, through the plan's role, for the daemon alone."""
    for name, wanted in ((DAEMON, 200), (WORKLOAD, 400)):
        _, token = await identity(stack, name, "vault")
        async with stack.admin() as vault:
            answer = await vault.send("POST", "auth/jwt/login", {"role": "taskmint", "jwt": token})
            assert answer.status == wanted
            if answer.status == 200:
                accessor = {"accessor": answer.body["auth"]["accessor"]}
                await vault.call("POST", "auth/token/revoke-accessor", accessor)


async def test_vault_reads_rotated_keys(stack: Stack) -> None:
    """After the trust domain's keys were replaced, a fresh SVID still logs the daemon in."""
    await stack.workload_api.rotate_jwt(retire=True)
    _, token = await identity(stack, DAEMON, "vault")
    async with stack.admin() as vault:
        answer = await vault.call("POST", "auth/jwt/login", {"role": "taskmint", "jwt": token})
        accessor = {"accessor": answer.body["auth"]["accessor"]}
        await vault.call("POST", "auth/token/revoke-accessor", accessor)


async def test_applying_again_changes_nothing(stack: Stack, auditor: Auditor) -> None:
    """`taskmint vault apply` has already done all that it would do."""
    before = await asyncio.to_thread(auditor.inventory)
    await stack.apply()

    assert difference(before, await asyncio.to_thread(auditor.inventory)) == []


async def test_the_root_token_is_in_its_file_only(stack: Stack) -> None:
    """The variables show no secret; the file is for its owner."""
    token = stack.bao.root_token.reveal()

    assert token not in json.dumps(stack.environment())
    assert stack.paths.root_token.read_text() == token
    assert stat.S_IMODE(stack.paths.root_token.stat().st_mode) == 0o600
    assert token not in repr(stack)


def test_the_daemon_is_given_no_token() -> None:
    """What could lend the daemon an identity or an address is not passed on."""
    given = {name.partition("_")[0] for name in daemon_environment()}

    assert not given & {"VAULT", "BAO", "SPIFFE", "TASKMINT"}


async def test_a_part_that_fails_takes_the_others_along() -> None:
    """PostgreSQL cannot start here; what had started already is stopped, and nothing is left."""
    with tempfile.TemporaryDirectory() as base:
        deep = Path(base) / ("d" * 80)

        with pytest.raises(StackError, match="too long for a Unix socket"):
            async with Stack.running(deep):
                pass

        assert not deep.exists()
