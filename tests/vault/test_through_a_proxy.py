"""Each call to a real OpenBao through a proxy that breaks it: sent once, and honest about it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from taskmint.errors import Code, Unavailable
from taskmint.ports import Minted, Revocable, TaskToken
from taskmint.vault.client import VaultClient
from vault.ground import DEAD_MAN, LOG, Ground, token_request, until

from faults.tcp_proxy import Fault, TcpProxy

pytestmark = pytest.mark.real

PATIENCE = timedelta(seconds=0.7)
LOGIN = "/v1/auth/jwt/login"
FAULTS = tuple(Fault)


@asynccontextmanager
async def proxied(ground: Ground) -> AsyncIterator[tuple[TcpProxy, VaultClient]]:
    """A client with little patience that reaches OpenBao through a proxy."""
    at = urlsplit(ground.address)
    assert at.hostname is not None
    assert at.port is not None
    async with TcpProxy.before(at.hostname, at.port) as proxy:
        settings = ground.settings(address=f"http://127.0.0.1:{proxy.port}", timeout=PATIENCE)
        client = VaultClient(settings, ground.plan, ground.signer.fetch, LOG)
        async with client:
            yield proxy, client


async def broken(proxy: TcpProxy, fault: Fault, path: str, call: Awaitable[object]) -> int:
    """Make a call that must fail as away; return how many requests for it came to the proxy."""
    before = proxy.count(path)
    if fault is Fault.REFUSE:
        await proxy.always(fault)
    else:
        proxy.once(fault, path)
    with pytest.raises(Unavailable) as away:
        await call
    assert away.value.code is Code.VAULT_UNAVAILABLE
    # Only who was never connected knows that nothing was made.
    assert away.value.created_nothing is (fault is Fault.REFUSE)
    await proxy.heal()
    return proxy.count(path) - before


async def held(ground: Ground, path: str, name: str) -> bool:
    """Whether the server knows a token or a lease, asked by an administrator."""
    async with ground.admin() as admin:
        key = "accessor" if "accessor" in path else "lease_id"
        return (await admin.send("PUT", path, {key: name})).status == 200


async def tokens_named(ground: Ground, name: str) -> list[str]:
    """Accessors of the tokens that bear a task's name."""
    async with ground.admin() as admin:
        accessors = (await admin.call("LIST", "auth/token/accessors")).data["keys"]
        found = []
        for accessor in accessors:
            answer = await admin.send("POST", "auth/token/lookup-accessor", {"accessor": accessor})
            if answer.status == 200 and answer.data["display_name"].endswith(name):
                found.append(accessor)
        return found


@pytest.fixture
async def way(ground: Ground) -> AsyncIterator[tuple[TcpProxy, VaultClient]]:
    """A proxy and a client of the test's own: a mount that failed often is spared for a while."""
    async with proxied(ground) as both:
        yield both


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_creation_is_sent_once_and_leaves_at_most_one_short_token(
    way: tuple[TcpProxy, VaultClient], ground: Ground, fault: Fault
) -> None:
    """P8: whatever came of it has the dead-man interval as its life, and nobody renews it."""
    proxy, client = way
    request = token_request()
    call = client.create_task_token(request)
    sent = await broken(proxy, fault, "/v1/auth/token/create/", call)

    assert sent == (fault is not Fault.REFUSE)
    arrived = fault in {Fault.RESET, Fault.DRIP, Fault.LOST_REPLY}
    made = await tokens_named(ground, request.display_name)
    assert len(made) == arrived
    async with ground.admin() as admin:
        for accessor in made:
            about = await admin.call("POST", "auth/token/lookup-accessor", {"accessor": accessor})
            assert about.data["ttl"] <= DEAD_MAN.total_seconds()
            await admin.call("POST", "auth/token/revoke-accessor", {"accessor": accessor})


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_mint_is_sent_once_and_goes_with_its_token(
    way: tuple[TcpProxy, VaultClient], ground: Ground, fault: Fault
) -> None:
    """A GET that makes an account: a lease nobody heard of ends with the token that owns it."""
    proxy, client = way
    token = await client.create_task_token(token_request())
    before = await leases(ground)
    sent = await broken(
        proxy, fault, f"/v1/{ground.mount}/", client.mint(token, ground.warehouse())
    )
    made = await leases(ground) - before

    assert sent == (fault is not Fault.REFUSE)
    assert len(made) == (fault in {Fault.RESET, Fault.DRIP, Fault.LOST_REPLY})

    await client.revoke(token.revocable)

    async def none_left() -> bool:
        return not made & await leases(ground)

    await until(none_left)


async def leases(ground: Ground) -> set[str]:
    """Every lease of the region's role."""
    async with ground.admin() as admin:
        path = f"sys/leases/lookup/{ground.mount}/creds/orders-ro-eu/"
        answer = await admin.send("LIST", path)
        return set(answer.data["keys"]) if answer.status == 200 else set()


@pytest.mark.parametrize("fault", FAULTS)
async def test_renewing_taking_back_and_looking_up_are_asked_again_by_who_wants_to_know(
    way: tuple[TcpProxy, VaultClient], ground: Ground, fault: Fault
) -> None:
    """Each broken call says so, none is repeated unseen, and asked again it does what it says."""
    proxy, client = way
    token = await client.create_task_token(token_request())
    minted = await client.mint(token, ground.warehouse())
    for handle in handles(token, minted):
        for call, path in (
            (lambda one: client.renew(one, DEAD_MAN), "renew"),
            (client.revoke, "revoke"),
            (client.is_gone, "lookup"),
        ):
            await once_broken(proxy, fault, handle, call, path)
        assert await client.is_gone(handle)


def handles(token: TaskToken, minted: Minted) -> tuple[Revocable, Revocable]:
    """The lease, then its token: the other way round the lease would be gone already."""
    assert minted.revocable is not None
    return minted.revocable, token.revocable


async def once_broken(
    proxy: TcpProxy,
    fault: Fault,
    handle: Revocable,
    call: Callable[[Revocable], Awaitable[object]],
    what: str,
) -> None:
    """Break a call, then make it again."""
    path = f"/v1/auth/token/{what}" if handle.kind == "token" else f"/v1/sys/leases/{what}"
    assert await broken(proxy, fault, path, call(handle)) == (fault is not Fault.REFUSE)
    await call(handle)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_login_is_followed_by_another(ground: Ground, fault: Fault) -> None:
    """The daemon starts without Vault, says so, and logs in when it is back."""
    at = urlsplit(ground.address)
    async with TcpProxy.before(str(at.hostname), at.port or 0) as proxy:
        if fault is Fault.REFUSE:
            await proxy.always(fault)
        else:
            proxy.once(fault, LOGIN)
        settings = ground.settings(address=f"http://127.0.0.1:{proxy.port}", timeout=PATIENCE)
        async with VaultClient(settings, ground.plan, ground.signer.fetch, LOG) as client:
            assert client.ready() is not None
            await proxy.heal()

            async def ready() -> bool:
                return client.ready() is None

            await until(ready)
            assert proxy.count(LOGIN) == 1 + (fault is not Fault.REFUSE)
