"""What the server itself enforces, each bound tried from beyond (P1, P3, P5, P6)."""

from dataclasses import replace
from datetime import timedelta

import pytest

from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.openbao import OpenBao
from taskmint.devstack.psql import query
from taskmint.errors import BackendFailed, Code, Unavailable
from taskmint.model.scope import Entitlement, EntitlementKind, Json
from taskmint.model.secret import Secret
from taskmint.ports import Minted, ProbeResult, Revocable, RevocableKind
from taskmint.vault.client import VaultClient
from vault.ground import DEAD_MAN, LOG, Ground, token_request, until

pytestmark = pytest.mark.real


def text(minted: Minted, key: str) -> str:
    """Take one text out of a credential."""
    return str(minted.data.reveal()[key])


async def test_the_daemons_own_token_reads_no_secret(daemon: BaoHttp, ground: Ground) -> None:
    """P1: every path that gives or changes a secret answers the daemon's own token 403."""
    mount = ground.mount
    for method, path in (
        ("GET", f"{mount}/creds/orders-ro-eu"),
        ("GET", f"{mount}/creds/orders-ro-us"),
        ("GET", f"{mount}/creds/taskmint-probe-orders-ro-eu"),
        ("POST", f"{mount}/roles/orders-ro-eu"),
        ("GET", f"{mount}/roles/taskmint-probe-orders-ro-eu"),
        ("GET", f"{mount}/config/orders"),
        ("POST", f"transit-{mount}/datakey/plaintext/orders"),
        ("POST", "auth/token/create"),
        ("POST", "auth/token/create-orphan"),
        ("POST", "auth/token/create/taskmint-hand-visitor.vault"),
        ("PUT", "sys/policies/acl/taskmint-daemon"),
        ("GET", "sys/policies/acl/reader"),
        ("POST", "auth/token/roles/taskmint-task-report"),
        ("POST", "auth/jwt/role/taskmint"),
        ("GET", "identity/entity/name/taskmint-daemon"),
        ("GET", "sys/mounts"),
        ("PUT", f"sys/leases/revoke-prefix/{mount}"),
        ("PUT", f"sys/leases/revoke-force/{mount}"),
        ("GET", f"sys/leases/lookup/{mount}?list=true"),
        ("GET", "auth/token/accessors?list=true"),
        ("GET", "sys/raw/core"),
    ):
        body: dict[str, object] | None = None if method == "GET" else {}
        assert (await daemon.send(method, path, body)).status == 403, path


async def test_its_policies_equal_the_plan(daemon: BaoHttp, admin: BaoHttp, ground: Ground) -> None:
    """P1: by name in the token's look-up, by text on the server; nothing comes with its entity."""
    data = (await daemon.call("GET", "auth/token/lookup-self")).data
    assert set(data["policies"]) == ground.plan.daemon_policies
    assert not data.get("identity_policies")
    for name, policy in ground.plan.policies.items():
        held = (await admin.call("GET", f"sys/policies/acl/{name}")).data["policy"]
        assert held == policy.text


async def test_a_token_has_exactly_one_policy_of_its_role(daemon: BaoHttp) -> None:
    """P3: not the other regions' too, not none at all, not as a list, no field beside the three."""
    path, mine = "auth/token/create/taskmint-task-report", "taskmint-task-report.eu"
    asked = {"policies": mine, "display_name": "taskmint-x", "meta": {}}
    beyond: list[dict[str, object]] = [
        {**asked, "policies": [mine]},
        {**asked, "policies": f"{mine},taskmint-task-report.us"},
        {**asked, "policies": "reader"},
        {"display_name": "taskmint-x"},
        {**asked, "display_name": "root"},
        {**asked, "ttl": "768h"},
        {**asked, "period": "768h"},
        {**asked, "explicit_max_ttl": "0"},
        {**asked, "num_uses": 1},
        {**asked, "id": "mine"},
        {**asked, "type": "batch"},
    ]
    for body in beyond:
        assert (await daemon.send("POST", path, body)).status == 403, body
    made = await daemon.call("POST", path, asked)
    assert made.body["auth"]["policies"] == [mine]
    accessor = {"accessor": made.body["auth"]["accessor"]}
    await daemon.call("POST", "auth/token/revoke-accessor", accessor)


async def test_leases_of_other_mounts_are_out_of_reach(daemon: BaoHttp) -> None:
    """P3: a known lease id of a mount that the policy does not name is neither kept nor ended."""
    foreign = "other/creds/x/abc"
    more: dict[str, dict[str, object]] = {
        "lookup": {},
        "renew": {"increment": 1},
        "revoke": {"sync": True},
    }
    for path, fields in more.items():
        body = {"lease_id": foreign, **fields}
        assert (await daemon.send("PUT", f"sys/leases/{path}", body)).status == 403


