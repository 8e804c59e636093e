"""
Database roles that exist for one task, on the real servers: the whole way, and each bound tried
from beyond with the daemon's own token (P1, P3, P5).
"""

import asyncio
from dataclasses import replace

import pytest

from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.psql import query
from taskmint.errors import BackendFailed, Code, Unavailable
from taskmint.model.scope import Entitlement, Ephemeral
from taskmint.model.secret import Secret
from taskmint.model.task_id import TaskId, revision_name
from taskmint.policy.acl import Rule
from taskmint.policy.database import POSTGRESQL_REVOCATION
from taskmint.ports import Minted, ProbeResult, TaskToken, TokenRequest, Written
from taskmint.vault.client import VaultClient
from vault.ground import LOG, NODE, POLICY, Ground, plan_from, token_request, until

pytestmark = pytest.mark.real


def task() -> tuple[TokenRequest, str]:
    """A task of `keeper`, and the name of its first revision."""
    request = token_request("keeper")
    return request, revision_name(NODE, TaskId(request.meta["task"]), 1)


def first(entitlement: Entitlement) -> Ephemeral:
    """What has to be written first."""
    assert entitlement.ephemeral is not None
    return entitlement.ephemeral


async def minted(
    client: VaultClient, ground: Ground
) -> tuple[TokenRequest, TaskToken, Entitlement, Minted]:
    """A task that has its role and its account."""
    request, name = task()
    books = ground.books(name)
    token, _ = await asyncio.gather(
        client.create_task_token(request), client.write(request, first(books))
    )
    return request, token, books, await client.mint(token, books)


def login_of(made: Minted, ground: Ground) -> Secret[str]:
    """The URL with the credential."""
    data = made.data.reveal()
    return ground.postgres.dsn(str(data["username"]), Secret(str(data["password"])))


async def test_a_task_from_its_role_to_its_end(
    client: VaultClient, ground: Ground, admin: BaoHttp
) -> None:
    """P1, P5: nothing before, a role and an account meanwhile, nothing after."""
    request, token, books, made = await minted(client, ground)
    role = (await admin.call("GET", first(books).path)).data
    assert role["default_ttl"] == 60
    assert role["max_ttl"] == 1860
    assert role["creation_statements"] == first(books).body["creation_statements"]
    assert role["revocation_statements"] == [POSTGRESQL_REVOCATION.strip()]
    login = login_of(made, ground)
    assert (await query(login, "SELECT DISTINCT region FROM orders")).rows == ("eu",)
    assert made.user_name is not None
    assert made.user_name.startswith(f"{request.display_name}-")
    assert made.revocable is not None
    await client.renew(made.revocable, token.ttl)
    assert await client.written(NODE) == [Written(first(books).path, TaskId(request.meta["task"]))]

    await client.revoke(made.revocable)
    assert await client.is_gone(made.revocable)
    assert await client.probe(request, books) == ProbeResult(sessions=0, roles=0)
    await client.revoke(token.revocable)
    await client.delete(first(books).path)

    assert (await query(login, "SELECT 1")).status == 2
    assert (await admin.send("GET", first(books).path)).status == 404
    assert await client.written(NODE) == []
    await client.delete(first(books).path)


async def test_a_lease_ends_also_when_its_role_went_first(
    client: VaultClient, ground: Ground
) -> None:
    """A lease of which nobody heard, by the token that owns it; it could not be renewed."""
    _, token, books, made = await minted(client, ground)
    assert made.revocable is not None
    lease = made.revocable
    await client.delete(first(books).path)
    with pytest.raises(BackendFailed):
        await client.renew(lease, token.ttl)
    await client.revoke(token.revocable)
    await until(lambda: client.is_gone(lease))
    assert (await query(login_of(made, ground), "SELECT 1")).status == 2


