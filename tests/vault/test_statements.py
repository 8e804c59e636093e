"""
The recommended statements, run by OpenBao as an account that is no superuser, against tasks that
defend themselves: after a revocation no login is possible, whatever the task did (P5).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from taskmint.devstack.postgres import Postgres
from taskmint.devstack.psql import libpq_environment, postgres_binaries, query
from taskmint.model.secret import Secret
from taskmint.policy.database import POSTGRESQL_REVOCATION
from taskmint.ports import Minted, TaskToken, TokenRequest
from taskmint.vault.client import VaultClient
from vault.ground import Ground, token_request

pytestmark = pytest.mark.real

Task = tuple[TokenRequest, TaskToken, Minted]


@contextlib.asynccontextmanager
async def session(login: Secret[str], statements: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Hold a session open that has run the statements, and did not leave it at an error."""
    client = await asyncio.create_subprocess_exec(
        *(str(postgres_binaries() / "psql"), "-X", "-q", "-At"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=libpq_environment(login) | {"LC_ALL": "C"},
    )
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        client.stdin.write(f"{statements}\n\\echo ready\n".encode())
        said = b""
        async with asyncio.timeout(10):
            while not said.endswith(b"ready\n"):
                line = await client.stdout.readline()
                assert line, said.decode()
                said += line
        yield client
    finally:
        if client.returncode is None:
            client.kill()
        await client.wait()
        client.stdin.close()


@pytest.fixture
async def lax(ground: Ground) -> AsyncIterator[Postgres]:
    """A database whose owner forgot to take TEMP and large objects from PUBLIC."""
    rights = "TEMPORARY ON DATABASE orders", "EXECUTE ON FUNCTION lo_create(oid)"
    await ground.postgres.sql("; ".join(f"GRANT {right} TO PUBLIC" for right in rights))
    yield ground.postgres
    await ground.postgres.sql("; ".join(f"REVOKE {right} FROM PUBLIC" for right in rights))


@pytest.fixture
async def task(client: VaultClient, ground: Ground) -> AsyncIterator[Task]:
    """A task with a database account."""
    request = token_request()
    token = await client.create_task_token(request)
    yield request, token, await client.mint(token, ground.warehouse())
    await client.revoke(token.revocable)


def login_of(task: Task, postgres: Postgres) -> Secret[str]:
    """The URL with the task's credential."""
    data = task[2].data.reveal()
    return postgres.dsn(str(data["username"]), Secret(str(data["password"])))


async def ended(task: Task, client: VaultClient, postgres: Postgres) -> None:
    """Revoke, and see: 204, gone, and no login with the credential or with any other password."""
    lease = task[2].revocable
    assert lease is not None
    await client.revoke(lease)
    assert await client.is_gone(lease)
    user = str(task[2].user_name)
    assert (await query(login_of(task, postgres), "SELECT 1")).status == 2
    assert (await query(postgres.dsn(user, Secret("chosen-by-the-task")), "SELECT 1")).status == 2
    can_login = f"SELECT count(*) FROM pg_roles WHERE rolname = '{user}' AND rolcanlogin"
    assert await postgres.sql(can_login) == ("0",)


async def test_the_unrevocable_account_is_revoked(
    client: VaultClient, ground: Ground, task: Task, lax: Postgres
) -> None:
    """A large object and a temporary table in an open session (decisions.md 3): no login after."""
    login = login_of(task, lax)
    async with session(login, "SELECT lo_create(0); CREATE TEMP TABLE mine (x int);") as client_of:
        await ended(task, client, lax)
        async with asyncio.timeout(10):
            assert client_of.stdin is not None
            client_of.stdin.write(b"SELECT count(*) FROM orders;\n")
            assert client_of.stdout is not None
            assert b"terminating connection" in await client_of.stdout.read()
    assert (await client.probe(task[0], ground.warehouse())).sessions == 0


@pytest.mark.parametrize(
    "defence",
    [
        "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'chosen-by-the-task';",
        "ALTER ROLE CURRENT_USER PASSWORD 'chosen-by-the-task';",
        "ALTER ROLE CURRENT_USER SET work_mem = '1MB';",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;",
        "BEGIN; SELECT lo_create(0); LOCK TABLE orders IN ACCESS SHARE MODE;",
        "SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO orders_ro_us;",
    ],
)
async def test_no_defence_keeps_a_login(
    client: VaultClient, task: Task, lax: Postgres, defence: str
) -> None:
    """Locks on its own row, other passwords, settings, grants: no login all the same."""
    async with session(login_of(task, lax), defence):
        await ended(task, client, lax)


async def test_what_cannot_be_dropped_is_seen_without_login(
    client: VaultClient, ground: Ground, task: Task, lax: Postgres
) -> None:
    """`disabled`: an object in another database keeps the role; the probe counts it."""
    user = str(task[2].user_name)
    await lax.sql(f'GRANT CONNECT ON DATABASE postgres TO "{user}"', database="postgres")
    await lax.sql("GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC", database="postgres")
    data = task[2].data.reveal()
    elsewhere = lax.dsn(user, Secret(str(data["password"])), "postgres")
    assert (await query(elsewhere, "SELECT lo_create(0)")).status == 0
    await ended(task, client, lax)
    assert (await client.probe(task[0], ground.warehouse())).roles == 1
    await lax.sql(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"', database="postgres")
    assert (await client.probe(task[0], ground.warehouse())).roles == 0


async def test_a_session_that_slips_in_is_ended_by_the_probe(
    client: VaultClient, ground: Ground, task: Task
) -> None:
    """A login between the statements and their commit: its account is gone, its session counted."""
    postgres = ground.postgres
    user = str(task[2].user_name)
    async with session(login_of(task, postgres), "SELECT 1;"):
        # What a lost race leaves behind: the role dropped under a session that goes on.
        await postgres.sql(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"')
        assert (await client.probe(task[0], ground.warehouse())).sessions == 1
        async with asyncio.timeout(10):
            while (await client.probe(task[0], ground.warehouse())).sessions:
                pass


async def test_p5_a_client_that_reconnects_in_a_loop_is_proven_out(
    client: VaultClient, ground: Ground, task: Task
) -> None:
    """P5: logins that raced with the revocation (decisions.md 4) are counted until none is."""
    login, user = login_of(task, ground.postgres), str(task[2].user_name)
    opened = (
        "SELECT count(*) FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid "
        f"WHERE a.usename = '{user}' OR (a.usesysid IS NOT NULL AND r.oid IS NULL)"
    )

    async def hammer() -> None:
        while True:
            await query(login, "SELECT pg_sleep(30)")

    hammering = [asyncio.create_task(hammer()) for _ in range(6)]
    try:
        async with asyncio.timeout(20):
            while await ground.postgres.sql(opened) < ("4",):
                await asyncio.sleep(0.05)
        lease = task[2].revocable
        assert lease is not None
        await client.revoke(lease)
        async with asyncio.timeout(20):
            while (await client.probe(task[0], ground.warehouse())).sessions:
                pass
        assert await ground.postgres.sql(opened) == ("0",)
        assert (await query(login, "SELECT 1")).status == 2
    finally:
        for one in hammering:
            one.cancel()
        await asyncio.gather(*hammering, return_exceptions=True)


async def test_the_account_that_revokes_is_no_superuser(ground: Ground) -> None:
    """What all of this was run as: CREATEROLE and pg_signal_backend, nothing else."""
    asked = "SELECT rolsuper, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname = 'vault'"
    assert await ground.postgres.sql(asked) == ("f|t|f",)


async def test_a_later_revision_of_the_task_goes_on(client: VaultClient, ground: Ground) -> None:
    """The probe of one revision leaves the sessions of the next alone, though they share a name."""
    request = token_request()
    old, new = [await client.create_task_token(request) for _ in range(2)]
    first, second = [await client.mint(token, ground.warehouse()) for token in (old, new)]
    login = login_of((request, new, second), ground.postgres)
    async with session(login, "SELECT 1;") as open_session:
        assert first.revocable is not None
        await client.revoke(first.revocable)
        probed = await client.probe(request, ground.warehouse())
        assert (probed.sessions, probed.roles) == (0, 0)
        assert open_session.returncode is None
        assert (await query(login, "SELECT 1")).status == 0
    await client.revoke(old.revocable)
    await client.revoke(new.revocable)


async def test_revoking_again_succeeds(client: VaultClient, task: Task, ground: Ground) -> None:
    """A second revocation of the same account, as after a lost answer, finds nothing to do."""
    user = str(task[2].user_name)
    statements = POSTGRESQL_REVOCATION.replace("{{name}}", user)
    vault = ground.postgres.dsn("vault", ground.postgres.vault_password)
    for _ in range(2):
        assert (await query(vault, statements)).status == 0
    await ended(task, client, ground.postgres)