async def test_a_revocation_is_never_only_queued(daemon: BaoHttp, ground: Ground) -> None:
    """P5: without `sync` the server refuses, so that no bug of ours can forget it."""
    body = {"lease_id": f"{ground.mount}/creds/orders-ro-eu/none"}
    assert (await daemon.send("PUT", "sys/leases/revoke", body)).status == 403
    unsure = {**body, "sync": False}
    assert (await daemon.send("PUT", "sys/leases/revoke", unsure)).status == 403


async def test_a_task_token_ends_at_its_maximum_even_for_an_admin(
    ground: Ground, admin: BaoHttp
) -> None:
    """P6: the role's own maximum stops a renewal by root; a maximum in the request would not."""
    name = "taskmint-task-short"
    fields = {"token_period": 2, "token_explicit_max_ttl": 4, "orphan": True}
    await admin.call("POST", f"auth/token/roles/{name}", {**fields, "allowed_policies": "reader"})
    made = await admin.call("POST", f"auth/token/create/{name}", {"policies": "reader"})
    asked = {"accessor": made.body["auth"]["accessor"], "increment": 86400}

    async def refused() -> bool:
        answer = await admin.send("POST", "auth/token/renew-accessor", asked)
        assert answer.status != 200 or answer.body["auth"]["lease_duration"] <= 2
        return answer.status != 200

    await until(refused)
    async with BaoHttp(ground.address, Secret(made.body["auth"]["client_token"])) as held:

        async def dead() -> bool:
            return (await held.send("GET", "auth/token/lookup-self")).status == 403

        await until(dead)
    await admin.call("DELETE", f"auth/token/roles/{name}")


async def test_a_renewal_never_passes_the_dead_man_interval(
    client: VaultClient, ground: Ground
) -> None:
    """P6: whatever is asked for, token and lease live one dead-man interval from now."""
    token = await client.create_task_token(token_request())
    assert token.ttl == DEAD_MAN
    minted = await client.mint(token, ground.warehouse())
    assert minted.ttl == DEAD_MAN
    assert await client.renew(token.revocable, timedelta(days=9)) <= DEAD_MAN
    assert minted.revocable is not None
    assert await client.renew(minted.revocable, DEAD_MAN) <= DEAD_MAN
    await client.revoke(minted.revocable)
    await client.revoke(token.revocable)


async def test_a_database_task_from_token_to_proof(client: VaultClient, ground: Ground) -> None:
    """The whole way: mint, log in, revoke, look up, no login, no session, token gone."""
    request = token_request()
    token = await client.create_task_token(request)
    minted = await client.mint(token, ground.warehouse())
    user = text(minted, "username")
    assert minted.user_name == user
    assert user.startswith(f"{request.display_name}-")
    assert len(user) <= 63
    assert user == user.lower()
    login = ground.postgres.dsn(user, Secret(text(minted, "password")))
    assert (await query(login, "SELECT DISTINCT region FROM orders")).rows == ("eu",)
    assert minted.revocable is not None
    assert not await client.is_gone(minted.revocable)
    await client.revoke(minted.revocable)
    assert await client.is_gone(minted.revocable)
    assert (await query(login, "SELECT 1")).status == 2
    probed = await client.probe(request, ground.warehouse())
    assert probed == ProbeResult(sessions=0, roles=0)
    assert not await client.is_gone(token.revocable)
    await client.revoke(token.revocable)
    assert await client.is_gone(token.revocable)
    await client.revoke(token.revocable)
    await client.revoke(minted.revocable)


async def test_a_task_token_mints_its_own_combination_only(
    client: VaultClient, ground: Ground
) -> None:
    """P3: held to the plan in the process, and by the server when the process is out of the way."""
    token = await client.create_task_token(token_request())
    with pytest.raises(BackendFailed) as outside:
        await client.mint(token, ground.warehouse("us"))
    assert (outside.value.code, outside.value.created_nothing) == (Code.INTERNAL_ERROR, True)
    async with BaoHttp(ground.address, token.token) as task:
        other = await task.send("GET", f"{ground.mount}/creds/orders-ro-us")
        assert other.status == 403
        for path in ("auth/token/lookup-self", "auth/token/renew-self", "sys/leases/lookup"):
            assert (await task.send("POST", path, {})).status in {403, 405}
    await client.revoke(token.revocable)


async def test_revoking_the_token_takes_a_lease_that_nobody_knows(
    client: VaultClient, ground: Ground
) -> None:
    """P8: a lease whose reply was lost ends with the task token."""
    token = await client.create_task_token(token_request())
    minted = await client.mint(token, ground.warehouse())
    await client.revoke(token.revocable)
    assert minted.revocable is not None
    unknown = minted.revocable
    await until(lambda: client.is_gone(unknown))  # the server queues these


