"""The auditor sees what comes, what goes and what changes, wherever it is."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.openbao import OpenBao
from taskmint.devstack.postgres import Postgres
from taskmint.devstack.psql import libpq_environment, postgres_binaries
from taskmint.model.secret import Secret

from auditor import Auditor, difference

pytestmark = pytest.mark.real


@pytest.fixture
def auditor(openbao: OpenBao, postgres: Postgres) -> Auditor:
    """An auditor of the two bare servers."""
    return Auditor(
        address=openbao.address,
        token=openbao.root_token.reveal(),
        libpq=libpq_environment(postgres.superuser_dsn()),
        psql=postgres_binaries() / "psql",
    )


@pytest.fixture
async def admin(openbao: OpenBao) -> AsyncIterator[BaoHttp]:
    """An administrator's session."""
    async with BaoHttp(openbao.address, openbao.root_token) as http:
        yield http


async def test_nothing_changes_by_looking(auditor: Auditor) -> None:
    """Two inventories in a row are equal, the auditor's own session included."""
    first = await asyncio.to_thread(auditor.inventory)

    assert difference(first, await asyncio.to_thread(auditor.inventory)) == []


async def test_everything_in_openbao_shows(auditor: Auditor, admin: BaoHttp) -> None:
    """Tokens, leases, policies, token roles, auth roles, entities: as they come and go."""
    before = await asyncio.to_thread(auditor.inventory)
    token = await admin.call("POST", "auth/token/create", {"display_name": "seen", "ttl": "1h"})
    await admin.call("PUT", "sys/policies/acl/seen", {"policy": "# one"})
    await admin.call("POST", "auth/token/roles/seen", {"orphan": True})
    await admin.call("POST", "sys/auth/seen", {"type": "approle"})
    await admin.call("POST", "auth/seen/role/seen", {"token_ttl": "1h"})
    await admin.call("POST", "identity/entity/name/seen", {"policies": ["seen"]})
    between = await asyncio.to_thread(auditor.inventory)
    await admin.call("PUT", "sys/policies/acl/seen", {"policy": "# two"})
    changed = await asyncio.to_thread(auditor.inventory)

    came = [line.split()[:2] for line in difference(before, between)]
    assert came == [
        ["+", "tokens:"],
        ["+", "leases:"],
        ["+", "policies:"],
        ["+", "token_roles:"],
        ["+", "auth_roles:"],
        ["+", "entities:"],
    ]
    assert [line.split()[:3] for line in difference(between, changed)] == [
        ["~", "policies:", "seen"]
    ]

    accessor = token.body["auth"]["accessor"]
    await admin.call("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    for path in ("sys/policies/acl", "auth/token/roles", "identity/entity/name"):
        await admin.call("DELETE", f"{path}/seen")
    await admin.call("DELETE", "sys/auth/seen")
    assert difference(before, await asyncio.to_thread(auditor.inventory)) == []


async def test_accounts_show(auditor: Auditor, postgres: Postgres) -> None:
    """An account, its loss of login, its end."""
    before = await asyncio.to_thread(auditor.inventory)
    await postgres.sql("CREATE ROLE seen LOGIN PASSWORD 'x' IN ROLE orders_ro_eu")
    with_account = await asyncio.to_thread(auditor.inventory)
    await postgres.sql("ALTER ROLE seen NOLOGIN")
    disabled = await asyncio.to_thread(auditor.inventory)
    await postgres.sql("DROP ROLE seen")

    assert [line.split()[:3] for line in difference(before, with_account)] == [
        ["+", "accounts:", "seen"]
    ]
    assert [line.split()[:3] for line in difference(with_account, disabled)] == [
        ["~", "accounts:", "seen"]
    ]
    assert difference(before, await asyncio.to_thread(auditor.inventory)) == []


async def test_a_session_shows_even_without_its_account(
    auditor: Auditor, postgres: Postgres
) -> None:
    """Dropping an account does not end its session: the session is still counted, by its oid."""
    await postgres.sql("CREATE ROLE seen LOGIN PASSWORD 'x' IN ROLE orders_ro_eu")
    (oid,) = await postgres.sql("SELECT oid FROM pg_roles WHERE rolname = 'seen'")
    session = await asyncio.create_subprocess_exec(
        *(str(postgres_binaries() / "psql"), "-X", "-q", "-At"),
        env=libpq_environment(postgres.dsn("seen", Secret("x"))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert session.stdin is not None
    assert session.stdout is not None
    session.stdin.write(b"SELECT pg_backend_pid();\n")
    pid = (await session.stdout.readline()).decode().strip()

    assert (await asyncio.to_thread(auditor.inventory)).sessions[pid] == "seen"
    await postgres.sql("DROP ROLE seen")
    assert (await asyncio.to_thread(auditor.inventory)).sessions[pid] == f"oid {oid}"

    session.stdin.close()
    await session.wait()
