"""The recommended statements for MariaDB, run by OpenBao's own plugin; their lints, everywhere."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.loopback import HOST
from taskmint.devstack.openbao import OpenBao
from taskmint.devstack.postgres import Postgres
from taskmint.model.secret import Secret
from taskmint.policy.database import USERNAME_TEMPLATE
from taskmint.policy.mysql import (
    MARIADB_CREATION,
    MARIADB_PREPARATION,
    MARIADB_REVOCATION,
    MYSQL_REVOCATION,
    lint_mysql_creation,
    lint_mysql_revocation,
)
from taskmint.ports import Minted, TaskToken, TokenRequest
from taskmint.vault.client import VaultClient
from vault.engines import TASK, asking_for, holding
from vault.ground import LOG, Ground, token_request
from vault.mariadb import MariaDb, is_installed, mariadb_running

real = pytest.mark.real
present = pytest.mark.skipif(not is_installed(), reason="mariadbd is not installed")
POLICY = "version: 1\ntasks:\n" + TASK.replace("NAME", "maria").replace(
    "ENTITLEMENT", "secret: {mount: maria, path: creds/orders, proof: login}"
)
DROP = {"revocation_statements": ["DROP USER '{{name}}'@'%'"]}
Task = tuple[TokenRequest, TaskToken, Minted]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mariadb(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MariaDb]:
    """A server for this module, prepared as `taskmint vault statements mariadb` says."""
    async with mariadb_running(tmp_path_factory.mktemp("m"), MARIADB_PREPARATION) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def maria(
    tmp_path_factory: pytest.TempPathFactory, mariadb: MariaDb, postgres: Postgres
) -> AsyncIterator[Ground]:
    """An OpenBao with a mount for it, holding the plan."""
    async with (
        OpenBao.running(tmp_path_factory.mktemp("maria")) as bao,
        holding(bao, postgres, POLICY, lambda admin: mount(admin, mariadb)) as ground,
    ):
        yield ground


async def mount(admin: BaoHttp, mariadb: MariaDb) -> None:
    """Do what an admin does, with the printed statements."""
    await admin.call("POST", "sys/mounts/maria", {"type": "database"})
    connection = {
        "plugin_name": "mysql-database-plugin",
        "connection_url": f"{{{{username}}}}:{{{{password}}}}@tcp({HOST}:{mariadb.port})/",
        "username": "vault",
        "password": mariadb.vault_password.reveal(),
        "allowed_roles": ["orders"],
        "username_template": USERNAME_TEMPLATE,
    }
    await admin.call("POST", "maria/config/orders", connection)
    role = {
        "db_name": "orders",
        "default_ttl": "60s",
        "max_ttl": "1h",
        "creation_statements": [MARIADB_CREATION],
        "revocation_statements": [MARIADB_REVOCATION],
    }
    await admin.call("POST", "maria/roles/orders", role)


@pytest.fixture
async def client(maria: Ground) -> AsyncIterator[VaultClient]:
    """A daemon's client."""
    async with VaultClient(maria.settings(), maria.plan, maria.signer.fetch, LOG) as client:
        yield client


@pytest.fixture
async def task(client: VaultClient) -> AsyncIterator[Task]:
    """A task with an account."""
    request = token_request("maria", "")
    token = await client.create_task_token(request)
    yield request, token, await client.mint(token, asking_for("maria", policy=POLICY))
    await client.revoke(token.revocable)


def login_of(task: Task) -> tuple[str, Secret[str]]:
    """Name and password."""
    data = task[2].data.reveal()
    return str(data["username"]), Secret(str(data["password"]))


async def revoked(client: VaultClient, task: Task) -> None:
    """Revoke, and see that the lease is gone."""
    lease = task[2].revocable
    assert lease is not None
    await client.revoke(lease)
    assert await client.is_gone(lease)


@real
@present
async def test_p5_no_login_and_no_session_outlives_the_revocation(
    client: VaultClient, mariadb: MariaDb, task: Task
) -> None:
    """P5: an open session ends, a new login is refused, and the account bears the task's name."""
    user, password = login_of(task)
    assert user.startswith(task[0].display_name)
    assert await mariadb.login(user, password, "SELECT count(*) FROM orders.eu") == (0, "2\n")

    async with mariadb.session(user, password) as open_session:
        await revoked(client, task)
        async with asyncio.timeout(5):
            assert open_session.stdin is not None
            open_session.stdin.write(b"SELECT 1;\n")
            assert await open_session.wait() != 0
    status, said = await mariadb.login(user, password, "SELECT 1")
    assert (status, "Access denied" in said) == (1, True)
    assert await mariadb.sql(f"SELECT count(*) FROM mysql.user WHERE user = '{user}'") == ["0"]


