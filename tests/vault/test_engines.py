"""Certificates, signed keys, one-time passwords and secrets of any engine, on the real server."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    SSHCertificate,
    load_pem_private_key,
    load_ssh_public_identity,
)

from policy.keys import key, request, signed, ssh_key, subject
from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.postgres import Postgres
from taskmint.errors import BackendFailed
from taskmint.model.scope import Entitlement, Json
from taskmint.ports import Minted, TaskToken
from taskmint.vault.apply import admin_door
from taskmint.vault.client import VaultClient
from taskmint.vault.findings import findings
from taskmint.vault.http import OutsidePlan
from taskmint.vault.live import read_live
from vault.engines import asking_for, engines_running, request_of
from vault.ground import LOG, Ground

from plugins.canaries import Canaries

pytestmark = pytest.mark.real


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engines(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> AsyncIterator[Ground]:
    """An OpenBao with every engine, for this module."""
    async with engines_running(tmp_path_factory.mktemp("engines"), postgres) as ground:
        yield ground


@pytest.fixture
async def client(engines: Ground) -> AsyncIterator[VaultClient]:
    """A daemon's client of it."""
    async with VaultClient(engines.settings(), engines.plan, engines.signer.fetch, LOG) as client:
        assert client.ready() is None
        yield client


async def mint(
    client: VaultClient, entitlement: Entitlement, name: str
) -> tuple[TaskToken, Minted]:
    """Mint with a token of a task of this definition."""
    token = await client.create_task_token(request_of(name))
    try:
        return token, await client.mint(token, entitlement)
    except BaseException:
        await client.revoke(token.revocable)
        raise


def certificate(minted: Minted) -> x509.Certificate:
    """The certificate of a credential."""
    return x509.load_pem_x509_certificate(str(minted.data.reveal()["certificate"]).encode())


async def test_a_certificate_with_a_key_of_its_own(client: VaultClient, canaries: Canaries) -> None:
    """Issued: the key is made by Vault, and is a secret; it expires, and nothing takes it back."""
    token, minted = await mint(client, asking_for("issue"), "issue")
    data = minted.data.reveal()
    canaries.plant(str(data["private_key"]).splitlines()[1], "an issued private key")

    private = load_pem_private_key(str(data["private_key"]).encode(), None)
    assert private.public_key() == certificate(minted).public_key()
    assert minted.revocable is None
    assert minted.expires_at == certificate(minted).not_valid_after_utc
    assert str(minted.serial).replace("-", ":") == data["serial_number"]
    assert "PRIVATE" not in repr(minted)
    await client.revoke(token.revocable)


@pytest.mark.parametrize("kind", ["p256", "ed25519", "rsa2048"])
async def test_the_callers_own_key_is_signed_for_the_policys_names(
    client: VaultClient, kind: str
) -> None:
    """Names from the policy, the key from the caller, the life that was asked for."""
    asked = asking_for("sign", request(kind), ttl="120s")
    token, minted = await mint(client, asked, "sign")
    made = certificate(minted)

    assert made.public_key() == key(kind).public_key()
    assert made.subject == subject("a.example.org")
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"a.example.org", "b.example.org"}
    assert (made.not_valid_after_utc - made.not_valid_before_utc).total_seconds() <= 120 + 30
    assert "private_key" not in minted.data.reveal()
    await client.revoke(token.revocable)


async def test_p3_the_server_pins_names_and_bounds_the_life(
    client: VaultClient, engines: Ground
) -> None:
    """P3: with the task's own token, other names are refused and a longer life is cut short."""
    token = await client.create_task_token(request_of("sign"))
    usual: dict[str, Json] = {
        "common_name": "a.example.org",
        "alt_names": "b.example.org",
        "ttl": "600s",
        "csr": request(),
    }
    async with BaoHttp(engines.address, token.token) as task:
        for changed in (
            {"common_name": "admin.example.org"},
            {"alt_names": "admin.example.org"},
            {"ip_sans": "10.0.0.1"},
            {"uri_sans": "spiffe://example.org/admin"},
            {"not_after": "2099-01-01T00:00:00Z"},
            {"format": "der"},
        ):
            answer = await task.send("POST", "pki/sign/web", {**usual, **changed})
            assert answer.status == 403, changed
        for path in ("pki/issue/web", "pki/sign-verbatim/web", "pki/sign/lax", "pki/revoke"):
            assert (await task.send("POST", path, usual)).status == 403, path
        long = (await task.call("POST", "pki/sign/web", {**usual, "ttl": "100h"})).body["data"]
        made = x509.load_pem_x509_certificate(long["certificate"].encode())
        assert (made.not_valid_after_utc - made.not_valid_before_utc).total_seconds() <= 630
    await client.revoke(token.revocable)


async def test_p3_a_hostile_request_does_not_leave_the_process(client: VaultClient) -> None:
    """P3: not the policy's names, whoever put them into the body."""
    asked = asking_for("sign", request())
    token = await client.create_task_token(request_of("sign"))
    for body in ({"common_name": "admin.example.org"}, {"ip_sans": "10.0.0.1"}):
        with pytest.raises(OutsidePlan):
            await client.mint(token, replace(asked, body={**asked.body, **body}))
    await client.revoke(token.revocable)


async def test_a_role_that_believes_requests_makes_nothing_that_is_delivered(
    client: VaultClient,
) -> None:
    """
    A request that asks for names does not get past the decision; if it did, and the role on the
    server believed it, the certificate would still go to nobody.
    """
    asking = x509.CertificateSigningRequestBuilder().subject_name(subject("admin.example.org"))
    hostile = signed(
        asking.add_extension(
            x509.SubjectAlternativeName([x509.DNSName("admin.example.org")]), critical=False
        )
    )
    asked = asking_for("lax", request())
    forced = replace(asked, body={**asked.body, "csr": hostile})
    with pytest.raises(BackendFailed, match="another common name; it was given to nobody"):
        await mint(client, forced, "lax")
    with pytest.raises(BackendFailed, match="lives longer than its ceiling"):
        await mint(client, replace(asked, body={**asked.body, "ttl": "2h"}), "lax")


