"""
Tokens whose policy exists for one task, in a namespace of OpenBao: the whole way, and what the
server still enforces (P1, P3). Elsewhere they are refused.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from click.testing import CliRunner

from policy.asking import asked, findings, granted, load
from taskmint.cli.vault import vault
from taskmint.config import DEFAULT_CLASSES
from taskmint.daemon.policy_source import PolicySource
from taskmint.devstack.bao_http import BaoHttp
from taskmint.errors import BackendFailed, Code, ConfigError
from taskmint.model.scope import Entitlement, Ephemeral, Json, ParameterValue
from taskmint.model.secret import Secret
from taskmint.model.task_id import TaskId, revision_name
from taskmint.policy.acl import parse
from taskmint.policy.plan_objects import PlanSettings
from taskmint.ports import Minted, RevocableKind, TaskToken, TokenRequest, Written
from taskmint.vault.client import VaultClient
from taskmint.vault.settings import VaultSettings
from vault.ground import DAEMON, LOG, NODE, Ground, plan_from, token_request

NAMESPACE = "taskmint"
TEXT = """\
version: 1
tasks:
  notes:
    owner: team-orders@example.org
    class: batch
    who: ["spiffe://example.org/ns/orders/sa/{job}"]
    parameters: {team: {type: segment}, kind: {enum: [open, closed]}}
    deadline: {default: 5m, max: 30m}
    ends: {bind: [peer]}
    scope:
      reader:
        token:
          paths:
            - {path: "kv/data/{team}/{job}", capabilities: [read]}
            - {path: "kv/metadata/{kind}", capabilities: [read, list]}
          ttl: 10m
          num_uses: 3
"""
SETTINGS = PlanSettings(mount="jwt", spiffe_id=DAEMON, namespace=NAMESPACE)
PLAN = plan_from(TEXT, SETTINGS)
PARAMETERS: dict[str, ParameterValue] = {"team": "red", "kind": "open"}
BEGINNING = "taskmint-hand-notes.reader"
WRITTEN = """\
path "kv/data/red/nightly" {
  capabilities = ["read"]
  allowed_parameters = {
    "*" = []
  }
}

path "kv/metadata/open" {
  capabilities = ["list", "read"]
  allowed_parameters = {
    "*" = []
  }
}
"""


def decided() -> Entitlement:
    """What the policy gives the nightly job."""
    (entitlement,) = granted(load(TEXT), asked("notes", PARAMETERS)).entitlements
    return entitlement


def first(entitlement: Entitlement) -> Ephemeral:
    """What has to be written first."""
    assert entitlement.ephemeral is not None
    return entitlement.ephemeral


# --- the text, and where it may be written --------------------------------------------------


def test_the_text_holds_validated_segments_alone() -> None:
    """Parameters and captures, each one word in its own segment; our own form of HCL."""
    assert decided().acl == WRITTEN
    assert all(block.rule is not None for block in parse(WRITTEN))


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        ("[{path: 'sys/policies/acl/x', capabilities: [update]}]", "is Vault's own"),
        ("[{path: 'auth/token/create', capabilities: [update]}]", "is Vault's own"),
        ("[{path: 'kv/*', capabilities: [read]}]", "will not do here"),
        ("[{path: 'kv/+/x', capabilities: [read]}]", "will not do here"),
        ("[{path: 'kv/../x', capabilities: [read]}]", "an empty segment, a . or a .."),
        ("[{path: 'kv/{nobody}', capabilities: [read]}]", "is neither a parameter nor captured"),
        ("[{path: kv/a, capabilities: [sudo]}]", "capabilities"),
        ("[{path: kv/a, capabilities: []}]", "capabilities"),
        ("[{path: kv/a, capabilities: [read]}, {path: kv/a, capabilities: [list]}]", "twice"),
        ("[]", "takes policy or paths"),
    ],
)
def test_paths_that_will_not_do(paths: str, problem: str) -> None:
    """No wildcard, nothing of Vault's own, no sudo; all found at load."""
    text = TEXT.partition("          paths:")[0] + f"          paths: {paths}\n"
    found = findings(text)
    assert any(problem in finding for finding in found), found


def test_outside_a_namespace_it_is_refused(tmp_path: Path) -> None:
    """By the daemon at start and reload, and by `vault plan`: writing policies is self-grant."""
    file = tmp_path / "policy.yaml"
    file.write_text(TEXT)
    file.chmod(0o644)
    inside = PolicySource((str(file),), DEFAULT_CLASSES, SETTINGS)
    assert inside.load().plan.writes_policies
    outside = replace(inside, settings=replace(SETTINGS, namespace=None))
    with pytest.raises(ConfigError, match="self-grant outside a namespace") as caught:
        outside.load()
    assert caught.value.code is Code.POLICY_INVALID

    runner, command = CliRunner(), ["plan", "--policy", str(file)]
    refused = runner.invoke(vault, command, env={"VAULT_NAMESPACE": "", "BAO_NAMESPACE": ""})
    assert refused.exit_code == 4
    assert "tasks.notes.scope.reader.token.paths" in refused.output
    assert runner.invoke(vault, command, env={"VAULT_NAMESPACE": NAMESPACE}).exit_code == 0