async def test_a_handed_token_is_a_child_with_one_policy(
    client: VaultClient, ground: Ground
) -> None:
    """A `token` entitlement: its own policy, its own use count, and the end of the task token."""
    token = await client.create_task_token(token_request("visitor", ""))
    body: dict[str, Json] = {"policies": "reader", "ttl": "10m", "num_uses": 3}
    entitlement = Entitlement(
        "vault",
        EntitlementKind.TOKEN,
        "auth/token",
        "create/taskmint-hand-visitor.vault",
        "POST",
        body,
    )
    minted = await client.mint(token, entitlement)
    assert minted.revocable is not None
    assert minted.revocable.kind is RevocableKind.TOKEN
    assert minted.ttl == DEAD_MAN
    handed = Secret(text(minted, "token"))
    assert set(minted.data.reveal()) == {"token"}
    async with BaoHttp(ground.address, handed) as caller:
        assert (await caller.send("POST", "auth/token/create", {})).status in {400, 403}
    assert await client.renew(minted.revocable, DEAD_MAN) <= DEAD_MAN
    await client.revoke(token.revocable)
    assert await client.is_gone(minted.revocable)


async def test_a_pinned_body_is_the_only_body(client: VaultClient, ground: Ground) -> None:
    """P3: a POST's fields are pinned in the process and, but for numbers, by the server."""
    mount = f"transit-{ground.mount}"
    entitlement = Entitlement(
        "key",
        EntitlementKind.SECRET,
        mount,
        "datakey/plaintext/orders",
        "POST",
        {"context": "b3JkZXJz", "bits": 256},
        revocable=False,
    )
    token = await client.create_task_token(token_request("sealer", ""))
    minted = await client.mint(token, entitlement)
    assert minted.revocable is None
    assert text(minted, "plaintext")
    others: list[dict[str, Json]] = [
        {"context": "b3RoZXI=", "bits": 256},
        {"context": "b3JkZXJz", "bits": 512},
    ]
    for body in others:
        with pytest.raises(BackendFailed):
            await client.mint(token, replace(entitlement, body=body))
    async with BaoHttp(ground.address, token.token) as task:
        path = f"{mount}/{entitlement.path}"
        other = {"context": "b3RoZXI=", "bits": 256}
        assert (await task.send("POST", path, other)).status == 403
        extra = {"context": "b3JkZXJz", "bits": 256, "nonce": ""}
        assert (await task.send("POST", path, extra)).status == 403
    await client.revoke(token.revocable)


async def test_a_database_that_is_away_keeps_the_lease_open(
    client: VaultClient, ground: Ground
) -> None:
    """P5: while the backend cannot be asked, revoking fails and nothing is called gone."""
    token = await client.create_task_token(token_request())
    minted = await client.mint(token, ground.warehouse())
    assert minted.revocable is not None
    await ground.postgres.stop()
    try:
        with pytest.raises(BackendFailed) as failed:
            await client.revoke(minted.revocable)
        assert failed.value.code is Code.VAULT_ERROR
        assert not await client.is_gone(minted.revocable)
    finally:
        await ground.postgres.start()
    await client.revoke(minted.revocable)
    assert await client.is_gone(minted.revocable)
    await client.revoke(token.revocable)


async def test_sealed_is_away_and_creates_nothing(client: VaultClient, openbao: OpenBao) -> None:
    """A sealed server: 503, nothing created, nothing gone; after the unseal all goes on."""
    token = await client.create_task_token(token_request())
    await openbao.seal()
    try:
        with pytest.raises(Unavailable) as away:
            await client.create_task_token(token_request())
        assert (away.value.code, away.value.created_nothing) == (Code.VAULT_UNAVAILABLE, True)
        with pytest.raises(Unavailable):
            await client.is_gone(token.revocable)
    finally:
        await openbao.unseal()
    await client.revoke(token.revocable)
    assert await client.is_gone(token.revocable)


async def test_an_unknown_accessor_is_gone(client: VaultClient, ground: Ground) -> None:
    """The server's own words for what never was, of both kinds."""
    assert await client.is_gone(Revocable(RevocableKind.TOKEN, "never-was"))
    lease = f"{ground.mount}/creds/orders-ro-eu/never-was"
    assert await client.is_gone(Revocable(RevocableKind.LEASE, lease))


async def test_a_lease_of_a_mount_outside_the_policy_is_not_called_gone(
    client: VaultClient,
) -> None:
    """A narrowed plan cannot end it: the server refuses, and that proves nothing."""
    lease = Revocable(RevocableKind.LEASE, "former/creds/x/abc")
    with pytest.raises(Unavailable) as refused:
        await client.is_gone(lease)
    assert refused.value.code is Code.PLAN_NOT_APPLIED


async def test_the_daemons_token_ends_with_the_daemon(ground: Ground, admin: BaoHttp) -> None:
    """P1: after a clean stop no token of the daemon stands."""

    async def own() -> set[str]:
        listed = await admin.call("GET", "auth/token/accessors?list=true")
        return set(listed.data["keys"])

    before = await own()
    async with VaultClient(ground.settings(), ground.plan, ground.signer.fetch, LOG):
        assert len(await own()) == len(before) + 1
    assert await own() == before