async def test_p5_a_revoked_certificate_stands_on_the_list(client: VaultClient) -> None:
    """P5: the lease revokes it, without a right to pki/revoke; the fetched list is the proof."""
    asked = asking_for("listed", request())
    token, minted = await mint(client, asked, "listed")
    lease, serial = minted.revocable, str(minted.serial)
    assert lease is not None
    assert lease.id.startswith("pki/sign/leased/")
    assert not await client.is_listed(asked, serial)

    await client.revoke(lease)
    assert await client.is_gone(lease)
    assert await client.is_listed(asked, serial)

    other = await mint(client, asked, "listed")
    assert not await client.is_listed(asked, str(other[1].serial))
    await client.revoke(token.revocable)
    await client.revoke(other[0].revocable)


async def test_p6_a_certificate_goes_with_its_tokens_end(
    client: VaultClient, engines: Ground
) -> None:
    """P6: what a dead daemon left, the end of the token puts on the list."""
    asked = asking_for("listed", request())
    token, minted = await mint(client, asked, "listed")
    assert minted.revocable is not None

    await client.revoke(token.revocable)
    async with engines.admin() as admin:
        await admin.call(
            "PUT", "sys/leases/revoke", {"lease_id": minted.revocable.id, "sync": True}
        )
    assert await client.is_listed(asked, str(minted.serial))


async def test_a_key_is_signed_for_the_policys_principals(
    client: VaultClient, engines: Ground
) -> None:
    """Principals and life from the policy; other ones are refused by the server."""
    token, minted = await mint(client, asking_for("ssh", ssh_key(), ttl="60s"), "ssh")
    made = load_ssh_public_identity(str(minted.data.reveal()["signed_key"]).strip().encode())

    assert isinstance(made, SSHCertificate)
    assert sorted(made.valid_principals) == [b"deploy", b"ops"]
    assert made.valid_before - made.valid_after <= 60 + 30
    assert minted.revocable is None
    assert minted.serial == f"{made.serial:x}"
    async with BaoHttp(engines.address, token.token) as task:
        usual: dict[str, Json] = {
            "public_key": ssh_key(),
            "valid_principals": "deploy,ops",
            "ttl": "60s",
        }
        for changed in (
            {"valid_principals": "root"},
            {"cert_type": "host"},
            {"extensions": {"permit-pty": ""}},
            {"key_id": "admin"},
        ):
            answer = await task.send("POST", "ssh/sign/ops", {**usual, **changed})
            assert answer.status == 403, changed
        assert (await task.send("POST", "ssh/sign/ops", {**usual, "ttl": "11m"})).status == 400
    await client.revoke(token.revocable)


async def test_p5_a_one_time_password_is_revoked_with_its_task(
    client: VaultClient, engines: Ground
) -> None:
    """P5: a lease; afterwards the host's helper is told that there is no such password."""
    token, minted = await mint(client, asking_for("otp"), "otp")
    data = minted.data.reveal()
    lease = minted.revocable
    assert lease is not None
    assert (data["ip"], data["username"]) == ("10.1.2.3", "ubuntu")

    await client.revoke(lease)
    assert await client.is_gone(lease)
    async with engines.admin() as helper:
        assert (await helper.send("POST", "ssh/verify", {"otp": data["key"]})).status == 400
    await client.revoke(token.revocable)


async def test_a_static_secret_is_read_and_labelled(
    client: VaultClient, canaries: Canaries
) -> None:
    """KV: no lease, no end that anybody told; the daemon itself holds no right to its leases."""
    token, minted = await mint(client, asking_for("kv"), "kv")
    canaries.plant("kv-canary-7GrM2", "a static secret")
    assert minted.data.reveal() == {"password": "kv-canary-7GrM2"}
    assert (minted.revocable, minted.expires_at) == (None, None)
    await client.revoke(token.revocable)


async def test_a_post_with_a_typed_body(client: VaultClient) -> None:
    """Transit: booleans stay booleans; what it signed is data."""
    token, minted = await mint(client, asking_for("transit"), "transit")
    assert str(minted.data.reveal()["signature"]).startswith("vault:v1:")
    await client.revoke(token.revocable)


async def test_any_engine_with_leases(client: VaultClient) -> None:
    """A dynamic engine that taskmint knows nothing of: a lease, revoked and proven gone."""
    token, minted = await mint(client, asking_for("engine"), "engine")
    assert minted.revocable is not None
    await client.revoke(minted.revocable)
    assert await client.is_gone(minted.revocable)
    await client.revoke(token.revocable)


async def test_p1_the_daemons_own_rights_stay_what_they_were(engines: Ground) -> None:
    """P1: neither revoking certificates at will nor leases where it mints none."""
    text = "".join(
        engines.plan.policies[name].text for name in sorted(engines.plan.daemon_policies)
    )
    assert "pki/revoke" not in text
    for mount, held in (("pki", True), ("ssh", True), ("kv", False), ("transit-jwt", False)):
        assert (f'"{mount}/*"' in text) is held


async def test_check_finds_the_role_that_believes_requests_and_nothing_else(
    engines: Ground,
) -> None:
    """Of all roles, `lax` would let a request choose names, and live longer than the policy."""
    async with admin_door(engines.settings(), engines.root_token) as door:
        found = list(findings(engines.plan, await read_live(door, engines.plan)))
    assert [finding.partition(": ")[0] for finding in found] == ["pki role pki/lax"] * 3
