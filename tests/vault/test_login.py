"""The daemon's login on the real server: by its own JWT-SVID, again after a key rotation."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from taskmint.config import Config, load_config
from taskmint.daemon.from_config import vault_settings
from taskmint.daemon.policy_source import plan_settings
from taskmint.devstack.bao_http import BaoHttp
from taskmint.errors import Code, ConfigError, Unavailable
from taskmint.model.secret import Secret
from taskmint.policy.plan_objects import PlanSettings
from taskmint.vault.client import VaultClient
from taskmint.vault.settings import AppRoleLogin, JwtLogin, Login, TokenFileLogin
from vault.ground import (
    DAEMON,
    LOG,
    POLICY,
    Ground,
    Signer,
    believe,
    plan_from,
    token_request,
    until,
)

from plugins.canaries import Canaries

pytestmark = pytest.mark.real


async def test_a_key_rotation_is_followed_by_a_new_login(ground: Ground) -> None:
    """The old token is revoked, the trust domain signs with another key: a fresh SVID logs in."""
    signer = Signer()
    async with ground.admin() as admin:
        await believe(admin, signer)
        async with VaultClient(ground.settings(), ground.plan, signer.fetch, LOG) as client:
            token = await client.create_task_token(token_request())
            signer.rotate()
            await believe(admin, signer)
            await admin.call("POST", "sys/leases/revoke-prefix/auth/jwt/login", {"sync": True})
            await client.revoke(token.revocable)
            assert await client.is_gone(token.revocable)
            assert signer.fetched == 2
            assert client.ready() is None
        await believe(admin, ground.signer)


async def test_an_svid_that_vault_does_not_believe(ground: Ground) -> None:
    """The daemon starts, is not ready, says what to compare, and recovers by itself."""
    stranger = Signer()
    async with VaultClient(ground.settings(), ground.plan, stranger.fetch, LOG) as client:
        reason = client.ready()
        assert reason is not None
        assert "refuses the daemon's login" in reason
        with pytest.raises(Unavailable) as refused:
            await client.create_task_token(token_request())
        assert (refused.value.code, refused.value.created_nothing) == (
            Code.VAULT_UNAVAILABLE,
            True,
        )
        stranger.key = ground.signer.key

        async def ready() -> bool:
            return client.ready() is None

        await until(ready, seconds=30)


async def test_the_entity_was_made_beforehand(ground: Ground) -> None:
    """A login makes no entity: the alias that `apply` wrote is the one that is used."""
    async with ground.admin() as admin:

        async def entities() -> set[str]:
            return set((await admin.call("GET", "identity/entity/id?list=true")).data["keys"])

        before = await entities()
        svid = await ground.signer.fetch()
        login = {"role": "taskmint", "jwt": svid.reveal()}
        auth = (await admin.call("POST", "auth/jwt/login", login)).body["auth"]
        assert auth["entity_id"] in before
        assert await entities() == before
        assert auth["lease_duration"] == 900
        async with BaoHttp(ground.address, Secret(auth["client_token"])) as session:
            looked_up = (await session.call("GET", "auth/token/lookup-self")).data
            assert looked_up["explicit_max_ttl"] == 86400
            await session.call("POST", "auth/token/revoke-self")


@pytest.mark.parametrize(
    "claims", [{"sub": "spiffe://example.org/other"}, {"aud": "taskmint"}, {"aud": ["vault2"]}]
)
async def test_nobody_else_logs_in_as_the_daemon(ground: Ground, claims: dict[str, object]) -> None:
    """The role is bound to one subject and one audience."""
    svid = await ground.signer.fetch(**claims)
    async with ground.admin() as admin:
        answer = await admin.send(
            "POST", "auth/jwt/login", {"role": "taskmint", "jwt": svid.reveal()}
        )
    assert answer.status == 400


# --- without an SVID -----------------------------------------------------------------------


async def test_approle_logs_in_with_a_secret_id_from_a_file(ground: Ground, tmp_path: Path) -> None:
    """`apply` makes the role; the file is read at each login, so replacing it is enough."""
    plan = plan_from(
        POLICY.replace("MOUNT", ground.mount), PlanSettings(method="approle", mount="approle")
    )
    file = tmp_path / "secret-id"
    async with ground.admin() as admin:
        await admin.call("POST", "sys/auth/approle", {"type": "approle"})
        await replace(ground, plan=plan).apply()
        role = "auth/approle/role/taskmint"
        role_id = (await admin.call("GET", f"{role}/role-id")).data["role_id"]
        login = AppRoleLogin(role_id, file)

        async def new_secret_id() -> None:
            made = (await admin.call("POST", f"{role}/secret-id", {})).data["secret_id"]
            await asyncio.to_thread(file.write_text, made + "\n")

        await new_secret_id()
        never = Signer()
        async with VaultClient(ground.settings(login=login), plan, never.fetch, LOG) as client:
            token = await client.create_task_token(token_request())
            await new_secret_id()
            await admin.call("POST", "sys/leases/revoke-prefix/auth/approle/login", {"sync": True})
            await client.revoke(token.revocable)
            assert await client.is_gone(token.revocable)
        assert never.fetched == 0
        await asyncio.to_thread(file.unlink)
        async with VaultClient(ground.settings(login=login), plan, never.fetch, LOG) as client:
            reason = client.ready()
            assert reason is not None
            assert "holds nothing to log in" in reason
        await admin.call("DELETE", "sys/auth/approle")
        await ground.apply()


async def test_a_token_from_a_file_is_renewed_and_not_revoked(
    ground: Ground, tmp_path: Path
) -> None:
    """A systemd credential: somebody else's token, held to the same rights, alive afterwards."""
    file = tmp_path / "token"
    asked = {"policies": ["taskmint-daemon"], "no_default_policy": True, "period": "60s"}
    async with ground.admin() as admin:
        auth = (await admin.call("POST", "auth/token/create-orphan", asked)).body["auth"]
        await asyncio.to_thread(file.write_text, auth["client_token"])
        settings = ground.settings(login=TokenFileLogin(file))
        async with VaultClient(settings, ground.plan, Signer().fetch, LOG) as client:
            token = await client.create_task_token(token_request())
            await client.revoke(token.revocable)
        accessor = {"accessor": auth["accessor"]}
        held = (await admin.call("POST", "auth/token/lookup-accessor", accessor)).data
        assert held["policies"] == ["taskmint-daemon"]
        await admin.call("POST", "auth/token/revoke-accessor", accessor)
        async with VaultClient(settings, ground.plan, Signer().fetch, LOG) as client:
            reason = client.ready()
            assert reason is not None
            assert "refuses the token in" in reason


