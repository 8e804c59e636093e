"""`taskmint vault` against the real server: what it prints, writes, finds, and its exit codes."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from taskmint.cli.vault import vault
from taskmint.policy.database import POSTGRESQL_REVOCATION
from taskmint.policy.mysql import MARIADB_REVOCATION, MYSQL_REVOCATION
from vault.ground import DAEMON, KEEPER, POLICY, Ground


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """The policy that the server holds, in a file."""
    file = tmp_path / "policy.yaml"
    file.write_text((POLICY + KEEPER).replace("MOUNT", "warehouse"))
    file.chmod(0o644)
    return file


async def run(*arguments: str, env: dict[str, str] | None = None, say: str = "") -> Result:
    """Run the command in a thread, since it has a loop of its own."""
    runner = CliRunner(
        env={"VAULT_ADDR": None, "BAO_ADDR": None, "VAULT_TOKEN": None, **(env or {})}
    )
    return await asyncio.to_thread(runner.invoke, vault, list(arguments), input=say)


def admin(ground: Ground) -> dict[str, str]:
    """The environment of an administrator."""
    return {"VAULT_ADDR": ground.address, "VAULT_TOKEN": ground.root_token.reveal()}


@pytest.mark.real
async def test_check_finds_nothing_where_the_plan_was_applied(ground: Ground, policy: Path) -> None:
    """Exit code 0, and one line."""
    options = ("--policy", str(policy), "--daemon-spiffe-id", DAEMON)
    checked = await run("check", *options, env=admin(ground))
    assert (checked.exit_code, checked.output) == (
        0,
        f"Vault holds exactly the plan {ground.plan.digest}.\n",
    )
    applied = await run("apply", *options, env=admin(ground))
    assert (applied.exit_code, applied.output) == (0, "Vault holds the plan already.\n")


@pytest.mark.real
async def test_check_names_the_line_that_was_widened_by_hand(ground: Ground, policy: Path) -> None:
    """Exit code 1 and the line; `apply` shows the difference, asks, and repairs it."""
    options = ("--policy", str(policy), "--daemon-spiffe-id", DAEMON)
    text = ground.plan.policies["taskmint-daemon"].text
    wide = text + '\npath "secret/*" {\n  capabilities = ["read"]\n}\n'
    async with ground.admin() as session:
        await session.call("PUT", "sys/policies/acl/taskmint-daemon", {"policy": wide})
    checked = await run("check", *options, env=admin(ground))
    assert checked.exit_code == 1
    line = len(text.split("\n")) + 1
    finding = f'policy taskmint-daemon, line {line} is wider than the plan: path "secret/*" {{'
    assert finding in checked.output
    refused = await run("apply", *options, env=admin(ground), say="n\n")
    assert refused.exit_code == 1
    assert '-  path "secret/*" {' in refused.output
    assert (await run("check", *options, env=admin(ground))).exit_code == 1
    applied = await run("apply", *options, "--yes", env=admin(ground))
    assert applied.exit_code == 0
    assert (await run("check", *options, env=admin(ground))).exit_code == 0


@pytest.mark.real
async def test_check_lints_what_is_the_admins(ground: Ground, policy: Path) -> None:
    """A database role with another clock and Vault's own revocation is a finding, not a change."""
    path = f"{ground.mount}/roles/orders-ro-us"
    options = ("--policy", str(policy))
    async with ground.admin() as session:
        held = (await session.call("GET", path)).data
        changed = {"default_ttl": 3600, "max_ttl": 600, "revocation_statements": []}
        await session.call("POST", path, {**held, **changed})
        checked = await run("check", *options, env=admin(ground))
        applied = await run("apply", *options, "--yes", env=admin(ground))
        await session.call("POST", path, held)
    assert checked.exit_code == 1
    role = "database role warehouse/orders-ro-us: "
    for problem in (
        "its default_ttl is 3600 s, and the dead-man interval is 60 s (P6)",
        "its max_ttl is 600 s, and the longest deadline is 1800 s",
        "it has no revocation statements, and Vault's own only try DROP ROLE",
    ):
        assert role + problem in checked.output
    assert applied.exit_code == 0
    assert "note: database role warehouse/orders-ro-us" in applied.output