def test_the_plan_pins_what_can_be_pinned() -> None:
    """Names by their beginning, the text up to the first parameter; roles by a glob of names."""
    plan = plan_from(TEXT, SETTINGS)
    role = plan.token_roles[BEGINNING]
    assert (role.policies, role.policies_glob, role.num_uses) == ((), f"{BEGINNING}.*", 3)
    rules = {rule.path: rule for rule in plan.policies["taskmint-daemon"].rules}
    write = rules[f"sys/policies/acl/{BEGINNING}.*"]
    assert write.capabilities == ("delete", "update")
    assert write.parameters == {"policy": ('path "kv/data/*',)}
    assert rules["sys/policies/acl/taskmint-hand-*"].capabilities == ("delete",)


# --- on the real server, in a namespace -----------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def inside(ground: Ground) -> Ground:
    """A namespace of the session's OpenBao that holds this plan, and one note."""
    async with ground.admin() as admin:
        await admin.call("POST", f"sys/namespaces/{NAMESPACE}")
        await admin.call("POST", f"{NAMESPACE}/sys/mounts/kv", {"type": "kv-v2"})
        await admin.call("POST", f"{NAMESPACE}/sys/auth/jwt", {"type": "jwt"})
        keys = {"jwt_validation_pubkeys": [ground.signer.public]}
        await admin.call("POST", f"{NAMESPACE}/auth/jwt/config", keys)
        note: dict[str, object] = {"data": {"text": "buy milk"}}
        for path in ("red/nightly", "blue/nightly"):
            while (await admin.send("POST", f"{NAMESPACE}/kv/data/{path}", note)).status == 400:
                await asyncio.sleep(0.1)  # the engine is being upgraded to version 2
    held = _Inside(ground.address, ground.root_token, ground.postgres, ground.signer, "kv", PLAN)
    await held.apply()
    return held


class _Inside(Ground):
    """The ground, seen from the namespace."""

    def settings(self, **changed: object) -> VaultSettings:
        """As the ground's, in the namespace."""
        return super().settings(namespace=NAMESPACE, **changed)


@pytest.fixture
async def client(inside: Ground) -> AsyncIterator[VaultClient]:
    """A client that has logged in and found the plan in place."""
    async with VaultClient(inside.settings(), PLAN, inside.signer.fetch, LOG) as client:
        assert client.ready() is None
        yield client


@pytest.fixture
async def daemon(inside: Ground) -> AsyncIterator[BaoHttp]:
    """A session with a token as the daemon has it, held by somebody who would misuse it."""
    svid = await inside.signer.fetch()
    login = {"role": "taskmint", "jwt": svid.reveal()}
    async with inside.admin() as admin:
        made = await admin.call("POST", f"{NAMESPACE}/auth/jwt/login", login)
    async with BaoHttp(inside.address, Secret(made.body["auth"]["client_token"])) as session:
        yield session
        await session.send("POST", f"{NAMESPACE}/auth/token/revoke-self")


async def minted(client: VaultClient) -> tuple[TokenRequest, TaskToken, Entitlement, Minted]:
    """A task that has its policy and its token."""
    request = token_request("notes", ".open")
    item = decided().for_task(revision_name(NODE, TaskId(request.meta["task"]), 1))
    token, _ = await asyncio.gather(
        client.create_task_token(request), client.write(request, first(item))
    )
    return request, token, item, await client.mint(token, item)


@pytest.mark.real
async def test_a_token_reads_what_its_own_policy_says_and_ends_with_it(
    client: VaultClient, inside: Ground
) -> None:
    """P1: a second token, with its own role, policy, life and uses; nothing of it is left."""
    request, token, item, made = await minted(client)
    assert made.revocable is not None
    assert made.revocable.kind is RevocableKind.TOKEN
    handed = Secret(str(made.data.reveal()["token"]))
    assert handed.reveal() != token.token.reveal()
    async with inside.admin() as admin, BaoHttp(inside.address, handed) as caller:
        told = {"accessor": made.revocable.id}
        data = (await admin.call("POST", f"{NAMESPACE}/auth/token/lookup-accessor", told)).data
        assert data["policies"] == [item.body["policies"]]
        assert (data["num_uses"], data["orphan"]) == (3, False)
        assert 0 < data["ttl"] <= 60
        note = await caller.call("GET", f"{NAMESPACE}/kv/data/red/nightly")
        assert note.data["data"] == {"text": "buy milk"}
        assert (await caller.send("GET", f"{NAMESPACE}/kv/data/blue/nightly")).status == 403
        held = await client.written(NODE)
        assert held == [Written(first(item).path, TaskId(request.meta["task"]))]

        await client.revoke(made.revocable)
        assert await client.is_gone(made.revocable)
        await client.revoke(token.revocable)
        await client.delete(first(item).path)
        assert (await caller.send("GET", f"{NAMESPACE}/kv/data/red/nightly")).status == 403
        assert (await admin.send("GET", f"{NAMESPACE}/{first(item).path}")).status == 404
    assert await client.written(NODE) == []


