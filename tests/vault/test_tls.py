"""TLS to a real OpenBao: a pinned CA, and the daemon's login by its X.509-SVID (cert auth)."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.loopback import HOST, reserved_port
from taskmint.devstack.postgres import Postgres
from taskmint.errors import Code, ConfigError, Unavailable
from taskmint.model.secret import Secret
from taskmint.policy.plan_objects import PlanSettings
from taskmint.vault.client import VaultClient
from taskmint.vault.http import ClientCertificate, Transport, tls_context
from taskmint.vault.login import FetchCertificate
from taskmint.vault.settings import CertLogin
from vault.cluster import running_cluster
from vault.ground import (
    DAEMON,
    LOG,
    POLICY,
    Ground,
    Signer,
    plan_from,
    set_up,
    token_request,
    until,
)

pytestmark = pytest.mark.real

LISTENER = """
listener "tcp" {{
  address       = "{host}:{port}"
  tls_cert_file = "{cert}"
  tls_key_file  = "{key}"
}}
"""


class Authority:
    """A CA that issues servers' certificates and X.509-SVIDs."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """The CA's certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(
        self, name: x509.GeneralName, common_name: str
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Issue a leaf with one subject alternative name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE")]
        if common_name:
            subject.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
        now = datetime.now(UTC)
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(minutes=10))
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        return leaf, key

    def svid(self, spiffe_id: str = DAEMON, common_name: str = "taskmint") -> ClientCertificate:
        """Issue an X.509-SVID."""
        leaf, key = self.issue(x509.UniformResourceIdentifier(spiffe_id), common_name)
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return ClientCertificate((leaf.public_bytes(Encoding.DER),), Secret(der))


