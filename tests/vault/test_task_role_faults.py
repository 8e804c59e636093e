"""What a server may answer when something is written for one task, listed or deleted (P8)."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from aiohttp import web

from taskmint.errors import BackendFailed, Code, Unavailable
from taskmint.model.scope import Ephemeral
from taskmint.model.task_id import TaskId, revision_name
from taskmint.policy.plan_objects import PlanSettings
from taskmint.ports import TokenRequest, Written
from taskmint.vault.client import VaultClient
from taskmint.vault.settings import VaultSettings
from vault.fake_server import (
    FakeVaultServer,
    Fault,
    answering,
    errors,
    lose_the_reply,
    say_nothing,
)
from vault.ground import KEEPER, LOG, NODE, Signer, plan_from, token_request

PLAN = plan_from(("version: 1\ntasks:\n" + KEEPER).replace("MOUNT", "warehouse"), PlanSettings())
ROLES = "warehouse/roles"
PERMISSION_DENIED = "1 error occurred:\n\t* permission denied\n\n"


@pytest.fixture
async def server() -> AsyncIterator[FakeVaultServer]:
    """A server of the test's own."""
    async with FakeVaultServer(PLAN).running() as running:
        yield running


@pytest.fixture
async def client(server: FakeVaultServer) -> AsyncIterator[VaultClient]:
    """A client that has logged in."""
    settings = VaultSettings(server.address, timeout=timedelta(seconds=1))
    async with VaultClient(settings, PLAN, Signer().fetch, LOG) as client:
        yield client


def task() -> tuple[TokenRequest, Ephemeral]:
    """A task and the role that has to be written for it."""
    request = token_request("keeper")
    name = revision_name(NODE, TaskId(request.meta["task"]), 1)
    (role,) = (role for role in PLAN.task_roles if role.beginning.endswith(".eu"))
    return request, Ephemeral(f"{ROLES}/{role.beginning}.{name}", role.fields)


async def test_a_role_is_written_once(server: FakeVaultServer, client: VaultClient) -> None:
    """204 is success, and one request was sent."""
    server.faults.append((ROLES, answering(web.Response(status=204))))
    request, role = task()
    await client.write(request, role)
    assert [seen for seen in server.seen if seen[1].startswith(ROLES)] == [("POST", role.path)]


@pytest.mark.parametrize("fault", [lose_the_reply, say_nothing])
async def test_a_lost_answer_to_a_write_is_unknown_and_not_asked_for_again(
    server: FakeVaultServer,
    client: VaultClient,
    fault: Fault,
) -> None:
    """P8: perhaps the role is there; it is for the task's end to delete it."""
    server.faults.append((ROLES, fault))
    with pytest.raises(Unavailable) as lost:
        await client.write(*task())
    assert (lost.value.code, lost.value.created_nothing) == (Code.VAULT_UNAVAILABLE, False)
    assert server.count(ROLES) == 1


@pytest.mark.parametrize(
    ("answer", "nothing"),
    [
        (errors(403, PERMISSION_DENIED), True),
        (errors(503, "Vault is sealed"), True),
        (errors(429, "request path: rate limit quota exceeded"), True),
        (errors(400, "db_name is empty"), False),
        (errors(500, "internal error"), False),
        (web.Response(status=200, text="<html>"), False),
    ],
)
async def test_a_failed_write_says_whether_anything_was_written(
    server: FakeVaultServer, client: VaultClient, answer: web.Response, nothing: bool
) -> None:
    """As for everything that makes something."""
    server.faults.append((ROLES, answering(answer)))
    with pytest.raises((Unavailable, BackendFailed)) as failed:
        await client.write(*task())
    assert isinstance(failed.value, Unavailable | BackendFailed)
    assert failed.value.created_nothing is nothing


async def test_what_the_plan_does_not_hold_is_not_sent(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """P3: another statement, another name, another object."""
    request, role = task()
    others = [
        Ephemeral(role.path, {**role.body, "creation_statements": ["GRANT x TO y"]}),
        Ephemeral(f"{ROLES}/orders-ro-eu", role.body),
        Ephemeral("sys/policies/acl/taskmint-hand-x", {"policy": ""}),
    ]
    for other in others:
        with pytest.raises(BackendFailed) as outside:
            await client.write(request, other)
        assert (outside.value.code, outside.value.created_nothing) == (Code.INTERNAL_ERROR, True)
    with pytest.raises(BackendFailed):
        await client.delete(f"{ROLES}/orders-ro-eu")
    assert server.count(ROLES) == 0


@pytest.mark.parametrize("answer", [web.Response(status=204), errors(404)])
async def test_deleting_what_is_not_there_is_success(
    server: FakeVaultServer, client: VaultClient, answer: web.Response
) -> None:
    """A second deletion, as after a lost answer."""
    server.faults.append((ROLES, answering(answer)))
    await client.delete(task()[1].path)


@pytest.mark.parametrize(
    "answer", [errors(403, PERMISSION_DENIED), errors(500, "x"), errors(503, "Vault is sealed")]
)
async def test_any_other_answer_to_a_deletion_proves_nothing(
    server: FakeVaultServer, client: VaultClient, answer: web.Response
) -> None:
    """It is tried again by whoever asked."""
    server.faults.append((ROLES, answering(answer)))
    with pytest.raises((Unavailable, BackendFailed)):
        await client.delete(task()[1].path)


async def test_only_this_nodes_names_are_listed(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """Not those of other nodes, of admins, or that only look like ours."""
    request, role = task()
    name = role.path.removeprefix(f"{ROLES}/")
    others = [name.replace(f".{NODE}-", ".node-2-"), "orders-ro-eu", f"x-{name}", f"{name}x"]
    listed = web.json_response({"data": {"keys": [*others, name]}})
    server.faults.append((ROLES, answering(listed)))
    assert await client.written(NODE) == [Written(role.path, TaskId(request.meta["task"]))]
    server.faults.append((ROLES, answering(errors(404))))
    assert await client.written(NODE) == []
    server.faults.append((ROLES, answering(errors(403, PERMISSION_DENIED))))
    with pytest.raises(Unavailable) as refused:
        await client.written(NODE)
    assert refused.value.code is Code.PLAN_NOT_APPLIED
