"""
What no answer and no name may do to us: one test or more for each kind of bad input on the way to
Vault and back, by the life of a task with the real client, against a server that misbehaves.

Two kinds live elsewhere: forged log lines in telemetry/test_logs.py, and a disk that is full or
fails in ledger/test_full_disk.py and e2e/test_damaged_ledger.py.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policy.asking import findings
from policy.keys import subject
from taskmint.devstack.loopback import HOST
from taskmint.errors import BackendFailed, Code, TaskmintError, Unavailable
from taskmint.model.scope import ParameterValue, RequestFacts
from taskmint.model.secret import Secret
from taskmint.model.state import EndCause
from taskmint.policy.acl import merge, parse, render
from taskmint.policy.plan_objects import Plan
from taskmint.ports import Revocable, RevocableKind
from taskmint.tasks.outside import Outside, Settings
from taskmint.tasks.service import TaskService
from taskmint.tasks.views import TaskView
from taskmint.vault.client import VaultClient
from taskmint.vault.http import Transport
from taskmint.vault.settings import VaultSettings
from vault.fake_server import FakeVaultServer, Fault, answering, errors, lose_the_reply
from vault.ground import LOG, Signer, plan_from, until

from fakes.clock import SteppedClock
from fakes.ledger import MemoryLedger
from fakes.observer import Seen
from fakes.processes import FakeProcesses
from tasks.world import caller, policy

REPORT = """\
version: 1
tasks:
  report:
    owner: team-orders@example.org
    class: batch
    who: [spiffe://example.org/job]
    parameters: {region: {enum: [eu, us]}, shard: {type: segment}}
    deadline: {default: 5m, max: 30m}
    ends: {deadline_only: true}
    scope:
      warehouse:
        secret: {mount: warehouse, path: "creds/orders-ro-{region}"}
      shard:
        secret: {mount: kv, path: "data/{shard}", revocable: false}
"""
CREDS = "warehouse/creds/"
CREATE = "auth/token/create/"
PLAN = plan_from(REPORT)


@dataclass
class Life:
    """A task service with the real client of a server that misbehaves."""

    server: FakeVaultServer
    service: TaskService
    ledger: MemoryLedger
    clock: SteppedClock

    async def start(self, **parameters: ParameterValue) -> TaskView:
        """Ask for the report."""
        given = {"region": "eu", "shard": "a", **parameters}
        return await self.service.start(caller(), RequestFacts("report", given), None)

    async def settled(self) -> None:
        """
        Wait until nothing stands but the daemon's own token, and the ledger says that it is over.

        What was made without our hearing of it ends by the server's clocks: time passes.
        """

        async def over() -> bool:
            self.clock.pass_time(timedelta(seconds=70))
            return self.ledger.events()[-1] in {"revoked", "failed"}

        await until(over)
        assert len(self.server.tokens) == 1
        assert self.server.leases == {}


@pytest.fixture
async def life() -> AsyncIterator[Life]:
    """A new one for each test."""
    crashes: list[BaseException] = []
    ledger, clock = MemoryLedger(), SteppedClock()
    async with (
        FakeVaultServer(PLAN).running() as server,
        connect(server.address) as client,
    ):
        outside = Outside(client, ledger, FakeProcesses(), clock, Seen(), LOG)
        settings = Settings("node-1", "boot-1")
        async with TaskService(policy(REPORT), outside, settings, crashes.append) as service:
            await service.recover()
            yield Life(server, service, ledger, clock)
    assert crashes == []


def connect(address: str, plan: Plan = PLAN, ca_file: Path | None = None) -> VaultClient:
    """A client with little patience."""
    settings = VaultSettings(address, timeout=timedelta(seconds=1), ca_file=ca_file)
    return VaultClient(settings, plan, Signer().fetch, LOG)


# --- names ---------------------------------------------------------------------------------

HOSTILE = (
    "../../sys/health",
    "eu/../admin",
    "%2e%2e",
    "eu?x=1",
    "eu#x",
    "//evil.example",
    "eu\n",
    "EU ",
    "eu.",
    "\u0435",  # the Cyrillic letter
    'x"; ALTER ROLE postgres SUPERUSER; --',
    "{{name}}",
    "{{identity.entity.id}}",
    '" { capabilities=["sudo"] } path "*',
    "*",
    "+",
    "",
    "a" * 65,
)


@pytest.mark.parametrize("value", HOSTILE)
async def test_a_hostile_parameter_is_refused_before_any_url(life: Life, value: str) -> None:
    """Paths, statements, HCL, templates, wildcards, look-alikes, in either kind of parameter."""
    for name in ("region", "shard"):
        before = len(life.server.seen)
        with pytest.raises(TaskmintError) as refused:
            await life.start(**{name: value})
        assert refused.value.code is Code.PARAMETER_INVALID
        assert len(life.server.seen) == before


@pytest.mark.parametrize("name", ["Report", "report ", "report/", "../report", "rep\u043ert"])
async def test_a_definition_is_named_exactly_or_not_at_all(life: Life, name: str) -> None:
    """Capitals, trailing spaces and look-alikes are other names, and there are none such."""
    with pytest.raises(TaskmintError) as refused:
        await life.service.start(caller(), RequestFacts(name), None)
    assert refused.value.code is Code.NOT_PERMITTED


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("mount: warehouse,", 'mount: "//evil.example/v1",'),
        ("mount: warehouse,", "mount: ../sys,"),
        ("mount: warehouse,", "mount: 'ware house',"),
        ("creds/orders-ro-{region}", "creds/../../sys/health"),
        ("creds/orders-ro-{region}", "creds/orders?{region}"),
        ("creds/orders-ro-{region}", "https://evil.example/{region}"),
        ("[eu, us]", "[eu, EU]"),
        ("[eu, us]", "['eu.x', us]"),
        ("[eu, us]", "['{{name}}', us]"),
    ],
)
def test_a_policy_that_could_leave_its_place_does_not_load(written: str, instead: str) -> None:
    """No mount, path or value of a policy reaches a host, another mount, or a template."""
    assert findings(REPORT.replace(written, instead)) != []


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_in_an_acl_is_data(value: str) -> None:
    """Whatever stands in a pinned body: read back, the policy has the same one rule."""
    text = REPORT.replace(
        'secret: {mount: warehouse, path: "creds/orders-ro-{region}"}',
        "token: {policy: reader}",
    )
    plan = plan_from(text)
    (rule,) = (one for one in plan.policies["taskmint-daemon"].rules if "create/" in one.path)
    merged = merge([replace(rule, parameters={"policies": (value,)}, required=())])
    read = parse(render(merged))
    assert [one.rule for one in read] == list(merged)


# --- answers -------------------------------------------------------------------------------


async def half_an_answer(
    request: web.BaseRequest, answer: web.StreamResponse
) -> web.StreamResponse:
    """Begin to say what was made, and stop in the middle of a word."""
    del answer
    begun = web.StreamResponse(headers={"Content-Length": "1000"})
    await begun.prepare(request)
    await begun.write(b'{"lease_id": "warehouse/creds/ord')
    assert request.transport is not None
    request.transport.abort()
    return begun


def page(status: int) -> Fault:
    """A load balancer's."""
    html = "<html><body>Please log in</body></html>"
    return answering(web.Response(status=status, text=html, content_type="text/html"))


def lease(**changed: object) -> Fault:
    """An answer like the right one, but for something."""
    right = {
        "lease_id": f"{CREDS}orders-ro-eu/1",
        "lease_duration": 60,
        "renewable": True,
        "data": {"username": "u", "password": "not-a-secret"},
    }
    return answering(web.json_response({**right, **changed}))


ANSWERS = {
    "half an answer": half_an_answer,
    "no answer": lose_the_reply,
    "a page with 200": page(200),
    "a page with 503": page(503),
    "a page with 404": page(404),
    "32 MB": answering(web.Response(body=b"[" * (32 << 20))),
    "a list": answering(web.json_response([])),
    "no lease": lease(lease_id=""),
    "a lease that is no text": lease(lease_id=["x"]),
    "no life": lease(lease_duration=0),
    "a life that is no number": lease(lease_duration="60"),
    "another mount's lease": lease(lease_id="kv/creds/orders-ro-eu/1"),
    "another role's lease": lease(lease_id=f"{CREDS}orders-ro-us/1"),
    "a lease that climbs": lease(lease_id=f"{CREDS}orders-ro-eu/../../../sys/x/1"),
    "wrapped": lease(wrap_info={"token": "t"}),
    "a token": lease(auth={"client_token": "t"}),
    "no data": lease(data=None),
    "an engine's failure": answering(errors(500, "failed to create user")),
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_a_wrong_answer_to_a_mint_is_a_code_a_revoke_and_nothing_kept(
    life: Life, what: str
) -> None:
    """The caller gets 502 or 503 and no credential; the task token is revoked, and its leases."""
    life.server.faults.append((CREDS, ANSWERS[what]))
    with pytest.raises((BackendFailed, Unavailable)) as failed:
        await life.start()

    assert failed.value.code in {Code.VAULT_ERROR, Code.VAULT_UNAVAILABLE}
    assert "not-a-secret" not in f"{failed.value.detail} {failed.value.fix}"
    await life.settled()
    assert life.server.count(CREDS) == 1  # never asked for again
    assert life.server.count("auth/token/revoke-accessor") >= 1


@pytest.mark.parametrize("what", ["half an answer", "no answer", "a page with 200", "32 MB"])
async def test_a_wrong_answer_to_a_tokens_creation_mints_nothing(life: Life, what: str) -> None:
    """A token may exist whose accessor nobody knows: no mint, and it ends by its period."""
    life.server.faults.append((CREATE, ANSWERS[what]))
    with pytest.raises((BackendFailed, Unavailable)):
        await life.start()
    assert life.server.count(CREDS) == 0


async def test_a_huge_lifetime_promises_no_more_than_the_token(life: Life) -> None:
    """Nine years of lease are granted on a token of a minute: a minute is promised."""
    life.server.faults.append((CREDS, lease(lease_duration=284_000_000)))
    view = await life.start()
    assert view.guaranteed_until <= datetime.now(UTC) + timedelta(seconds=61)


# --- taking back ---------------------------------------------------------------------------

LEASE = Revocable(RevocableKind.LEASE, f"{CREDS}orders-ro-eu/1")
NOT_PROVEN = {
    "403": errors(403, "permission denied"),
    "400 of another kind": errors(400, "failed to revoke entry"),
    "404": errors(404),
    "sealed": errors(503, "Vault is sealed"),
    "429": errors(429, "request path quota exceeded", headers={"Retry-After": "1"}),
    "412": errors(412, "required index state not present"),
    "a page": web.Response(status=400, text="<html>invalid lease</html>"),
    "nearly the words": errors(400, "invalid lease id"),
}


@pytest.mark.parametrize("what", NOT_PROVEN)
async def test_what_is_not_exactly_gone_keeps_the_task_revoking(life: Life, what: str) -> None:
    """A look-up that proves nothing closes nothing; the next one that does, does."""
    task = await life.start()
    again = 4 if what == "412" else 1  # which is asked again by itself
    for _ in range(again):
        life.server.faults.append(("sys/leases/lookup", copied(NOT_PROVEN[what])))
    ended = await life.service.end(caller(), task.id, EndCause.SUCCEEDED, timedelta(seconds=10))
    assert ended.state == "revoked"
    assert life.server.count("sys/leases/lookup") == again + 1


def copied(answer: web.Response) -> Fault:
    """Answer the same again; a response can be sent only once."""
    return answering(
        web.Response(status=answer.status, body=answer.body, headers={**answer.headers})
    )


@pytest.mark.parametrize(
    "path",
    [
        "sys/leases/revoke-force/warehouse",
        "sys/leases/revoke-prefix/warehouse",
        "sys/revoke-force/warehouse",
        "sys/revoke-prefix/warehouse",
        "sys/revoke",
        "sys/leases/tidy",
        "sys/raw/x",
        "auth/token/revoke-orphan",
        "auth/token/create",
        "auth/token/create-orphan",
        "sys/policies/acl/taskmint-daemon",
    ],
)
def test_what_forces_or_sweeps_is_not_in_the_plan(path: str) -> None:
    """Neither sent by us nor allowed by the daemon's policy."""
    for method in ("POST", "PUT", "DELETE", "LIST"):
        assert not PLAN.permits_daemon(method, path, {})
    paths = {rule.path: rule for name in PLAN.daemon_policies for rule in PLAN.policies[name].rules}
    held = paths.get(path)
    assert held is None or held.capabilities == ("read",)


def test_a_stolen_token_of_the_daemon_is_bounded_by_the_server() -> None:
    """Short, renewable to a day at most, bound to one identity, no sudo, no wildcard that gives."""
    role = PLAN.auth_role
    assert role is not None
    assert (role.period, role.explicit_max_ttl) == (timedelta(minutes=15), timedelta(hours=24))
    assert role.subject == "spiffe://example.org/taskmint"
    for name in PLAN.daemon_policies:
        for rule in PLAN.policies[name].rules:
            assert "sudo" not in rule.capabilities
            assert "+" not in rule.path
            if rule.path.endswith("*"):
                assert rule.path == "warehouse/roles/taskmint-db-*"
                assert rule.capabilities == ("delete",)


# --- the way there -------------------------------------------------------------------------


def issue(directory: Path, name: str, *, days: int) -> tuple[Path, ssl.SSLContext]:
    """Make a self-signed server certificate; its file to trust, and a context to serve with."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName(name) if name != HOST else x509.IPAddress(ip_address(HOST))]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject("vault"))
        .issuer_name(subject("vault"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=3))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    file, both = directory / "ca.pem", directory / "both.pem"
    file.write_bytes(pem)
    both.write_bytes(pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return file, context


@contextlib.asynccontextmanager
async def tls_server(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[str]]]:
    """Serve with a certificate; the port, and the paths that were asked for."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return web.json_response({"data": {}})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1], asked
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("name", "days", "served"),
    [(HOST, 1, True), (HOST, -1, False), ("vault.example.org", 1, False)],
    ids=["right", "expired", "another name"],
)
async def test_a_server_that_is_not_provably_the_one_gets_nothing(
    tmp_path: Path, name: str, days: int, *, served: bool
) -> None:
    """Pinned and yet expired, or for another host: the handshake fails, not a byte is sent."""
    ca_file, context = await asyncio.to_thread(issue, tmp_path, name, days=days)
    async with tls_server(context) as (port, asked):
        settings = VaultSettings(f"https://{HOST}:{port}", ca_file=ca_file)
        async with Transport(settings) as transport:
            if served:
                assert (await transport.send("GET", "sys/health", None, None)).status == 200
                return
            with pytest.raises(Unavailable) as refused:
                await transport.send("GET", "sys/health", None, Secret("t"))
        assert (refused.value.created_nothing, asked) == (True, [])


async def test_the_environment_leads_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Proxies, VAULT_*, a CA in SSL_CERT_FILE: none of them is looked at."""
    async with (
        FakeVaultServer(PLAN).running() as elsewhere,
        FakeVaultServer(PLAN).running() as server,
    ):
        for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "VAULT_ADDR", "BAO_ADDR"):
            monkeypatch.setenv(variable, elsewhere.address)
        monkeypatch.setenv("VAULT_TOKEN", "s.somebody-elses")
        monkeypatch.setenv("VAULT_NAMESPACE", "another")
        async with connect(server.address) as client:
            assert client.ready() is None
        assert elsewhere.seen == []
        assert all("X-Vault-Namespace" not in headers for headers in server.headers)
        tokens = {headers.get("X-Vault-Token") for headers in server.headers}
        assert "s.somebody-elses" not in tokens

    ca_file, context = await asyncio.to_thread(issue, tmp_path, HOST, days=1)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    async with (
        tls_server(context) as (port, _),
        Transport(VaultSettings(f"https://{HOST}:{port}")) as transport,
    ):
        with pytest.raises(Unavailable):
            await transport.send("GET", "sys/health", None, None)
