"""
What an administrator does once in a fresh OpenBao, before taskmint comes: mounts, roles, JWT auth.

Everything that belongs to taskmint's own plan is not here: `taskmint vault apply` writes it.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from .bao_http import BaoHttp
from .postgres import DATABASE, VAULT_USER, Postgres

DATABASE_MOUNT: Final = "database"
JWT_MOUNT: Final = "jwt"
CONNECTION: Final = "orders"
TASK_CONNECTION: Final = "tasks"
REGIONS: Final = ("eu", "us")

_CONNECTIONS: Final = 16  # to PostgreSQL, of the one plugin: 4 by default would be the bottleneck


async def set_up_database(
    bao: BaoHttp, postgres: Postgres, revocation: str, dead_man: timedelta
) -> None:
    """
    Mount the database engine with the orders connection, and a read-only role for each region.

    A role's leases live as long as the dead-man interval unless they are renewed, up to a day.
    `revocation` is what `taskmint vault statements` recommends.
    """
    await bao.call("POST", f"sys/mounts/{DATABASE_MOUNT}", {"type": "database"})
    roles = [f"orders-ro-{region}" for region in REGIONS]
    await bao.call("POST", f"{DATABASE_MOUNT}/config/{CONNECTION}", _connection(postgres, roles))
    for region in REGIONS:
        await bao.call(
            "POST",
            f"{DATABASE_MOUNT}/roles/orders-ro-{region}",
            {
                "db_name": CONNECTION,
                "default_ttl": int(dead_man.total_seconds()),
                "max_ttl": "25h",
                "creation_statements": _creation(region),
                "revocation_statements": [revocation],
            },
        )


async def set_up_task_connection(bao: BaoHttp, postgres: Postgres) -> None:
    """Make a connection for roles that exist for one task; `apply` allows them there."""
    path = f"{DATABASE_MOUNT}/config/{TASK_CONNECTION}"
    await bao.call("POST", path, _connection(postgres, []))


async def set_up_jwt_auth(bao: BaoHttp, jwks_url: str) -> None:
    """Believe the trust domain's JWT-SVIDs; who may log in with one is the plan's to say."""
    await bao.call("POST", f"sys/auth/{JWT_MOUNT}", {"type": "jwt"})
    await bao.call(
        "POST",
        f"auth/{JWT_MOUNT}/config",
        {"jwks_url": jwks_url, "jwt_supported_algs": ["ES256"]},
    )


def _connection(postgres: Postgres, roles: Sequence[str]) -> dict[str, object]:
    return {
        "plugin_name": "postgresql-database-plugin",
        "connection_url": (
            "postgresql://{{username}}:{{password}}"
            f"@{postgres.host}:{postgres.port}/{DATABASE}?sslmode=disable"
        ),
        "username": VAULT_USER,
        "password": postgres.vault_password.reveal(),
        "password_authentication": "scram-sha-256",
        "max_open_connections": _CONNECTIONS,
        "max_idle_connections": _CONNECTIONS,
        "allowed_roles": list(roles),
    }


def _creation(region: str) -> list[str]:
    """Make an account with the rights of a group role, and an end of its own."""
    return [
        "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'",
        f'GRANT orders_ro_{region} TO "{{{{name}}}}"',
    ]
