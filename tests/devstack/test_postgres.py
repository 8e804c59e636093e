"""The embedded PostgreSQL is a real one, with the rights that the design asks for."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from taskmint.devstack.postgres import SUPERUSER, VAULT_USER, Postgres
from taskmint.devstack.process import StackError
from taskmint.devstack.psql import query
from taskmint.model.secret import Secret

pytestmark = pytest.mark.real

WORD = Secret("a-word-of-the-test")
CREATE = f"CREATE ROLE task LOGIN PASSWORD '{WORD.reveal()}' IN ROLE orders_ro_eu"


@pytest.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[Postgres]:
    """A server of the test's own, which it may stop and kill."""
    async with Postgres.running(tmp_path) as postgres:
        yield postgres


@pytest.fixture
async def task(postgres: Postgres) -> AsyncIterator[Secret[str]]:
    """The URL of an account such as Vault makes for one task, made by Vault's own account."""
    vault = postgres.dsn(VAULT_USER, postgres.vault_password)
    made = await query(vault, CREATE)
    assert made.errors == ""
    yield postgres.dsn("task", WORD)
    assert (await query(vault, "DROP ROLE task")).errors == ""


async def test_no_login_without_the_password(postgres: Postgres) -> None:
    """SCRAM decides, over TCP and over the Unix socket alike."""
    assert (await query(postgres.dsn(SUPERUSER, WORD), "SELECT 1")).status == 2
    rules = "SELECT DISTINCT auth_method FROM pg_hba_file_rules"
    assert await postgres.sql(rules) == ("scram-sha-256",)


async def test_vault_is_no_superuser(postgres: Postgres) -> None:
    """Vault's account makes roles, and no more: it reads no order and makes no superuser."""
    vault = postgres.dsn(VAULT_USER, postgres.vault_password)

    assert (await query(vault, "SHOW createrole_self_grant")).rows == ("set, inherit",)
    assert (await query(vault, "SHOW is_superuser")).rows == ("off",)
    assert "42501" in (await query(vault, "SELECT * FROM orders")).errors
    assert "42501" in (await query(vault, "SET ROLE orders_ro_eu")).errors
    assert "42501" in (await query(vault, "CREATE ROLE boss SUPERUSER")).errors
    assert "42501" in (await query(vault, f"GRANT vault TO {SUPERUSER}")).errors


async def test_a_task_reads_its_region_only(task: Secret[str]) -> None:
    """The server filters the rows."""
    assert (await query(task, "SELECT DISTINCT region FROM orders")).rows == ("eu",)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMP TABLE t (i int)",
        "CREATE TABLE t (i int)",
        "CREATE SCHEMA s",
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_import('/etc/hostname')",
        "DELETE FROM orders",
        "SELECT passwd FROM pg_shadow",
    ],
)
async def test_a_task_leaves_nothing_behind(task: Secret[str], statement: str) -> None:
    """Nothing that would keep the account from being dropped can be made by a task."""
    assert "42501" in (await query(task, statement)).errors


async def test_a_task_sees_one_database(postgres: Postgres, task: Secret[str]) -> None:
    """The other databases of the cluster let nobody in by default."""
    del task
    for other in ("postgres", "template1"):
        assert (await query(postgres.dsn("task", WORD, other), "SELECT 1")).status == 2


async def test_it_keeps_what_it_holds_over_stop_and_kill(fresh: Postgres) -> None:
    """After a stop and after a SIGKILL the same data stand at the same port."""
    port, count = fresh.port, await fresh.sql("SELECT count(*) FROM orders")

    await fresh.stop()
    await fresh.start()
    assert await fresh.sql("SELECT count(*) FROM orders") == count

    await fresh.kill()
    with pytest.raises(StackError, match="refused"):
        await fresh.sql("SELECT 1")
    await fresh.start()
    assert await fresh.sql("SELECT count(*) FROM orders") == count
    assert fresh.port == port


async def test_no_password_is_in_the_log(fresh: Postgres) -> None:
    """A CREATE ROLE that fails is not logged with its password."""
    for _ in range(2):
        await query(fresh.dsn(VAULT_USER, fresh.vault_password), CREATE)

    log = (fresh.directory / "server.log").read_text()
    assert 'role "task" already exists' in log
    assert WORD.reveal() not in log
    assert fresh.vault_password.reveal() not in log


async def test_a_path_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    """A directory in which no Unix socket fits is refused with a sentence."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()

    with pytest.raises(StackError, match="too long"):
        async with Postgres.running(deep):
            pass


WITHOUT = """
import asyncio, sys
from pathlib import Path
from taskmint.devstack.postgres import Postgres

async def run():
    async with Postgres.running(Path(sys.argv[1])) as postgres:
        pid = (Path(sys.argv[1]) / "data" / "postmaster.pid").read_text().split()[0]
        owner = Path(f"/proc/{pid}").stat().st_uid
        print(*await postgres.sql("SELECT count(*) FROM orders"), owner)
        await postgres.kill()
        await postgres.start()
        print(*await postgres.sql("SELECT count(*) FROM orders"))

asyncio.run(run())
"""


def test_where_user_namespaces_are_forbidden(tmp_path: Path) -> None:
    """As in many containers: root becomes nobody instead, and everything else is the same."""
    refusing = tmp_path / "bin" / "unshare"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\nexit 1\n")
    refusing.chmod(0o755)
    directory = tmp_path / "postgres"
    directory.mkdir()

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, directory],
        env={**os.environ, "PATH": f"{refusing.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )

    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    assert done.stderr == ""
    assert done.stdout.split() == ["60", str(uid), "60"]