@pytest.mark.real
async def test_what_the_server_still_pins(daemon: BaoHttp) -> None:
    """P3: names, the beginning of the text, its fields; and no token but through the roles."""
    name = f"sys/policies/acl/{BEGINNING}.{NODE}-x-1"
    other = 'path "secret/*" { capabilities = ["read"] }'
    beyond: list[tuple[str, str, dict[str, object]]] = [
        ("POST", name, {"policy": other}),
        ("POST", name, {"policy": WRITTEN, "rules": other}),
        ("POST", name, {}),
        ("POST", "sys/policies/acl/taskmint-daemon", {"policy": WRITTEN}),
        ("POST", "sys/policies/acl/taskmint-task-notes.open", {"policy": WRITTEN}),
        ("POST", "sys/policies/acl/taskmint-hand-other.x", {"policy": WRITTEN}),
        ("DELETE", "sys/policies/acl/taskmint-daemon", {}),
        ("DELETE", "sys/policies/acl/taskmint-task-notes.open", {}),
        ("POST", f"auth/token/create/{BEGINNING}", {"policies": "default"}),
        ("POST", f"auth/token/roles/{BEGINNING}", {"allowed_policies": "x"}),
        ("GET", "kv/data/red/nightly", {}),
    ]
    for method, path, body in beyond:
        sent = await daemon.send(method, f"{NAMESPACE}/{path}", body or None)
        assert sent.status == 403, (method, path, body)
    assert (await daemon.send("POST", f"{NAMESPACE}/{name}", {"policy": WRITTEN})).status == 204
    await daemon.call("DELETE", f"{NAMESPACE}/{name}")


@pytest.mark.real
async def test_a_task_token_hands_out_policies_of_its_own_kind_only(
    client: VaultClient, inside: Ground
) -> None:
    """P3: in the process and by the role, whose glob allows no standing policy."""
    _, token, item, made = await minted(client)
    body: dict[str, Json] = {**item.body, "policies": "taskmint-task-notes.open"}
    with pytest.raises(BackendFailed):
        await client.mint(token, replace(item, body=body))
    async with BaoHttp(inside.address, token.token) as held:
        asked_for: dict[str, object] = {**body}
        path = f"{NAMESPACE}/auth/token/create/{BEGINNING}"
        assert (await held.send("POST", path, asked_for)).status == 403
    async with inside.admin() as admin:
        answer = await admin.send("POST", path, asked_for)
        assert answer.status == 400  # root as well: the role allows its own glob alone
    assert made.revocable is not None
    await client.revoke(token.revocable)
    await client.delete(first(item).path)


@pytest.mark.real
async def test_check_and_standing_know_it(
    client: VaultClient, inside: Ground, tmp_path: Path
) -> None:
    """`check` finds nothing while a task has its policy, and `apply --prune` would keep it."""
    _, token, item, _ = await minted(client)
    file = tmp_path / "policy.yaml"
    file.write_text(TEXT)
    file.chmod(0o644)
    env = {
        "VAULT_ADDR": inside.address,
        "VAULT_TOKEN": inside.root_token.reveal(),
        "VAULT_NAMESPACE": NAMESPACE,
    }
    given = ["--policy", str(file)]
    check = ["check", *given, "--daemon-spiffe-id", DAEMON]
    checked = await asyncio.to_thread(CliRunner(env=env).invoke, vault, check)
    assert checked.exit_code == 0, checked.output
    report = ["standing", *given, "--output", "json"]
    alive = await asyncio.to_thread(CliRunner(env=env).invoke, vault, report)
    assert (alive.exit_code, json.loads(alive.stdout)) == (0, []), alive.output
    await client.revoke(token.revocable)
    reap = ["standing", *given, "--reap", "--node", NODE, "--yes"]
    reaped = await asyncio.to_thread(CliRunner(env=env).invoke, vault, reap)
    assert f"{first(item).path}: deleted" in reaped.output
    assert await client.written(NODE) == []
