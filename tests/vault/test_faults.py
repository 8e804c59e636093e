"""What the client does when the server, or what stands between, does not do what it should."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from policy.keys import revocation_list
from taskmint.errors import BackendFailed, Code, Unavailable
from taskmint.model.scope import Entitlement, EntitlementKind, Json, ProofLevel
from taskmint.model.secret import Secret
from taskmint.ports import Revocable, RevocableKind, TaskToken
from taskmint.vault import minting
from taskmint.vault.breaker import FAILURES, FIRST_PAUSE
from taskmint.vault.client import VaultClient
from taskmint.vault.http import MAX_LIST_BYTES, MAX_REPLY_BYTES, Transport
from taskmint.vault.responses import Reply
from taskmint.vault.settings import VaultSettings
from vault.fake_server import (
    PERMISSION_DENIED,
    FakeVaultServer,
    Fault,
    answering,
    errors,
    lose_the_reply,
    say_nothing,
)
from vault.ground import LOG, POLICY, Signer, plan_from, token_request, until

PLAN = plan_from(POLICY.replace("MOUNT", "warehouse"))
WAREHOUSE = Entitlement("warehouse", EntitlementKind.SECRET, "warehouse", "creds/orders-ro-eu")
HANDED = Entitlement(
    "vault",
    EntitlementKind.TOKEN,
    "auth/token",
    "create/taskmint-hand-visitor.vault",
    "POST",
    {"policies": "reader", "ttl": "10m", "num_uses": 3},
)
VISITOR = "version: 1\ntasks:\n" + POLICY[POLICY.index("  visitor:") :]
CREATE = "auth/token/create/"
CREDS = "warehouse/creds/"
SOON = timedelta(seconds=30)


@pytest.fixture
async def server() -> AsyncIterator[FakeVaultServer]:
    """A server of the test's own."""
    async with FakeVaultServer(PLAN).running() as running:
        yield running


def connect(server: FakeVaultServer, **changed: Any) -> VaultClient:
    """A client of it that has little patience."""
    settings = VaultSettings(server.address, timeout=timedelta(seconds=1), **changed)
    return VaultClient(settings, PLAN, Signer().fetch, LOG)


@pytest.fixture
async def client(server: FakeVaultServer) -> AsyncIterator[VaultClient]:
    """A client that has logged in."""
    async with connect(server) as client:
        yield client


@pytest.fixture
async def token(client: VaultClient) -> TaskToken:
    """A task token."""
    return await client.create_task_token(token_request())


# --- lost answers --------------------------------------------------------------------------


async def test_a_lost_answer_to_a_creation_is_an_unknown_outcome(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """P8: nothing is claimed, and nothing is sent a second time."""
    before = len(server.tokens)
    server.faults.append((CREATE, lose_the_reply))
    with pytest.raises(Unavailable) as lost:
        await client.create_task_token(token_request())
    assert (lost.value.code, lost.value.created_nothing) == (Code.VAULT_UNAVAILABLE, False)
    assert server.count(CREATE) == 1
    assert len(server.tokens) == before + 1


async def test_a_lost_answer_to_a_mint_is_not_asked_for_again(
    server: FakeVaultServer, client: VaultClient, token: TaskToken
) -> None:
    """A GET that makes things is sent once, also on a kept connection that breaks."""
    server.faults.append((CREDS, lose_the_reply))
    with pytest.raises(Unavailable) as lost:
        await client.mint(token, WAREHOUSE)
    assert not lost.value.created_nothing
    assert server.count(CREDS) == 1
    assert len(server.leases) == 1
    await client.revoke(token.revocable)
    assert not server.leases


async def test_silence_ends_at_the_deadline(
    server: FakeVaultServer, client: VaultClient, token: TaskToken
) -> None:
    """Each call has a deadline, and what it left behind is not known."""
    server.faults.append((CREDS, say_nothing))
    with pytest.raises(Unavailable) as silent:
        await client.mint(token, WAREHOUSE)
    assert not silent.value.created_nothing


async def test_nobody_listening_created_nothing(server: FakeVaultServer) -> None:
    """A refused connection proves that nothing happened; the daemon starts nevertheless."""
    gone = VaultSettings("http://127.0.0.1:1", timeout=timedelta(seconds=1))
    del server
    async with VaultClient(gone, PLAN, Signer().fetch, LOG) as client:
        assert client.ready() is not None
        with pytest.raises(Unavailable) as away:
            await client.create_task_token(token_request())
        assert away.value.created_nothing


# --- answers that are not to be believed ---------------------------------------------------


async def test_a_204_that_keeps_the_lease_is_not_believed(
    server: FakeVaultServer, client: VaultClient, token: TaskToken
) -> None:
    """P5: only the look-up says that it is gone."""
    minted = await client.mint(token, WAREHOUSE)
    assert minted.revocable is not None
    server.keeps_leases = True
    await client.revoke(minted.revocable)
    assert not await client.is_gone(minted.revocable)
    server.keeps_leases = False
    await client.revoke(minted.revocable)
    assert await client.is_gone(minted.revocable)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": {"password": "x"}},
        {"data": {"password": "x"}, "lease_id": "", "lease_duration": 60},
        {"data": {"password": "x"}, "lease_id": "other/creds/x/1", "lease_duration": 60},
        {"data": {"password": "x"}, "lease_id": f"{CREDS}orders-ro-us/1", "lease_duration": 60},
        {"data": {"password": "x"}, "lease_id": f"{CREDS}orders-ro-eu/1", "lease_duration": 0},
        {"data": None, "lease_id": f"{CREDS}orders-ro-eu/1", "lease_duration": 60},
        {"data": {"password": "x"}, "wrap_info": {"token": "t"}},
        {"auth": {"client_token": "t"}, "data": {"password": "x"}},
    ],
)
async def test_an_answer_without_its_lease_is_an_unknown_outcome(
    server: FakeVaultServer, client: VaultClient, token: TaskToken, body: dict[str, Any]
) -> None:
    """Half an answer, or another request's, gives no credential, and is said to be a failure."""
    server.faults.append((CREDS, answering(web.json_response(body))))
    with pytest.raises(BackendFailed) as failed:
        await client.mint(token, WAREHOUSE)
    assert (failed.value.code, failed.value.created_nothing) == (Code.VAULT_ERROR, False)