@pytest.mark.real
async def test_what_the_policy_no_longer_names_is_found_and_pruned(
    ground: Ground, policy: Path
) -> None:
    """A definition that was removed: its policy and roles are stale until `apply --prune`."""
    async with ground.admin() as session:
        stale = {"policy": 'path "x" {\n  capabilities = ["read"]\n}\n'}
        await session.call("PUT", "sys/policies/acl/taskmint-task-former", stale)
        await session.call("POST", "auth/token/roles/taskmint-task-former", {"orphan": True})
        options = ("--policy", str(policy))
        checked = await run("check", *options, env=admin(ground))
        kept = await run("apply", *options, "--yes", env=admin(ground))
        pruned = await run("apply", *options, "--yes", "--prune", env=admin(ground))
        names = (await session.call("GET", "auth/token/roles?list=true")).data["keys"]
    assert checked.exit_code == 1
    assert "policy taskmint-task-former is not in the plan" in checked.output
    assert "token role taskmint-task-former is not in the plan" in kept.output
    assert "policy taskmint-task-former: removed" in pruned.output
    assert "taskmint-task-former" not in names
    assert (await run("check", *options, env=admin(ground))).exit_code == 0


async def test_plan_prints_three_forms_without_a_server(policy: Path) -> None:
    """HCL for people, Terraform and JSON for programs."""
    options = ("--policy", str(policy), "--daemon-spiffe-id", DAEMON)
    hcl = await run("plan", *options)
    assert 'path "warehouse/creds/orders-ro-eu" {' in hcl.output
    assert "expected, if warehouse is a database engine: warehouse/roles/orders-ro-us" in hcl.output
    plain = json.loads((await run("plan", *options, "--output", "json")).output)
    assert {item["kind"] for item in plain["objects"]} == {
        "policy",
        "token role",
        "auth role",
        "entity",
    }
    terraform = json.loads((await run("plan", *options, "--output", "terraform")).output)
    resources = terraform["resource"]
    report = resources["vault_token_auth_backend_role"]["taskmint-task-report"]
    assert report["token_period"] == 60
    assert resources["vault_jwt_auth_backend_role"]["taskmint"]["bound_subject"] == DAEMON
    assert "${" not in json.dumps(resources["vault_policy"])


async def test_plan_reads_the_configuration(tmp_path: Path, policy: Path) -> None:
    """policy.files, the classes and the vault section come from the daemon's own file."""
    config = tmp_path / "taskmint.yaml"
    config.write_text(
        "identity: {workload_api: unix:///run/agent.sock}\n"
        "vault: {address: https://vault.example.org, auth: {mount: spire, audience: v}}\n"
        f"policy: {{files: [{policy}]}}\n"
        "classes: {batch: {dead_man: 90s}}\n"
    )
    config.chmod(0o644)
    options = ("--config", str(config), "--daemon-spiffe-id", DAEMON)
    printed = await run("plan", *options)
    assert "auth role auth/spire/role/taskmint" in printed.output
    assert 'bound_audiences = ["v"]' in printed.output
    assert "token_period = 90" in printed.output


async def test_statements_are_printed() -> None:
    """The texts that the tests run, with a heading each."""
    printed = await run("statements", "postgresql")
    assert printed.exit_code == 0
    assert POSTGRESQL_REVOCATION in printed.output
    assert MARIADB_REVOCATION in (await run("statements", "mariadb")).output
    assert MYSQL_REVOCATION in (await run("statements", "mysql")).output


@pytest.mark.parametrize(
    ("arguments", "env", "status"),
    [
        (("plan",), {}, 2),
        (("plan", "--policy", "/none/such.yaml"), {}, 4),
        (("plan", "--policy", "POLICY", "--daemon-spiffe-id", "https://x"), {}, 2),
        (("check", "--policy", "POLICY"), {}, 2),
        (("check", "--policy", "POLICY"), {"VAULT_ADDR": "http://127.0.0.1:1"}, 2),
        (
            ("check", "--policy", "POLICY"),
            {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "t"},
            3,
        ),
    ],
)
async def test_exit_codes(
    policy: Path, arguments: tuple[str, ...], env: dict[str, str], status: int
) -> None:
    """2 for usage, 3 for a server that is away, 4 for files; a sentence, never a traceback."""
    given = [str(policy) if word == "POLICY" else word for word in arguments]
    result = await run(*given, env=env)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    assert result.output


@pytest.mark.real
async def test_a_token_that_may_not_look_is_told_so(
    ground: Ground, policy: Path, tmp_path: Path
) -> None:
    """Exit code 1: the admin's token is refused; a check that could not look is no check."""
    file = tmp_path / "token"
    file.write_text("no-such-token\n")
    env = {"VAULT_ADDR": ground.address}
    result = await run("check", "--policy", str(policy), "--token-file", str(file), env=env)
    assert result.exit_code == 1
    assert "the given token" in result.output
