"""What the Vault tests share: a policy and its plan, SVIDs signed here, and an OpenBao set up."""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from taskmint.config import DEFAULT_CLASSES
from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.postgres import VAULT_USER, Postgres
from taskmint.model.scope import Entitlement, EntitlementKind, ProofLevel
from taskmint.model.secret import Secret
from taskmint.model.task_id import new_task_id, vault_name
from taskmint.policy.database import POSTGRESQL_REVOCATION
from taskmint.policy.enumerate import enumerate_definitions
from taskmint.policy.load import load_policy
from taskmint.policy.plan import plan_of
from taskmint.policy.plan_objects import Plan, PlanSettings
from taskmint.ports import TokenRequest
from taskmint.vault.apply import admin_door, write
from taskmint.vault.changes import changes
from taskmint.vault.live import read_live
from taskmint.vault.settings import JwtLogin, VaultSettings

DAEMON = "spiffe://example.org/taskmint"
DEAD_MAN = timedelta(seconds=60)
NODE = "node-1"
_CREATE = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
LOG = structlog.stdlib.get_logger()

POLICY = """\
version: 1
tasks:
  report:
    owner: team-orders@example.org
    class: batch
    who: ["spiffe://example.org/ns/orders/sa/{job}"]
    parameters: {region: {enum: [eu, us]}}
    deadline: {default: 5m, max: 30m}
    ends: {bind: [peer]}
    scope:
      warehouse:
        secret: {mount: MOUNT, path: "creds/orders-ro-{region}", proof: sessions}
  sealer:
    owner: team-orders@example.org
    class: batch
    who: ["spiffe://example.org/ns/orders/sa/sealer"]
    deadline: {default: 5m, max: 30m}
    ends: {bind: [peer]}
    scope:
      key:
        secret: {mount: transit-MOUNT, path: datakey/plaintext/orders, method: POST,
                 body: {context: "b3JkZXJz", bits: 256}}
  visitor:
    owner: team-orders@example.org
    class: batch
    who: ["spiffe://example.org/ns/orders/sa/visitor"]
    deadline: {default: 5m, max: 30m}
    ends: {bind: [peer]}
    scope:
      vault:
        token: {policy: reader, ttl: 10m, num_uses: 3}
"""

# A role for each task, on a connection kept for such roles.
KEEPER = f"""\
  keeper:
    owner: team-orders@example.org
    class: batch
    who: ["spiffe://example.org/ns/orders/sa/keeper"]
    parameters: {{region: {{enum: [eu, us]}}}}
    deadline: {{default: 5m, max: 30m}}
    ends: {{bind: [peer]}}
    scope:
      books:
        database:
          mount: MOUNT
          connection: tasks
          creation: [{json.dumps(_CREATE)}, 'GRANT orders_ro_{{region}} TO "{{{{name}}}}"']
          revocation: [{json.dumps(POSTGRESQL_REVOCATION)}]
          proof: sessions
"""


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Ask again and again until the answer is yes; for what a server does in its own time."""
    async with asyncio.timeout(seconds):
        while not await true():
            await asyncio.sleep(0.05)


def plan_from(text: str, settings: PlanSettings | None = None) -> Plan:
    """Load a policy's text and derive its plan."""
    policy = load_policy([("policy.yaml", text.encode())], DEFAULT_CLASSES)
    return plan_of(
        enumerate_definitions(policy), settings or PlanSettings(mount="jwt", spiffe_id=DAEMON)
    )