@dataclass
class Secure:
    """A server with TLS; `ground` speaks to its plain listener, `address` is the other."""

    ground: Ground
    address: str
    ca_file: Path
    authority: Authority


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def secure(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> AsyncIterator[Secure]:
    """A server of this module's own, with cert auth enabled and the plan applied for it."""
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority()
    leaf, key = authority.issue(x509.IPAddress(ip_address(HOST)), "vault")
    ca_file, cert_file, key_file = (directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    await asyncio.to_thread(ca_file.write_text, authority.pem)
    await asyncio.to_thread(cert_file.write_bytes, leaf.public_bytes(Encoding.PEM))
    await asyncio.to_thread(key_file.write_bytes, pem)
    with reserved_port() as port:
        more = LISTENER.format(host=HOST, port=port, cert=cert_file, key=key_file)
        async with running_cluster(directory, size=1, more=more) as cluster:
            node = cluster.nodes[0]
            ground = await set_up(node.address, cluster.root_token, postgres, Signer(), "tls")
            await enable_cert_auth(ground, authority)
            yield Secure(ground, f"https://{HOST}:{port}", ca_file, authority)


async def enable_cert_auth(ground: Ground, authority: Authority) -> None:
    """Do what an admin does: the method, and the role with the trust domain's CA; then apply."""
    async with ground.admin() as admin:
        await admin.call("POST", "sys/auth/cert", {"type": "cert"})
        role = {"certificate": authority.pem, "allowed_uri_sans": [DAEMON]}
        await admin.call("POST", "auth/cert/certs/taskmint", role)
    settings = PlanSettings(method="cert", mount="cert", spiffe_id=DAEMON)
    ground.plan = plan_from(POLICY.replace("MOUNT", "tls"), settings)
    await ground.apply()


def client_of(secure: Secure, certificate: ClientCertificate) -> VaultClient:
    """A client that logs in with this SVID."""

    async def fetch() -> ClientCertificate:
        return certificate

    return client_fetching(secure, fetch)


def client_fetching(secure: Secure, fetch: FetchCertificate) -> VaultClient:
    """A client that asks for an SVID at each login."""
    ground = secure.ground
    settings = ground.settings(
        address=secure.address,
        ca_file=secure.ca_file,
        login=CertLogin(),
        timeout=timedelta(seconds=5),
    )
    return VaultClient(settings, ground.plan, Signer().fetch, LOG, fetch)


async def test_the_daemon_logs_in_with_its_x509_svid(secure: Secure) -> None:
    """The whole way over TLS, with no JWT and no secret anywhere; the rights equal the plan."""
    async with client_of(secure, secure.authority.svid()) as client:
        assert client.ready() is None
        token = await client.create_task_token(token_request())
        minted = await client.mint(token, secure.ground.warehouse())
        assert minted.revocable is not None
        await client.revoke(minted.revocable)
        await client.revoke(token.revocable)
        assert await client.is_gone(minted.revocable)


async def test_each_login_takes_the_newest_svid_and_gives_the_former_token_back(
    secure: Secure,
) -> None:
    """At a third of the token's life, so before it expires; rotation needs no notice."""
    shown: list[ClientCertificate] = []

    async def fetch() -> ClientCertificate:
        shown.append(secure.authority.svid())
        return shown[-1]

    async with secure.ground.admin() as admin:
        role = (await admin.call("GET", "auth/cert/certs/taskmint")).data
        await admin.call("POST", "auth/cert/certs/taskmint", {**role, "token_period": 3})
        try:
            async with client_fetching(secure, fetch) as client:
                (first,) = await logins(admin)
                await until(third_login(shown))
                assert client.ready() is None
                token = await client.create_task_token(token_request())
                await client.revoke(token.revocable)
                assert first not in await logins(admin)
        finally:
            await admin.call("POST", "auth/cert/certs/taskmint", role)
        assert await logins(admin) == set()
    assert len({one.chain for one in shown}) == len(shown)


def third_login(shown: list[ClientCertificate]) -> Callable[[], Awaitable[bool]]:
    """Whether the daemon has logged in a third time."""

    async def there() -> bool:
        return len(shown) > 2

    return there


async def logins(admin: BaoHttp) -> set[str]:
    """Accessors of the tokens that stand for logins by certificate."""
    found = set()
    for accessor in (await admin.call("LIST", "auth/token/accessors")).data["keys"]:
        about = await admin.send("POST", "auth/token/lookup-accessor", {"accessor": accessor})
        if about.status == 200 and about.data["path"] == "auth/cert/login":
            found.add(accessor)
    return found


@pytest.mark.parametrize(
    ("spiffe_id", "common_name"),
    [("spiffe://example.org/other", "taskmint"), (f"{DAEMON}/x", "taskmint"), (DAEMON, "")],
)
async def test_another_svid_does_not_log_in(
    secure: Secure, spiffe_id: str, common_name: str
) -> None:
    """Another SPIFFE ID, and one without the common name that Vault names its alias by."""
    async with client_of(secure, secure.authority.svid(spiffe_id, common_name)) as client:
        reason = client.ready()
        assert reason is not None
        assert "refuses the daemon's login" in reason


async def test_an_svid_of_another_authority_does_not_log_in(secure: Secure) -> None:
    """The same SPIFFE ID, signed by somebody else."""
    async with client_of(secure, Authority().svid()) as client:
        assert client.ready() is not None


async def test_without_an_svid_the_daemon_waits(secure: Secure) -> None:
    """No X.509-SVID yet: identity_unavailable, not a crash."""
    settings = secure.ground.settings(
        address=secure.address, ca_file=secure.ca_file, login=CertLogin()
    )
    async with VaultClient(settings, secure.ground.plan, Signer().fetch, LOG) as client:
        with pytest.raises(Unavailable) as waiting:
            await client.create_task_token(token_request())
    assert waiting.value.created_nothing


async def test_only_the_pinned_ca_is_believed(secure: Secure, tmp_path: Path) -> None:
    """Another CA, and the system's: the handshake fails, and nothing was sent."""
    other = tmp_path / "other.pem"
    await asyncio.to_thread(other.write_text, Authority().pem)
    for ca_file in (other, None):
        settings = secure.ground.settings(address=secure.address, ca_file=ca_file)
        async with Transport(settings) as transport:
            with pytest.raises(Unavailable) as refused:
                await transport.send("GET", "sys/health", None, Secret("t"))
        assert (refused.value.code, refused.value.created_nothing) == (Code.VAULT_UNAVAILABLE, True)
    pinned = secure.ground.settings(address=secure.address, ca_file=secure.ca_file)
    async with Transport(pinned) as transport:
        assert (await transport.send("GET", "sys/health", None, None)).status == 200


def test_a_key_of_another_certificate_is_refused() -> None:
    """A ValueError with a sentence, whatever OpenSSL says."""
    authority = Authority()
    mixed = replace(authority.svid(), key=authority.svid().key)
    with pytest.raises(ValueError, match="do not fit"):
        tls_context(None, mixed)
    context = tls_context(None, authority.svid())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_ca_file_that_will_not_do_is_named_without_waiting(tmp_path: Path) -> None:
    """Absent, a directory, a pipe that nobody writes to, no certificate: a finding with its fix."""
    (tmp_path / "words").write_text("no certificate")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (
        ("absent", "does not exist"),
        ("directory", "is not a regular file"),
        ("pipe", "is not a regular file"),
        ("words", "holds no certificate that can be read"),
    ):
        with pytest.raises(ConfigError) as refused:
            tls_context(tmp_path / name, None)
        (finding,) = refused.value.findings
        assert (finding.file, finding.key) == (str(tmp_path / name), "vault.ca_file")
        assert problem in finding.problem
        assert finding.fix
