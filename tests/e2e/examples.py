"""
The worked examples that need no approval, moved to the tests' stack, and what their admin sets up.

Each is as shipped but for the replacements listed here, which must apply: its identity, its hours,
its node's label, and the dead-man interval of the stack's database roles.
"""

import os
from datetime import UTC, datetime, timedelta

from source_tree import REPOSITORY
from taskmint.devstack.bao_http import BaoHttp

EXAMPLES = REPOSITORY / "config" / "examples"
NOW = datetime.now(UTC)
OPEN = f"starts: {NOW - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
CLOSES = NOW + timedelta(minutes=20)
INVENTORY = ("inventory-staging", "inventory-production", "orders-maintenance")

NIGHTLY = {
    "class: batch": "class: batch\n    dead_man: 10s",
    'from: "22:00", to: "06:00"': f'from: "{NOW - timedelta(hours=1):%H:%M}", to: "{CLOSES:%H:%M}"',
    '"prod"': '"development"',
}
DEPLOY = {
    "class: ci\n    who:\n      - spiffe://example.org/ci/{project}/runner": (
        "class: ci\n    dead_man: 10s\n    who:\n      - spiffe://example.org/ns/{project}/sa/report"
    ),
    'project == "web"': 'project == "orders"',
    "history.grants < 10": "history.grants < 1000",  # all these tests are one identity's last hour
    "starts: 2026-12-01T08:00:00Z, ends: 2026-12-01T12:00:00Z": (
        f"{OPEN}, ends: {CLOSES:%Y-%m-%dT%H:%M:%SZ}"
    ),
}
MAINTENANCE = {
    "dead_man: 2m": "dead_man: 10s",
    "host/*/maintenance": "ns/*/sa/report",
    'days: [sat, sun], from: "02:00", to: "05:00"': 'from: "00:00", to: "24:00"',
    '"prod"': '"development"',
    "caller.uid >= 100 && caller.uid < 1000": f"caller.uid == {os.getuid()}",
    "[orders, customers]": "[orders]",
    "bind: [unit]": "bind: [parent]",  # the test's own process tree is no unit of systemd's
}


def moved(name: str, replacements: dict[str, str]) -> str:
    """An example, moved here; a replacement that does not apply fails."""
    text = (EXAMPLES / f"{name}.yaml").read_text()
    for old, new in replacements.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def examples() -> dict[str, str]:
    """Their texts, by file name."""
    return {
        "nightly-report.yaml": moved("nightly-report", NIGHTLY),
        "ci-deploy.yaml": moved("ci-deploy", DEPLOY),
        "db-maintenance.yaml": moved("db-maintenance", MAINTENANCE),
    }


async def make_roles(vault: BaoHttp) -> None:
    """Make the database roles and the policy that the examples name, as their admin would."""
    role = (await vault.call("GET", "database/roles/orders-ro-eu")).data
    connection = (await vault.call("GET", "database/config/orders")).data
    allowed = [*connection["allowed_roles"], *INVENTORY]
    await vault.call("POST", "database/config/orders", {"allowed_roles": allowed})
    for name in INVENTORY:
        await vault.call("POST", f"database/roles/{name}", role)
    rule = 'path "auth/token/lookup-self" { capabilities = ["read"] }'
    await vault.call("POST", "sys/policies/acl/deploy-web", {"policy": rule})