@dataclass
class Signer:
    """Signs the daemon's JWT-SVIDs; `rotate` replaces the key, as a trust domain does."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    fetched: int = 0

    @property
    def public(self) -> str:
        """The key as Vault takes it."""
        encoded = self.key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return encoded.decode()

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self.key = ec.generate_private_key(ec.SECP256R1())

    async def fetch(self, **other: object) -> Secret[str]:
        """Fetch an SVID, as the daemon does from the Workload API."""
        self.fetched += 1
        now = int(time.time())
        claims = {"sub": DAEMON, "aud": "vault", "iat": now, "exp": now + 300, **other}
        return Secret(jwt.encode(claims, self.key, algorithm="ES256"))


@dataclass
class Ground:
    """An OpenBao that holds the plan, with a PostgreSQL behind it. `mount` is its own."""

    address: str
    root_token: Secret[str]
    postgres: Postgres
    signer: Signer
    mount: str
    plan: Plan

    def admin(self) -> BaoHttp:
        """Open a session with the root token."""
        return BaoHttp(self.address, self.root_token)

    def settings(self, **changed: Any) -> VaultSettings:
        """How the daemon reaches it."""
        login = JwtLogin(mount="jwt", role="taskmint")
        made = VaultSettings(self.address, login=login, timeout=timedelta(seconds=10))
        return replace(made, **changed)

    async def apply(self) -> None:
        """Write the plan with the root token."""
        async with admin_door(self.settings(), self.root_token) as door:
            wanted = changes(self.plan, await read_live(door, self.plan), prune=True)
            async for _ in write(door, wanted):
                pass

    def books(self, name: str, region: str = "eu") -> Entitlement:
        """The database entitlement of `keeper`, for a revision of this name."""
        (role,) = (item for item in self.plan.task_roles if item.beginning.endswith(f".{region}"))
        made = Entitlement(
            "books",
            EntitlementKind.DATABASE,
            self.mount,
            f"creds/{role.beginning}",
            body=role.fields,
            proof=ProofLevel.SESSIONS,
        )
        return made.for_task(name)

    def warehouse(self, region: str = "eu") -> Entitlement:
        """The database entitlement of `report`."""
        return Entitlement(
            "warehouse",
            EntitlementKind.SECRET,
            self.mount,
            f"creds/orders-ro-{region}",
            proof=ProofLevel.SESSIONS,
        )


def token_request(definition: str = "report", values: str = ".eu") -> TokenRequest:
    """Ask for a token as the task side does, for a task of its own."""
    task = new_task_id(int(time.time() * 1000), secrets.token_bytes(10))
    return TokenRequest(
        role=f"taskmint-task-{definition}",
        policy=f"taskmint-task-{definition}{values}",
        display_name=vault_name(NODE, task),
        meta={"task": task, "spiffe_id": "spiffe://example.org/ns/orders/sa/nightly"},
    )


async def set_up(
    address: str, root_token: Secret[str], postgres: Postgres, signer: Signer, mount: str
) -> Ground:
    """Do what an admin does before `taskmint vault apply`, then apply."""
    plan = plan_from((POLICY + KEEPER).replace("MOUNT", mount))
    ground = Ground(address, root_token, postgres, signer, mount, plan)
    async with ground.admin() as admin:
        await _database(admin, postgres, mount)
        await admin.call("POST", f"sys/mounts/transit-{mount}", {"type": "transit"})
        await admin.call("POST", f"transit-{mount}/keys/orders", {"derived": True})
        reader = 'path "cubbyhole/*" { capabilities = ["read"] }'
        await admin.call("PUT", "sys/policies/acl/reader", {"policy": reader})
        await admin.call("POST", "sys/auth/jwt", {"type": "jwt"})
        await believe(admin, signer)
    await ground.apply()
    return ground


async def believe(admin: BaoHttp, signer: Signer) -> None:
    """Let the JWT auth method trust the signer's key, and only that one."""
    await admin.call("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [signer.public]})


async def _database(admin: BaoHttp, postgres: Postgres, mount: str) -> None:
    await admin.call("POST", f"sys/mounts/{mount}", {"type": "database"})
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@{postgres.host}:{postgres.port}/orders"
    connection = {
        "plugin_name": "postgresql-database-plugin",
        "connection_url": f"{url}?sslmode=disable",
        "username": VAULT_USER,
        "password": postgres.vault_password.reveal(),
        "password_authentication": "scram-sha-256",
        "allowed_roles": ["orders-ro-eu", "orders-ro-us"],
    }
    await admin.call("POST", f"{mount}/config/orders", connection)
    await admin.call("POST", f"{mount}/config/tasks", connection | {"allowed_roles": []})
    for region in ("eu", "us"):
        await admin.call(
            "POST",
            f"{mount}/roles/orders-ro-{region}",
            {
                "db_name": "orders",
                "default_ttl": int(DEAD_MAN.total_seconds()),
                "max_ttl": "1h",
                "creation_statements": [_CREATE, f'GRANT orders_ro_{region} TO "{{{{name}}}}"'],
                "revocation_statements": [POSTGRESQL_REVOCATION],
            },
        )