async def test_another_token_than_asked_for_is_taken_back(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """A role that gives more policies than the one asked for: revoked at once."""
    wrong = {
        "client_token": "wide",
        "accessor": "wide-accessor",
        "lease_duration": 60,
        "policies": ["taskmint-task-report.eu", "default"],
        "orphan": True,
    }
    server.tokens["wide-accessor"] = "wide"
    server.faults.append((CREATE, answering(web.json_response({"auth": wrong}))))
    with pytest.raises(BackendFailed):
        await client.create_task_token(token_request())
    assert "wide-accessor" not in server.tokens


@pytest.mark.parametrize(
    ("response", "nothing"),
    [
        (web.Response(status=502, text="<html>Bad Gateway</html>"), False),
        (web.Response(status=503, text="<html>Service Unavailable</html>"), False),
        (web.Response(status=200, text="<html>Welcome</html>"), False),
        (web.Response(status=204), False),
        (web.Response(status=202, text="{}"), False),
        (errors(500, "internal error"), False),
        (errors(503, "upstream is away"), False),
        (errors(418), False),
        (errors(403, "database says no"), False),
        (errors(403, PERMISSION_DENIED), True),
        (errors(404, "no handler for route"), True),
        (errors(405, "unsupported operation"), True),
        (errors(429, "request path: rate limit quota exceeded"), True),
        (errors(472), True),
        (errors(473), True),
        (errors(503, "Vault is sealed"), True),
        (errors(500, "local node not active but active cluster node not found"), True),
        (web.Response(status=307, headers={"Location": "http://127.0.0.1:1/v1/x"}), True),
    ],
)
async def test_a_failed_mint_says_whether_anything_was_made(
    server: FakeVaultServer,
    client: VaultClient,
    token: TaskToken,
    response: web.Response,
    *,
    nothing: bool,
) -> None:
    """N3: created nothing only when the answer proves it."""
    server.faults.append((CREDS, answering(response)))
    with pytest.raises((BackendFailed, Unavailable)) as failed:
        await client.mint(token, WAREHOUSE)
    assert isinstance(failed.value, BackendFailed | Unavailable)
    assert failed.value.created_nothing is nothing
    assert server.count(CREDS) == 1


async def test_a_node_that_is_behind_is_asked_again(
    server: FakeVaultServer, client: VaultClient, token: TaskToken
) -> None:
    """N23: 412, 412, 200 gives one lease; the state that an answer names goes along."""
    behind = [answering(errors(412, "required index state not present")) for _ in range(2)]
    server.faults += [(CREDS, fault) for fault in behind]
    named = web.json_response({}, headers={"X-Vault-Index": "state-7"})
    server.faults.append(("auth/token/lookup-accessor", answering(named)))
    assert not await client.is_gone(token.revocable)
    minted = await client.mint(token, WAREHOUSE)
    assert minted.revocable is not None
    assert server.count(CREDS) == 3
    assert [headers.get("X-Vault-Index") for headers in server.headers[-3:]] == ["state-7"] * 3


async def test_a_redirect_is_not_followed(server: FakeVaultServer, client: VaultClient) -> None:
    """N22: the token goes to the configured address and nowhere else."""
    async with FakeVaultServer(PLAN).running() as elsewhere:
        moved = web.Response(status=307, headers={"Location": f"{elsewhere.address}/v1/x"})
        server.faults.append((CREATE, answering(moved)))
        with pytest.raises(Unavailable, match="redirects"):
            await client.create_task_token(token_request())
        assert elsewhere.seen == []


async def test_a_body_without_end_is_cut_off(
    server: FakeVaultServer, client: VaultClient, token: TaskToken
) -> None:
    """32 MB, announced or not: no more than the cap is read, and it is no answer of Vault's."""
    large = web.Response(body=b"[" * (32 << 20))
    server.faults.append((CREDS, answering(large)))
    with pytest.raises(Unavailable):
        await client.mint(token, WAREHOUSE)

    async def trickle(request: web.BaseRequest, answer: web.StreamResponse) -> web.StreamResponse:
        del answer
        streamed = web.StreamResponse()
        streamed.enable_chunked_encoding()
        await streamed.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                await streamed.write(b"[" * (MAX_REPLY_BYTES // 8))
        return streamed

    server.faults.append((CREDS, trickle))
    with pytest.raises(Unavailable):
        await client.mint(token, WAREHOUSE)


async def test_p5_a_long_revocation_list_is_read(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """P5: of a busy mount it has more than a MiB; over sixteen it is no answer, and no proof."""
    asked = Entitlement("web", EntitlementKind.PKI, "pki", "issue/web", proof=ProofLevel.CRL)
    revoked: dict[str, Json] = {"data": {"revocation_time": 1, "issuer_id": "ca"}}

    async def look(more: int) -> bool:
        listed: dict[str, Json] = {"data": {"crl": "x\n" * more + revocation_list(0x0A1B)}}
        server.faults.append(("pki/cert/", answering(web.json_response(revoked))))
        server.faults.append(("pki/issuer/", answering(web.json_response(listed))))
        return await client.is_listed(asked, "0a-1b")

    assert await look(MAX_REPLY_BYTES)
    with pytest.raises(Unavailable):
        await look(MAX_LIST_BYTES)


async def test_a_queued_revocation_is_no_revocation(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """N1: 202 means later, perhaps."""
    server.faults.append(("sys/leases/revoke", answering(web.Response(status=202))))
    with pytest.raises(BackendFailed):
        await client.revoke(Revocable(RevocableKind.LEASE, f"{CREDS}orders-ro-eu/1"))


@pytest.mark.parametrize(
    "response",
    [
        errors(400, "invalid lease ID"),
        errors(400, "invalid lease", "and more"),
        errors(400, "lease not found"),
        errors(400),
        errors(403, "invalid lease"),
        errors(404, "invalid lease"),
        errors(404),
        errors(500, "invalid lease"),
        errors(503, "Vault is sealed"),
        web.Response(status=404, text="not found"),
        web.Response(status=204),
    ],
)
async def test_only_the_exact_words_mean_gone(
    server: FakeVaultServer, client: VaultClient, response: web.Response
) -> None:
    """I10: a 400 of other words, a 403, a 404, a proxy's page: the lease stays open."""
    lease = Revocable(RevocableKind.LEASE, f"{CREDS}orders-ro-eu/1")
    assert await client.is_gone(lease)
    server.faults.append(("sys/leases/lookup", answering(response)))
    with contextlib.suppress(BackendFailed, Unavailable):
        assert not await client.is_gone(lease)


async def test_an_accessor_that_outlived_its_token_is_gone(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """A server that was killed in between says so by other words; only the look-up's prove it."""
    token = Revocable(RevocableKind.TOKEN, "accessor-1")
    server.faults.append(("auth/token/revoke-accessor", answering(errors(400, "token not found"))))
    await client.revoke(token)
    for _ in range(2):  # the client logs in again in between
        server.faults.append(("auth/token/lookup-accessor", answering(errors(403, "bad token"))))
    assert await client.is_gone(token)

    server.faults[:] = [("auth/token/lookup-accessor", answering(errors(400, "bad token")))]
    with pytest.raises(BackendFailed):
        await client.is_gone(token)
    server.faults.append(
        ("auth/token/revoke-accessor", answering(errors(400, "token not found here")))
    )
    with pytest.raises(BackendFailed):
        await client.revoke(token)


@pytest.mark.parametrize(
    "auth",
    [
        {},
        {"client_token": "t", "accessor": "a"},
        {"client_token": "", "accessor": "a", "lease_duration": 60},
        {"client_token": "t", "accessor": None, "lease_duration": 60},
        {"client_token": "t", "accessor": "a", "lease_duration": 0},
    ],
)
async def test_a_token_that_is_not_whole_is_an_unknown_outcome(
    server: FakeVaultServer, client: VaultClient, auth: dict[str, Any]
) -> None:
    """Half a token, for a task or for a caller: a failure, and nothing is handed on."""
    for path, ask in (
        (CREATE, client.create_task_token(token_request())),
        (f"{CREATE}taskmint-hand", client.mint(await _visitor(client), HANDED)),
    ):
        server.faults.append((path, answering(web.json_response({"auth": auth}))))
        with pytest.raises(BackendFailed) as failed:
            await ask
        assert not failed.value.created_nothing


async def _visitor(client: VaultClient) -> TaskToken:
    return await client.create_task_token(token_request("visitor", ""))


async def test_a_handed_token_must_be_the_one_asked_for(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """An orphan would outlive its task, and more policies are more than the definition gives."""
    visitor = await _visitor(client)
    whole = {"client_token": "t", "accessor": "a", "lease_duration": 60, "renewable": True}
    for wrong in (
        {"policies": ["reader"], "orphan": True},
        {"policies": ["reader", "default"], "orphan": False},
        {"policies": [], "orphan": False},
    ):
        answer = web.json_response({"auth": {**whole, **wrong}})
        server.faults.append((f"{CREATE}taskmint-hand", answering(answer)))
        with pytest.raises(BackendFailed):
            await client.mint(visitor, HANDED)


async def test_a_renewal_that_leaves_no_life_is_a_failure(
    server: FakeVaultServer, client: VaultClient, token: TaskToken
) -> None:
    """Zero, or no word of it; and a lease that is not there any more."""
    minted = await client.mint(token, WAREHOUSE)
    assert minted.revocable is not None
    for body in ({"lease_duration": 0}, {}, {"lease_duration": "60"}):
        server.faults.append(("sys/leases/renew", answering(web.json_response(body))))
        with pytest.raises(BackendFailed):
            await client.renew(minted.revocable, timedelta(seconds=60))
    await client.revoke(minted.revocable)
    with pytest.raises(BackendFailed, match="lease not found"):
        await client.renew(minted.revocable, timedelta(seconds=60))


@pytest.mark.parametrize(
    ("more", "life"),
    [
        ({"data": {"token": "x", "ttl": 3600}}, 3600),  # an engine that tells it beside the secret
        ({"data": {"token": "x"}, "lease_id": f"{CREDS}x/1", "lease_duration": 900}, 900),  # STS
        ({"data": {"token": "x"}, "lease_id": f"{CREDS}x/1", "lease_duration": 3601}, None),
        ({"data": {"token": "x", "ttl": 3601}}, None),
        ({"data": {"token": "x", "ttl": "1h"}}, None),
        ({"data": {"token": "x"}, "lease_duration": 60}, None),  # when KV wants to be read again
        ({"data": {"token": "x"}}, None),
        ({"data": {"token": "x", "ttl": 60}, "lease_duration": 2764800}, None),  # KV's own field
    ],
)
async def test_what_nothing_takes_back_has_a_hard_ceiling(
    server: FakeVaultServer,
    client: VaultClient,
    token: TaskToken,
    more: dict[str, Any],
    life: int | None,
) -> None:
    """Longer than the policy says, or not told at all: it is given to nobody."""
    asked = replace(WAREHOUSE, revocable=False, ceiling=timedelta(hours=1))
    server.faults.append((CREDS, answering(web.json_response(more))))
    if life is None:
        with pytest.raises(BackendFailed, match="ceiling"):
            await client.mint(token, asked)
        return
    minted = await client.mint(token, asked)
    assert (minted.revocable, minted.ttl, minted.renewable) == (None, None, False)
    assert minted.expires_at is not None
    assert abs(minted.expires_at - datetime.now(UTC) - timedelta(seconds=life)) < SOON


async def test_warnings_of_vault_reach_the_caller(
    server: FakeVaultServer, client: VaultClient, token: TaskToken
) -> None:
    """N4: a TTL that was capped is said, cut to what can stand in a line."""
    body = {
        "lease_id": f"{CREDS}orders-ro-eu/1",
        "lease_duration": 5,
        "data": {"password": "x"},
        "warnings": ['TTL of "60s" exceeded the effective max_ttl of "5s"\n', 5],
    }
    server.faults.append((CREDS, answering(web.json_response(body))))
    minted = await client.mint(token, WAREHOUSE)
    assert minted.ttl == timedelta(seconds=5)
    assert minted.warnings == ('TTL of "60s" exceeded the effective max_ttl of "5s"',)


# --- the probe -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "failure"),
    [
        (errors(500, "failed to execute query: ERROR: out of memory"), BackendFailed),
        (errors(500, "taskmint-probe sessions=many roles=0"), BackendFailed),
        (web.json_response({"data": {"username": "made"}}), BackendFailed),
        (errors(503, "Vault is sealed"), Unavailable),
    ],
)
async def test_a_probe_that_does_not_count_is_a_failure(
    server: FakeVaultServer,
    client: VaultClient,
    response: web.Response,
    failure: type[Exception],
) -> None:
    """Anything but the counts; and the probe's token is revoked in every case."""
    before = set(server.tokens)
    server.faults.append((f"{CREDS}taskmint-probe-", answering(response)))
    with pytest.raises(failure):
        await client.probe(token_request(), replace(WAREHOUSE, proof=ProofLevel.SESSIONS))
    assert set(server.tokens) == before


async def test_a_probe_whose_token_cannot_be_revoked_still_counts(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """The counts stand; the token, which nobody renews, ends by its period."""
    counted = errors(500, "1 error occurred:\n\t* taskmint-probe sessions=3 roles=1 (P0001)\n\n")
    server.faults.append((f"{CREDS}taskmint-probe-", answering(counted)))
    server.faults.append(("auth/token/revoke-accessor", answering(errors(500, "no"))))
    probed = await client.probe(token_request(), replace(WAREHOUSE, proof=ProofLevel.SESSIONS))
    assert (probed.sessions, probed.roles) == (3, 1)


async def test_only_what_promises_sessions_is_probed(client: VaultClient) -> None:
    """Asking for another proof is a bug of the caller's."""
    with pytest.raises(ValueError, match="promises no proof"):
        await client.probe(token_request(), WAREHOUSE)


# --- a plan that changes -------------------------------------------------------------------


async def test_a_retired_plan_ends_tasks_and_starts_none(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """P11: after a reload that narrows, what it forbids is not started, and is proven ended."""
    narrow = plan_from(POLICY.replace("MOUNT", "warehouse").replace("[eu, us]", "[us]"))
    lone = plan_from(VISITOR)
    token = await client.create_task_token(token_request())
    minted = await client.mint(token, WAREHOUSE)
    assert minted.revocable is not None
    client.swap_plan(narrow)
    client.swap_plan(lone)
    with pytest.raises(BackendFailed) as outside:
        await client.create_task_token(token_request())
    assert outside.value.created_nothing
    counted = errors(500, "taskmint-probe sessions=0 roles=0")
    server.faults.append((f"{CREDS}taskmint-probe-", answering(counted)))
    await client.revoke(minted.revocable)
    assert await client.is_gone(minted.revocable)
    probed = await client.probe(token_request(), replace(WAREHOUSE, proof=ProofLevel.SESSIONS))
    assert probed.sessions == 0


# --- what is sent --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "creds/../../sys/health",
        "creds/%2e%2e/%2e%2e/sys/health",
        "creds/orders-ro-eu\n",
        "creds/orders-ro-eu?x=1",
        "creds/orders-ro-eu#x",
        "creds//orders-ro-eu",
        "creds/orders-ro-eu/",
        "/creds/orders-ro-eu",
        "creds/orders-ro-eu;x",
        "creds/orders ro-eu",
        "creds/ørders",
        "creds/.",
        "creds/orders-ro-us",
        "",
    ],
)
async def test_hostile_names_never_build_a_url(
    server: FakeVaultServer, client: VaultClient, token: TaskToken, path: str
) -> None:
    """P3: what is not exactly in the plan is refused before anything leaves the process."""
    before = len(server.seen)
    with pytest.raises(BackendFailed) as refused:
        await client.mint(token, replace(WAREHOUSE, path=path))
    assert (refused.value.code, refused.value.created_nothing) == (Code.INTERNAL_ERROR, True)
    assert len(server.seen) == before


@pytest.mark.parametrize(
    "lease",
    ["secret/data/other/1", "sys/leases/x", "warehouse2/creds/orders-ro-eu/1", "../warehouse/x"],
)
async def test_p3_the_daemons_own_renewals_stay_within_the_plan_too(
    server: FakeVaultServer, client: VaultClient, lease: str
) -> None:
    """P3: a lease of no mount of ours is not kept alive. (Taking back is never refused here.)"""
    before = len(server.seen)
    foreign = Revocable(RevocableKind.LEASE, lease)
    with pytest.raises(BackendFailed) as refused:
        await client.renew(foreign, timedelta(seconds=10))
    assert refused.value.code is Code.INTERNAL_ERROR
    assert len(server.seen) == before


async def test_every_request_bears_the_guard_and_one_token(
    server: FakeVaultServer, client: VaultClient, token: TaskToken
) -> None:
    """X-Vault-Request on each; the mint with the task's token; none with the environment's."""
    await client.mint(token, WAREHOUSE)
    assert all(headers["X-Vault-Request"] == "true" for headers in server.headers)
    by_path = dict(zip([path for _, path in server.seen], server.headers, strict=True))
    assert "X-Vault-Token" not in by_path["auth/jwt/login"]
    minting = by_path["warehouse/creds/orders-ro-eu"]
    assert minting["X-Vault-Token"] == token.token.reveal()
    assert "Cookie" not in minting


async def test_a_namespace_goes_with_every_request(server: FakeVaultServer) -> None:
    """The configured namespace, also at the login."""
    async with connect(server, namespace="team/a"):
        pass
    assert {headers["X-Vault-Namespace"] for headers in server.headers} == {"team/a"}


async def test_a_unix_socket_serves_as_address(tmp_path: Path) -> None:
    """An agent on a Unix socket is as good as a server."""
    socket = tmp_path / "agent.sock"

    async def hello(request: web.BaseRequest) -> web.Response:
        return web.json_response({"path": request.path})

    runner = web.ServerRunner(web.Server(hello))
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        async with Transport(VaultSettings(f"unix://{socket}")) as transport:
            reply = await transport.send("GET", "sys/health", None, Secret("t"))
        assert reply.body == {"path": "/v1/sys/health"}
    finally:
        await runner.cleanup()


# --- the daemon's own token ----------------------------------------------------------------


async def test_a_dead_token_is_replaced_and_the_call_made_again(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """A 403 because the token itself is gone: log in anew, once, however many calls found out."""
    logins = server.count("auth/jwt/login")
    server.tokens.clear()
    made = await asyncio.gather(*(client.create_task_token(token_request()) for _ in range(8)))
    assert len({token.accessor for token in made}) == 8
    assert server.count("auth/jwt/login") == logins + 1


async def test_a_403_with_a_living_token_is_believed(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """Rights that are missing: plan_not_applied, and no second creation."""
    before = server.count(CREATE)
    server.faults.append((CREATE, answering(errors(403, PERMISSION_DENIED))))
    with pytest.raises(Unavailable) as denied:
        await client.create_task_token(token_request())
    assert (denied.value.code, denied.value.created_nothing) == (Code.PLAN_NOT_APPLIED, True)
    assert server.count(CREATE) == before + 1


async def test_a_role_that_is_not_there_is_a_plan_not_applied(
    server: FakeVaultServer, client: VaultClient
) -> None:
    """The server's 400 for an unknown role says what to do, and that nothing was made."""
    server.faults.append((CREATE, answering(errors(400, "unknown role taskmint-task-report"))))
    with pytest.raises(Unavailable) as missing:
        await client.create_task_token(token_request())
    assert (missing.value.code, missing.value.created_nothing) == (Code.PLAN_NOT_APPLIED, True)


async def test_the_token_is_renewed_at_a_third_and_replaced_at_its_maximum(
    server: FakeVaultServer,
) -> None:
    """Renewed long before it ends; when a renewal gives less, a new login, and the old one ends."""
    server.life = 3
    async with connect(server):
        await until(lambda: _count(server, "auth/token/renew-self", 1))
        assert server.count("auth/jwt/login") == 1
        server.life = 1
        await until(lambda: _count(server, "auth/jwt/login", 2))
        await until(lambda: _count(server, "auth/token/revoke-self", 1))


async def _count(server: FakeVaultServer, path: str, least: int) -> bool:
    return server.count(path) >= least


async def test_a_failing_renewal_is_tried_again_before_the_end(server: FakeVaultServer) -> None:
    """N25: retried at a twelfth of the life, so several times before it is too late."""
    server.life = 3
    lost: list[tuple[str, Fault]] = [("auth/token/renew-self", lose_the_reply) for _ in range(3)]
    server.faults += lost
    async with connect(server) as client:
        await until(lambda: _count(server, "auth/token/renew-self", 4))
        assert client.ready() is None
        assert server.count("auth/jwt/login") == 1


# --- rights --------------------------------------------------------------------------------


async def test_wider_rights_at_start_refuse(server: FakeVaultServer) -> None:
    """P1: the daemon does not start, and says what is too much."""
    server.policies["taskmint-daemon"] += '\npath "secret/*" {\n  capabilities = ["read"]\n}\n'
    with pytest.raises(Unavailable, match='path "secret/\\*"') as refused:
        async with connect(server):
            pass
    assert refused.value.code is Code.RIGHTS_TOO_WIDE
    assert len(server.tokens) == 0


async def test_a_lab_may_say_that_it_wants_wide_rights(server: FakeVaultServer) -> None:
    """The setting with the ugly name."""
    server.daemon_policies.append("root")
    async with connect(server, unsafe_allow_wide_rights=True) as client:
        assert client.ready() is None
        await client.create_task_token(token_request())


@pytest.mark.parametrize("where", ["daemon_policies", "identity_policies"])
async def test_rights_that_widen_later_stop_new_tasks_after_the_grace(
    server: FakeVaultServer, where: str
) -> None:
    """An alarm first; after the grace no new task; renewing and taking back go on; then relief."""
    grace = timedelta(seconds=0.3)
    every = timedelta(seconds=0.05)
    async with connect(server, drift_grace=grace, drift_interval=every) as client:
        token = await client.create_task_token(token_request())
        getattr(server, where).append("extra")
        await until(lambda: _refused(client, Code.RIGHTS_TOO_WIDE))
        assert client.ready() is not None
        await client.renew(token.revocable, timedelta(seconds=60))
        await client.revoke(token.revocable)
        assert await client.is_gone(token.revocable)
        getattr(server, where).remove("extra")
        client.swap_plan(PLAN)  # looks at once
        await until(lambda: _ready(client))


async def _refused(client: VaultClient, code: Code) -> bool:
    with contextlib.suppress(Unavailable):
        token = await client.create_task_token(token_request())
        await client.revoke(token.revocable)
        return False
    with pytest.raises(Unavailable) as refused:
        await client.create_task_token(token_request())
    assert (refused.value.code, refused.value.created_nothing) == (code, True)
    return True


async def _ready(client: VaultClient) -> bool:
    return client.ready() is None


async def test_what_is_missing_disables_only_what_needs_it(server: FakeVaultServer) -> None:
    """One definition's role is absent: that one answers plan_not_applied, the others work."""
    del server.roles["taskmint-task-sealer"]
    async with connect(server) as client:
        assert client.ready() is None
        with pytest.raises(Unavailable, match="taskmint-task-sealer does not exist") as missing:
            await client.create_task_token(token_request("sealer", ""))
        assert (missing.value.code, missing.value.created_nothing) == (Code.PLAN_NOT_APPLIED, True)
        await client.create_task_token(token_request())


# --- bulkheads -----------------------------------------------------------------------------


async def test_a_hanging_mount_keeps_neither_others_nor_revocations_waiting(
    server: FakeVaultServer,
) -> None:
    """P10: with every place of one mount taken, tokens, other mounts and taking back go on."""
    async with connect(server, max_connections=4) as client:
        token = await client.create_task_token(token_request())
        server.faults += [(CREDS, say_nothing) for _ in range(2)]
        hanging = [asyncio.create_task(client.mint(token, WAREHOUSE)) for _ in range(2)]
        await until(lambda: _count(server, CREDS, 2))
        sealer = await client.create_task_token(token_request("sealer", ""))
        lease = Revocable(RevocableKind.LEASE, f"{CREDS}orders-ro-eu/1")
        await client.revoke(lease)
        await client.revoke(sealer.revocable)
        assert all(not task.done() for task in hanging)
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_no_place_in_time_creates_nothing(server: FakeVaultServer) -> None:
    """A mint that found no place was never sent."""
    async with connect(server, max_connections=2) as client:
        token = await client.create_task_token(token_request())
        server.faults.append((CREDS, say_nothing))
        hanging = asyncio.create_task(client.mint(token, WAREHOUSE))
        await until(lambda: _count(server, CREDS, 1))
        server.faults.append((CREDS, say_nothing))
        answers = await asyncio.gather(
            *(client.mint(token, WAREHOUSE) for _ in range(3)), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, Unavailable)]
        assert refused
        await asyncio.gather(hanging, return_exceptions=True)
        sent = server.count(CREDS)
        assert all(error.created_nothing for error in refused[sent:])


# --- the circuit breaker -------------------------------------------------------------------


async def fail(server: FakeVaultServer, client: VaultClient, token: TaskToken, times: int) -> None:
    """Let mints fail with the mount's own failure."""
    for _ in range(times):
        server.faults.append((CREDS, answering(errors(500, "no connection to the database"))))
        with pytest.raises(BackendFailed):
            await client.mint(token, WAREHOUSE)


async def test_a_mount_that_keeps_failing_is_spared(
    server: FakeVaultServer, client: VaultClient, token: TaskToken
) -> None:
    """After five failures: refused at once, nothing sent, no token made; others are not touched."""
    minted = await client.mint(token, WAREHOUSE)
    await fail(server, client, token, FAILURES)
    asked = len(server.seen)
    with pytest.raises(Unavailable, match="failed 5 times in a row") as spared:
        await client.mint(token, WAREHOUSE)
    assert spared.value.created_nothing
    assert timedelta() < spared.value.retry_after <= timedelta(seconds=FIRST_PAUSE)
    with pytest.raises(Unavailable, match="failed 5 times in a row"):
        await client.create_task_token(token_request())
    assert len(server.seen) == asked
    assert minted.revocable is not None
    await client.renew(minted.revocable, timedelta(seconds=60))
    await client.revoke(minted.revocable)
    await client.create_task_token(token_request("sealer", ""))


async def test_a_mount_that_recovers_is_used_again(
    server: FakeVaultServer, client: VaultClient, token: TaskToken
) -> None:
    """One call is the trial: its failure spares the mount anew, its success ends that."""
    await fail(server, client, token, FAILURES)

    async def tried() -> bool:
        sent = server.count(CREDS)
        with contextlib.suppress(BackendFailed, Unavailable):
            await client.mint(token, WAREHOUSE)
        return server.count(CREDS) > sent

    server.faults.append((CREDS, answering(errors(500, "still away"))))
    await until(tried)
    with pytest.raises(Unavailable, match="failed 6 times in a row"):
        await client.mint(token, WAREHOUSE)
    await until(tried)
    for _ in range(3):
        await client.mint(token, WAREHOUSE)


async def test_refusals_do_not_open_the_circuit(
    server: FakeVaultServer, client: VaultClient, token: TaskToken
) -> None:
    """A 400, a 403, a quota: the mount works, it is this request that does not."""
    for status, text in ((400, "no"), (403, PERMISSION_DENIED), (429, "quota")) * FAILURES:
        server.faults.append((CREDS, answering(errors(status, text))))
        with pytest.raises((BackendFailed, Unavailable)):
            await client.mint(token, WAREHOUSE)
    await client.mint(token, WAREHOUSE)


# --- TLS -----------------------------------------------------------------------------------


async def test_plain_http_is_not_taken_for_tls(server: FakeVaultServer) -> None:
    """A handshake that fails sent nothing."""
    settings = VaultSettings(
        server.address.replace("http:", "https:"), timeout=timedelta(seconds=1)
    )
    async with Transport(settings) as transport:
        with pytest.raises(Unavailable) as away:
            await transport.send("GET", "sys/health", None, Secret("t"))
    assert away.value.created_nothing
    assert server.seen == []
    assert ssl.HAS_TLSv1_2


@pytest.mark.parametrize("seconds", [10**9, 10**13, 10**400], ids=["decades", "ages", "eternity"])
async def test_a_life_that_nothing_has_is_a_failure_with_a_code(
    server: FakeVaultServer, client: VaultClient, token: TaskToken, seconds: int
) -> None:
    """A number that no clock can be set by, wherever it comes: never an error of arithmetic."""
    made = await client.mint(token, WAREHOUSE)
    assert made.revocable is not None
    known = {"client_token": "x", "accessor": "y", "lease_duration": seconds}
    lease = {"lease_id": f"{CREDS}orders-ro-eu/1", "lease_duration": seconds}
    secret = {"data": {"token": "x", "ttl": seconds}}
    for path, body in (
        (CREATE, {"auth": known}),
        (CREDS, {**lease, "data": {"username": "x"}, "renewable": True}),
        ("sys/leases/renew", lease),
        (CREDS, secret),
    ):
        server.faults.append((path, answering(web.json_response(body))))
    with pytest.raises(BackendFailed, match="ten years"):
        await client.create_task_token(token_request())
    with pytest.raises(BackendFailed, match="ten years"):
        await client.mint(token, WAREHOUSE)
    with pytest.raises(BackendFailed, match="ten years"):
        await client.renew(made.revocable, timedelta(seconds=60))
    with pytest.raises(BackendFailed, match="ten years"):
        await client.mint(token, replace(WAREHOUSE, revocable=False))


async def test_a_field_of_a_kv_secret_is_no_life_of_it(
    server: FakeVaultServer, client: VaultClient, token: TaskToken
) -> None:
    """Whatever its owner has written there: a static secret ends by nothing."""
    body = {"data": {"password": "p", "ttl": 10**13}, "lease_id": "", "lease_duration": 2764800}
    server.faults.append((CREDS, answering(web.json_response(body))))
    assert (await client.mint(token, replace(WAREHOUSE, revocable=False))).expires_at is None


STRANGE = ["", "a\r\nX-Evil: 1", "a\x00b", "a b", "\ud800", "ü", "x" * 5000]


@pytest.mark.parametrize("text", STRANGE, ids=lambda text: ascii(text)[:12])
@pytest.mark.parametrize("field", ["client_token", "accessor"])
async def test_a_token_that_no_header_and_no_ledger_can_hold_is_a_failure_with_a_code(
    server: FakeVaultServer, client: VaultClient, field: str, text: str
) -> None:
    """A proxy that lies, or half an answer: nothing goes on with it."""
    auth = {"client_token": "x", "accessor": "y", "lease_duration": 60, field: text}
    visitor = await client.create_task_token(token_request("visitor", ""))
    for path in (CREATE, f"{CREATE}taskmint-hand"):
        server.faults.append((path, answering(web.json_response({"auth": auth}))))
    with pytest.raises(BackendFailed, match="did not say which"):
        await client.create_task_token(token_request())
    with pytest.raises(BackendFailed, match="gave no token"):
        await client.mint(visitor, HANDED)


@pytest.mark.parametrize(
    "name", ["\ud800", "a\nb", "x" * 256, 5], ids=lambda text: ascii(text)[:12]
)
async def test_a_user_name_that_the_ledger_cannot_hold_is_left_out(
    server: FakeVaultServer, client: VaultClient, token: TaskToken, name: Any
) -> None:
    """The secret goes to the caller as it came; the name was only for finding it again."""
    secret = {"username": name, "password": "p"}
    lease = {"lease_id": f"{CREDS}orders-ro-eu/1", "lease_duration": 60, "renewable": True}
    server.faults.append((CREDS, answering(web.json_response({**lease, "data": secret}))))
    made = await client.mint(token, WAREHOUSE)
    assert made.user_name is None
    assert made.data.reveal() == secret


def test_a_handed_token_ends_with_the_ttl_of_the_policy() -> None:
    """Vault tells of its period alone, which renewals prolong; the role's maximum they do not."""
    item = Entitlement(
        "hand",
        EntitlementKind.TOKEN,
        "auth/token",
        "create/taskmint-hand-keeper.hand",
        "POST",
        {"policies": "reader", "ttl": "20s"},
        ceiling=timedelta(seconds=20),
    )
    auth: dict[str, Json] = {
        "client_token": "hvs.x",
        "accessor": "a",
        "lease_duration": 10,
        "renewable": True,
        "policies": ["reader"],
        "orphan": False,
    }
    now = datetime.now(UTC)
    made = minting.minted(Reply(200, {}, {"auth": auth}), item, now)
    assert made.expires_at == now + timedelta(seconds=20)
    assert made.ttl == timedelta(seconds=10)


def test_a_database_account_that_cannot_be_renewed_is_given_to_nobody() -> None:
    """It would end in the middle of the task; a `secret` that is so says when it ends."""
    path = "warehouse/creds/taskmint-db-keeper.orders"
    body: dict[str, Json] = {"lease_id": f"{path}/1", "lease_duration": 60, "renewable": False}
    reply = Reply(200, {}, {**body, "data": {"username": "u"}})
    now = datetime.now(UTC)
    mount, _, rest = path.partition("/")
    with pytest.raises(BackendFailed, match="cannot be renewed"):
        minting.minted(reply, Entitlement("orders", EntitlementKind.DATABASE, mount, rest), now)
    made = minting.minted(reply, Entitlement("orders", EntitlementKind.SECRET, mount, rest), now)
    assert made.expires_at == now + timedelta(seconds=60)
