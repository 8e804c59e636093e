"""`taskmint vault standing`: what of ours stands without reason, and its removal."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from taskmint.cli.vault import vault
from taskmint.model.task_id import TaskId, vault_name
from taskmint.vault.client import VaultClient
from taskmint.vault.live import Live
from taskmint.vault.standing import (
    TOKEN_NAME,
    Found,
    FoundToken,
    Leftover,
    LiveTasks,
    leftovers,
    of_node,
)
from vault.ground import KEEPER, NODE, POLICY, Ground, plan_from, token_request

PLAN = plan_from(POLICY.replace("MOUNT", "warehouse"))
NOW = datetime(2026, 12, 2, 12, tzinfo=UTC)
AGO = int(NOW.timestamp()) - 90
TASK = "tm_01jd0000000000000000000000"
EU = "warehouse/creds/orders-ro-eu"
TOKEN = FoundToken(
    accessor="a",
    policies=frozenset({"taskmint-task-report.eu"}),
    role="taskmint-task-report",
    node=NODE,
    task=TASK,
    created=AGO,
)
NOTHING = Found((), (), {}, frozenset(), frozenset({"taskmint-daemon"}))
LIVE = Live({}, {}, {}, {}, {}, frozenset(PLAN.policies), frozenset(PLAN.token_roles), {})


def report(found: Found, here: LiveTasks | None = None, live: Live = LIVE) -> list[Leftover]:
    """The leftovers."""
    return list(leftovers(PLAN, live, found, here, NOW))


def with_tokens(*tokens: FoundToken, leases: int = 0) -> Found:
    """These tokens, and so many leases of one path."""
    return replace(NOTHING, tokens=tokens, leases={EU: (float(AGO),) * leases})


def test_zero_is_the_goal() -> None:
    """The plan's own objects, and a daemon's token, are no leftovers."""
    daemon = FoundToken("d", PLAN.daemon_policies, "", None, None, AGO)
    assert report(NOTHING) == []
    assert report(with_tokens(daemon)) == []


@pytest.mark.parametrize(
    ("here", "stands"),
    [
        (None, False),
        (LiveTasks(NODE, frozenset({TASK})), False),
        (LiveTasks(NODE, frozenset()), True),
        (LiveTasks("other", frozenset()), False),
    ],
)
def test_a_task_token_is_held_against_its_own_nodes_tasks(
    here: LiveTasks | None, *, stands: bool
) -> None:
    """Without the daemon's word, or on another node, it passes; the server ends it in time."""
    found = report(with_tokens(TOKEN), here)
    expected = Leftover("token", TASK, NODE, 90, "belongs to no live task of its node")
    assert found == ([expected] if stands else [])


def test_tokens_that_the_plan_does_not_make() -> None:
    """By a role that was removed, or with our policies and by no role at all; handed ones pass."""
    former = replace(TOKEN, role="taskmint-task-former")
    by_hand = replace(TOKEN, role="", node=None, task=None)
    handed = replace(TOKEN, role="taskmint-hand-visitor.vault", node=None, task=None)
    assert [item.reason for item in report(with_tokens(former, by_hand, handed))] == [
        "made by a role that is not in the plan",
        "has our policies, but no role of ours made it",
    ]


@pytest.mark.parametrize(
    ("tokens", "leases", "surplus"), [(0, 0, 0), (1, 1, 0), (2, 1, 0), (1, 3, 2)]
)
def test_leases_are_counted_against_tokens_that_may_own_them(
    tokens: int, leases: int, surplus: int
) -> None:
    """One lease of a path for each task token that mints there; more have no owner."""
    found = report(with_tokens(*[TOKEN] * tokens, leases=leases))
    reason = f"{surplus} more than task tokens that may own one"
    assert found == ([Leftover("lease", EU, "-", 90, reason)] if surplus else [])


def test_names_outside_the_plan() -> None:
    """Policies, token roles, probe roles and entities that bear our name."""
    live = replace(
        LIVE,
        policy_names=LIVE.policy_names | {"taskmint-task-x", "default"},
        token_role_names=LIVE.token_role_names | {"taskmint-task-x"},
    )
    probes = {"warehouse/roles/taskmint-probe-orders-ro-eu", "warehouse/roles/taskmint-probe-x"}
    found = replace(
        NOTHING, probes=frozenset(probes), entities=frozenset({"taskmint-daemon", "taskmint-old"})
    )
    assert [(item.kind, item.name) for item in report(found, live=live)] == [
        ("policy", "taskmint-task-x"),
        ("token role", "taskmint-task-x"),
        ("database role", "warehouse/roles/taskmint-probe-x"),
        ("entity", "taskmint-old"),
    ]


