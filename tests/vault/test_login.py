"""The daemon's login on the real server: by its own JWT-SVID, again after a key rotation."""

import pytest

from taskmint.devstack.bao_http import BaoHttp
from taskmint.errors import Code, Unavailable
from taskmint.model.secret import Secret
from taskmint.vault.client import VaultClient
from vault.ground import LOG, Ground, Signer, believe, token_request, until

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
        async with BaoHttp(ground.bao.address, Secret(auth["client_token"])) as session:
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