async def test_roots_token_is_too_wide(ground: Ground, tmp_path: Path, canaries: Canaries) -> None:
    """The shortest way is refused at start, and named."""
    file = tmp_path / "token"
    canaries.allow(file)
    await asyncio.to_thread(file.write_text, ground.root_token.reveal())
    settings = ground.settings(login=TokenFileLogin(file))
    with pytest.raises(Unavailable, match="the daemon's token has the policy root") as refused:
        async with VaultClient(settings, ground.plan, Signer().fetch, LOG):
            pass
    assert refused.value.code is Code.RIGHTS_TOO_WIDE


@pytest.mark.parametrize(
    ("auth", "login"),
    [
        ("{}", JwtLogin("jwt", "taskmint")),
        ("{mount: spire, role: x}", JwtLogin("spire", "x")),
        (
            "{method: approle, role_id: r, secret_id_file: /s, mount: a}",
            AppRoleLogin("r", Path("/s"), "a"),
        ),
        ("{method: token, token_file: /t, role_id: r}", TokenFileLogin(Path("/t"))),
    ],
)
def test_the_config_chooses_the_method(auth: str, login: Login) -> None:
    """Each method with what it takes; another method's keys change nothing."""
    assert vault_settings(config(auth)).login == login


@pytest.mark.parametrize(
    ("auth", "missing"),
    [
        ("{method: approle, role_id: r}", "approle needs secret_id_file"),
        ("{method: approle}", "approle needs role_id and secret_id_file"),
        ("{method: token}", "token needs token_file"),
        ("{spiffe_id: taskmint}", "a SPIFFE ID starts with spiffe://"),
    ],
)
def test_a_method_without_what_it_takes(auth: str, missing: str) -> None:
    """A finding with its place, not a daemon that cannot log in."""
    with pytest.raises(ConfigError, match=missing):
        config(auth)


def test_the_config_names_the_daemon_for_the_plan() -> None:
    """vault.auth.spiffe_id does what --daemon-spiffe-id does."""
    settings = plan_settings(config(f"{{spiffe_id: {DAEMON}, audience: v}}"))
    assert settings == PlanSettings(audience="v", spiffe_id=DAEMON)


def config(auth: str) -> Config:
    """A config with this `vault.auth`."""
    text = (
        "identity: {workload_api: unix:///run/agent.sock}\n"
        f"vault: {{address: https://vault.example.org, auth: {auth}}}\n"
    )
    return load_config("c.yaml", text.encode(), {})