async def test_the_statements_are_pinned_by_the_server(
    daemon: BaoHttp, ground: Ground, admin: BaoHttp
) -> None:
    """P3: each field exactly as planned, none missing, none beside them, in no other form."""
    _, name = task()
    role = first(ground.books(name))
    body = dict(role.body)
    creation = body["creation_statements"]
    assert isinstance(creation, list)
    beyond: list[dict[str, object]] = [
        {**body, "creation_statements": [*creation, "ALTER ROLE postgres SUPERUSER"]},
        {**body, "creation_statements": [f"{creation[0]}; ALTER ROLE x SUPERUSER", creation[1]]},
        {**body, "creation_statements": creation[:1]},
        {**body, "creation_statements": creation[::-1]},
        {**body, "creation_statements": "\n".join(map(str, creation))},
        {**body, "creation_statements": creation[0]},
        {**body, "creation_statements": []},
        {**body, "creation_statements": None},
        {**body, "revocation_statements": []},
        {**body, "revocation_statements": ["SELECT 1"]},
        {**body, "rollback_statements": ["DROP TABLE orders"]},
        {**body, "renew_statements": ["DROP TABLE orders"]},
        {**body, "credential_type": "rsa_private_key"},
        {**body, "db_name": "orders"},
        {**body, "default_ttl": "768h"},
        {**body, "default_ttl": 60},
        {**body, "max_ttl": "0"},
    ]
    beyond.extend({key: body[key] for key in body.keys() - {missing}} for missing in body)
    for other in beyond:
        assert (await daemon.send("POST", role.path, other)).status == 403, other
    for elsewhere in (
        f"{ground.mount}/roles/orders-ro-eu",
        f"{ground.mount}/roles/taskmint-probe-db.tasks",
        f"{ground.mount}/roles/taskmint-db-keeper.books.us.{name}",
        f"{ground.mount}/roles/taskmint-db-keeper.other.{name}",
        f"{ground.mount}/static-roles/taskmint-db-keeper.books.eu.{name}",
        f"{ground.mount}/config/tasks",
    ):
        assert (await daemon.send("POST", elsewhere, body)).status == 403, elsewhere

    assert (await daemon.send("POST", role.path, body)).status in {200, 204}
    assert (await daemon.send("POST", role.path, body)).status == 403  # none is changed
    assert (await daemon.send("GET", role.path)).status == 403
    for foreign in ("orders-ro-eu", "taskmint-probe-db.tasks", "taskmint-probe-orders-ro-eu"):
        assert (await daemon.send("DELETE", f"{ground.mount}/roles/{foreign}")).status == 403
    assert (await daemon.send("GET", role.path.replace("/roles/", "/creds/"))).status == 403
    await daemon.call("DELETE", role.path)
    assert (await admin.send("GET", role.path)).status == 404


async def test_a_leftover_of_a_definition_that_is_gone_can_be_deleted(
    daemon: BaoHttp, ground: Ground, admin: BaoHttp
) -> None:
    """By its name alone, whatever its statements; reading and writing it stays refused."""
    path = f"{ground.mount}/roles/taskmint-db-former.x.{task()[1]}"
    await admin.call("POST", path, {"db_name": "tasks", "creation_statements": ["SELECT 1"]})
    assert (await daemon.send("POST", path, {"db_name": "tasks"})).status == 403
    await daemon.call("DELETE", path)
    assert (await admin.send("GET", path)).status == 404


async def test_a_restart_under_a_policy_without_the_definition_still_deletes_its_roles(
    client: VaultClient, ground: Ground, admin: BaoHttp
) -> None:
    """No `database` is left in it, and nothing is remembered; the task would stay `revoking`."""
    _, name = task()
    role = first(ground.books(name))
    await client.write(token_request("keeper"), role)
    plan = plan_from(POLICY.replace("MOUNT", ground.mount))
    assert not plan.task_object_places
    settings = ground.settings(unsafe_allow_wide_rights=True)  # the old plan stands there
    async with VaultClient(settings, plan, ground.signer.fetch, LOG) as restarted:
        await restarted.delete(role.path)
    assert (await admin.send("GET", role.path)).status == 404
    (own,) = (plan.policies[policy] for policy in plan.daemon_policies)
    assert Rule(f"{ground.mount}/roles/taskmint-db-*", ("delete",), {}) in own.rules


async def test_a_task_token_reads_roles_of_its_own_combination_only(
    client: VaultClient, ground: Ground
) -> None:
    """P3: held to the plan in the process, and by the server when the process is out of the way."""
    request, token, books, made = await minted(client, ground)
    other = ground.books(task()[1], "us")
    with pytest.raises(BackendFailed) as outside:
        await client.mint(token, other)
    assert (outside.value.code, outside.value.created_nothing) == (Code.INTERNAL_ERROR, True)
    async with BaoHttp(ground.address, token.token) as held:
        for method, path in (
            ("GET", f"{ground.mount}/{other.path}"),
            ("GET", first(books).path),
            ("DELETE", first(books).path),
            ("GET", f"{ground.mount}/creds/taskmint-db-keeper.books.eu"),
        ):
            assert (await held.send(method, path)).status == 403
    assert made.revocable is not None
    await client.revoke(made.revocable)
    await client.revoke(token.revocable)
    await client.delete(first(books).path)
    with pytest.raises(BackendFailed):
        await client.write(request, replace(first(other), path=f"{ground.mount}/roles/x"))


async def test_a_role_that_was_not_written_mints_nothing(
    client: VaultClient, ground: Ground
) -> None:
    """An unknown role: 503 `plan_not_applied`, and provably nothing was made."""
    request, name = task()
    token = await client.create_task_token(request)
    with pytest.raises(Unavailable) as unknown:
        await client.mint(token, ground.books(name))
    assert (unknown.value.code, unknown.value.created_nothing) == (Code.PLAN_NOT_APPLIED, True)
    await client.revoke(token.revocable)


async def test_the_connection_is_kept_for_such_roles(ground: Ground, admin: BaoHttp) -> None:
    """`apply` allowed them and their probe there, and nothing else."""
    allowed = (await admin.call("GET", f"{ground.mount}/config/tasks")).data["allowed_roles"]
    assert sorted(allowed) == ["taskmint-db-*", "taskmint-probe-db.tasks"]
