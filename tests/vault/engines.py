"""Secrets engines besides databases, set up as an admin would, and a client whose plan has them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from taskmint.config import DEFAULT_CLASSES
from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.openbao import OpenBao
from taskmint.devstack.postgres import Postgres
from taskmint.model.caller import IdentityMethod
from taskmint.model.scope import CallerFacts, DecisionInput, Entitlement, RequestFacts, Scope
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.decide import decide
from taskmint.policy.load import load_policy
from taskmint.ports import TokenRequest
from vault.ground import Ground, Signer, believe, plan_from, token_request

JOB = "spiffe://example.org/ns/orders/sa/nightly"
TASK = """\
  NAME:
    owner: team-orders@example.org
    class: batch
    who: ["spiffe://example.org/ns/orders/sa/{job}"]
    deadline: {default: 5m, max: 30m}
    ends: {bind: [peer]}
    scope:
      it:
        ENTITLEMENT
"""
ENTITLEMENTS = {
    "issue": "pki: {mount: pki, role: made, common_name: a.example.org, ttl: 10m}",
    "sign": "pki: {mount: pki, role: web, operation: sign, common_name: a.example.org, "
    "alt_names: [b.example.org], ttl: 10m}",
    "listed": "pki: {mount: pki, role: leased, operation: sign, common_name: a.example.org, "
    "ttl: 10m, proof: crl}",
    "lax": "pki: {mount: pki, role: lax, operation: sign, common_name: a.example.org, ttl: 10m}",
    "ssh": "ssh: {mount: ssh, role: ops, operation: sign, principals: [deploy, ops], ttl: 10m}",
    "otp": "ssh: {mount: ssh, role: otp, operation: otp, ip: 10.1.2.3, username: ubuntu}",
    "kv": "secret: {mount: kv, path: data/app, revocable: false}",
    "transit": "secret: {mount: transit-jwt, path: sign/orders, method: POST, revocable: false,"
    " body: {input: aGVsbG8=, prehashed: false, marshaling_algorithm: jws}}",
    "engine": "secret: {mount: ssh, path: creds/otp, method: POST, body: {ip: 10.1.2.4}}",
}
POLICY = "version: 1\ntasks:\n" + "".join(
    TASK.replace("NAME", name).replace("ENTITLEMENT", text) for name, text in ENTITLEMENTS.items()
)
PKI_ROLE = {
    "allowed_domains": ["example.org"],
    "allow_subdomains": True,
    "key_type": "any",
    "max_ttl": "10m",
    "use_csr_common_name": False,
    "use_csr_sans": False,
}


async def set_up_engines(admin: BaoHttp) -> None:
    """Mount them and write their roles; `lax` believes requests, and lets them live longer."""
    for mount, kind in (("pki", "pki"), ("ssh", "ssh"), ("transit-jwt", "transit")):
        await admin.call("POST", f"sys/mounts/{mount}", {"type": kind})
    await admin.call("POST", "sys/mounts/kv", {"type": "kv", "options": {"version": "1"}})
    await admin.call("POST", "pki/root/generate/internal", {"common_name": "CA", "ttl": "700h"})
    await admin.call("POST", "pki/roles/web", PKI_ROLE)
    await admin.call("POST", "pki/roles/made", {**PKI_ROLE, "key_type": "ec"})
    await admin.call("POST", "pki/roles/leased", {**PKI_ROLE, "generate_lease": True})
    lax = {"use_csr_common_name": True, "use_csr_sans": True, "max_ttl": "2h", "ttl": "2h"}
    await admin.call("POST", "pki/roles/lax", {**PKI_ROLE, **lax})
    await admin.call("POST", "ssh/config/ca", {"generate_signing_key": True})
    signing = {
        "key_type": "ca",
        "allow_user_certificates": True,
        "allowed_users": "deploy,ops",
        "max_ttl": "10m",
    }
    await admin.call("POST", "ssh/roles/ops", signing)
    otp = {"key_type": "otp", "default_user": "ubuntu", "cidr_list": "10.0.0.0/8"}
    await admin.call("POST", "ssh/roles/otp", {**otp, "allowed_users": "ubuntu"})
    await admin.call("POST", "kv/data/app", {"password": "kv-canary-7GrM2"})
    await admin.call("POST", "transit-jwt/keys/orders", {"type": "ecdsa-p256"})


def request_of(name: str) -> TokenRequest:
    """Ask for the token of a task of this definition."""
    return token_request(name, values="")


def asking_for(
    name: str, key: str | None = None, ttl: str = "600s", *, policy: str = POLICY
) -> Entitlement:
    """The entitlement as the task side asks for it: decided, with the ttl that is left."""
    caller = CallerFacts(SpiffeId.parse(JOB), 1000, IdentityMethod.JWT_SVID)
    keys = {} if key is None else {"it": key}
    loaded = load_policy([("policy.yaml", policy.encode())], DEFAULT_CLASSES)
    given = DecisionInput(caller, RequestFacts(name, public_keys=keys), datetime.now(UTC))
    decision = decide(loaded, given)
    assert isinstance(decision, Scope), decision
    (only,) = decision.entitlements
    return replace(only, body={**only.body, "ttl": ttl}) if "ttl" in only.body else only


@asynccontextmanager
async def engines_running(directory: Path, postgres: Postgres) -> AsyncIterator[Ground]:
    """An OpenBao of its own, holding a plan with every engine."""
    async with (
        OpenBao.running(directory) as bao,
        holding(bao, postgres, POLICY, set_up_engines) as ground,
    ):
        yield ground


@asynccontextmanager
async def holding(
    bao: OpenBao,
    postgres: Postgres,
    policy: str,
    prepare: Callable[[BaoHttp], Awaitable[None]],
) -> AsyncIterator[Ground]:
    """Prepare an empty OpenBao, and apply the plan of this policy."""
    signer = Signer()
    ground = Ground(bao.address, bao.root_token, postgres, signer, "", plan_from(policy))
    async with ground.admin() as admin:
        await prepare(admin)
        await admin.call("POST", "sys/auth/jwt", {"type": "jwt"})
        await believe(admin, signer)
    await ground.apply()
    yield ground