def test_everything_of_a_node_that_is_gone() -> None:
    """Its task tokens and no others."""
    other = replace(TOKEN, node="other")
    listed = [token for token, _ in of_node(with_tokens(TOKEN, other), "other", NOW)]
    assert listed == [other]


# --- on the real server --------------------------------------------------------------------


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """The policy that the server holds, in a file."""
    file = tmp_path / "policy.yaml"
    file.write_text((POLICY + KEEPER).replace("MOUNT", "warehouse"))
    file.chmod(0o644)
    return file


@pytest.fixture
async def admin_socket(tmp_path: Path) -> AsyncIterator[tuple[Path, set[str]]]:
    """A daemon's admin socket that tells of the tasks in a set."""
    tasks: set[str] = set()

    async def answer(request: web.BaseRequest) -> web.Response:
        listed = {"tasks": [{"id": task} for task in tasks]}
        return web.json_response({"node": NODE} if request.path.endswith("status") else listed)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    path = tmp_path / "admin.sock"
    await web.UnixSite(runner, str(path)).start()
    yield path, tasks
    await runner.cleanup()


async def run(ground: Ground, policy: Path, *options: str) -> Result:
    """Run `standing` with the root token, in a thread."""
    env = {"VAULT_ADDR": ground.address, "VAULT_TOKEN": ground.root_token.reveal()}
    arguments = ["standing", "--policy", str(policy), *options]
    return await asyncio.to_thread(CliRunner(env=env).invoke, vault, arguments)


@pytest.mark.real
async def test_a_living_task_passes_and_a_lost_one_is_found_and_reaped(
    ground: Ground, client: VaultClient, policy: Path, admin_socket: tuple[Path, set[str]]
) -> None:
    """Exit 0 while its daemon knows it; 1 when it does not; gone with its lease after --reap."""
    socket, tasks = admin_socket
    request = token_request()
    token = await client.create_task_token(request)
    minted = await client.mint(token, ground.warehouse())
    asked = ("--admin-socket", str(socket), "--output", "json")
    tasks.add(request.meta["task"])
    alive = await run(ground, policy, *asked)
    assert (alive.exit_code, json.loads(alive.stdout)) == (0, [])
    tasks.clear()
    lost = await run(ground, policy, *asked)
    assert lost.exit_code == 1
    (found,) = json.loads(lost.stdout)
    assert (found["kind"], found["name"], found["owner"]) == ("token", request.meta["task"], NODE)
    assert found["age_seconds"] < 60
    for secret in (token.accessor, token.token.reveal(), str(minted.data.reveal()["password"])):
        assert secret not in lost.output
    reaped = await run(ground, policy, "--reap", "--node", NODE, "--yes")
    assert f"{request.meta['task']}: revoked" in reaped.output
    assert await client.is_gone(token.revocable)


@pytest.mark.real
async def test_a_lease_without_its_token_is_found(ground: Ground, policy: Path) -> None:
    """Somebody minted by hand on our path: one more than there are owners."""
    async with ground.admin() as admin:
        path = f"{ground.mount}/creds/orders-ro-us"
        lease = (await admin.call("GET", path)).body["lease_id"]
        result = await run(ground, policy)
        await admin.call("PUT", "sys/leases/revoke", {"lease_id": lease, "sync": True})
    assert result.exit_code == 1
    assert "lease" in result.stdout
    assert f"{path} " in result.stdout
    assert "1 more than task tokens that may own one" in result.stdout
    assert (await run(ground, policy)).exit_code == 0


@pytest.mark.real
@pytest.mark.parametrize(
    "options",
    [("--reap",), ("--node", "x"), ("--reap", "--node", "../x"), ("--reap", "--node", "")],
)
async def test_reaping_needs_a_node(ground: Ground, policy: Path, options: tuple[str, ...]) -> None:
    """Exit 2, and nothing is revoked."""
    assert (await run(ground, policy, *options)).exit_code == 2


@pytest.mark.real
async def test_a_node_whose_daemon_answers_is_not_reaped(
    ground: Ground, policy: Path, admin_socket: tuple[Path, set[str]]
) -> None:
    """It is not gone."""
    options = ("--reap", "--node", NODE, "--admin-socket", str(admin_socket[0]))
    refused = await run(ground, policy, *options)
    assert refused.exit_code == 2
    assert "its daemon answers" in refused.output


def test_the_name_pattern_is_that_of_task_tokens() -> None:
    """What the task side names, this side reads, for every node id."""
    for node in ("n", "node-1", "a" * 20):
        match = TOKEN_NAME.fullmatch(f"token-{vault_name(node, TaskId(TASK))}")
        assert match is not None
        assert match.groups() == (node, TASK.removeprefix("tm_"))