@real
@present
async def test_p5_a_client_that_reconnects_in_a_loop_is_out(
    client: VaultClient, mariadb: MariaDb, task: Task
) -> None:
    """P5: locked first, then killed, so nobody slips in between."""
    user, password = login_of(task)

    async def hammer() -> None:
        while True:
            await mariadb.login(user, password, "SELECT sleep(30)")

    hammering = [asyncio.create_task(hammer()) for _ in range(4)]
    try:
        async with asyncio.timeout(10):
            while await mariadb.sessions(user) < 4:
                await asyncio.sleep(0.05)
        await revoked(client, task)
        assert await mariadb.sessions(user) == 0
    finally:
        for one in hammering:
            one.cancel()
        await asyncio.gather(*hammering, return_exceptions=True)


@real
@present
async def test_an_account_that_is_gone_already_is_revoked(
    client: VaultClient, mariadb: MariaDb, task: Task
) -> None:
    """Dropped by hand, or by a revocation whose answer was lost."""
    await mariadb.sql(f"DROP USER '{login_of(task)[0]}'@'%'")
    await revoked(client, task)


@real
@present
async def test_dropping_the_account_alone_leaves_the_session(
    client: VaultClient, maria: Ground, mariadb: MariaDb, task: Task
) -> None:
    """Why the other statements are there: what is open goes on, without an account."""
    user, password = login_of(task)
    async with maria.admin() as admin, mariadb.session(user, password) as open_session:
        role = (await admin.call("GET", "maria/roles/orders")).body["data"]
        await admin.call("POST", "maria/roles/orders", {**role, **DROP})
        try:
            await revoked(client, task)
        finally:
            await admin.call("POST", "maria/roles/orders", role)
        assert open_session.stdin is not None
        assert open_session.stdout is not None
        open_session.stdin.write(b"SELECT 'still here';\n")
        async with asyncio.timeout(5):
            assert b"still here" in await open_session.stdout.readline()


def test_the_recommended_statements_pass_their_lints() -> None:
    """Both products' own."""
    assert list(lint_mysql_creation([MARIADB_CREATION])) == []
    assert list(lint_mysql_revocation([MARIADB_REVOCATION])) == []
    assert list(lint_mysql_revocation([MYSQL_REVOCATION])) == []
    assert list(lint_mysql_revocation([MYSQL_REVOCATION.lower()])) == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("GRANT ALL ON orders.* TO x", "grants ALL"),
        ("GRANT SELECT ON orders.* TO x WITH GRANT OPTION", "hand on rights: WITH GRANT OPTION"),
        ("GRANT SELECT, FILE ON *.* TO x", "gives FILE"),
        ("grant all on orders.* to x", "grants ALL"),
        ("GRANT CREATE USER ON *.* TO x", "gives CREATE USER"),
        ("GRANT EVENT ON orders.* TO x", "runs as it: EVENT"),
        ("GRANT CREATE  VIEW ON orders.* TO x", "runs as it: CREATE VIEW"),
    ],
)
def test_lints_of_a_creation(statement: str, said: str) -> None:
    """What a task could do with its account, or leave behind."""
    (finding,) = lint_mysql_creation([MARIADB_CREATION, statement])
    assert said in finding


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("ACCOUNT LOCK", "never locks the account"),
        ("KILL USER", "ends no open session"),
        ("DROP USER", "leaves the account"),
        ("IF EXISTS", "already gone"),
    ],
)
def test_lints_of_a_revocation(without: str, said: str) -> None:
    """Each of the steps missing."""
    (finding,) = lint_mysql_revocation([MARIADB_REVOCATION.replace(without, "")])
    assert said in finding


def test_a_lock_comes_first() -> None:
    """And nothing at all is a finding as well."""
    lock, *rest = MARIADB_REVOCATION.splitlines()
    (finding,) = lint_mysql_revocation([*rest, lock])
    assert finding == "its revocation locks the account only after it is dropped"
    (finding,) = lint_mysql_revocation([])
    assert finding == "it has no revocation statements, and Vault's own end no open session"
