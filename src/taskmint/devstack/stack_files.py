"""The daemon's configuration and the policy of the stack, as texts: what an admin would write."""

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

TRUST_DOMAIN: Final = "example.org"
DAEMON_ID: Final = f"spiffe://{TRUST_DOMAIN}/taskmint"
WORKLOAD_ID: Final = f"spiffe://{TRUST_DOMAIN}/ns/orders/sa/report"
DEFINITION: Final = "orders-report"

_POLICY: Final = """\
version: 1
tasks:
  orders-report:
    description: Totals per region
    owner: team-orders@example.org
    class: batch
    dead_man: {dead_man}ms
    who:
      - spiffe://example.org/ns/orders/sa/report
    parameters:
      region: {{enum: [eu, us]}}
    deadline: {{default: 5m, max: 30m}}
    ends: {{bind: [peer, parent]}}
    scope:
      warehouse:
        secret: {{mount: database, path: "creds/orders-ro-{{region}}", proof: sessions}}
"""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where everything is in a stack's directory."""

    directory: Path

    @property
    def task_socket(self) -> Path:
        """Where workloads speak to the daemon."""
        return self.directory / "task.sock"

    @property
    def admin_socket(self) -> Path:
        """Where operators speak to the daemon."""
        return self.directory / "admin.sock"

    @property
    def workload_socket(self) -> Path:
        """Where workloads and the daemon speak to the Workload API."""
        return self.directory / "workload.sock"

    @property
    def policy(self) -> Path:
        """The directory of the policy files."""
        return self.directory / "policy.d"

    @property
    def config(self) -> Path:
        """The daemon's configuration."""
        return self.directory / "taskmint.yaml"

    @property
    def ledger(self) -> Path:
        """The daemon's ledger."""
        return self.directory / "state" / "ledger.db"

    @property
    def root_token(self) -> Path:
        """A file with OpenBao's root token, for the owner's eyes."""
        return self.directory / "root-token"


def policy_text(dead_man: timedelta) -> str:
    """Write the stack's own policy: one definition, read-only orders of one region."""
    return _POLICY.format(dead_man=int(dead_man / timedelta(milliseconds=1)))


def config_text(paths: Paths, vault_address: str, uid: int) -> str:
    """Write the daemon's configuration; `uid` is operator, approver and auditor."""
    members = {"uids": [uid], "groups": []}
    settings = {
        "node": {"id": "dev", "labels": {"environment": "development"}},
        "sockets": {
            "task": str(paths.task_socket),
            "task_mode": "0666",
            "task_group": "",
            "admin": str(paths.admin_socket),
        },
        "identity": {"workload_api": f"unix://{paths.workload_socket}"},
        "vault": {"address": vault_address},
        "policy": {"files": [str(paths.policy)]},
        "ledger": {"path": str(paths.ledger)},
        "admin": {"roles": dict.fromkeys(("operator", "approver", "auditor"), members)},
    }
    return json.dumps(settings, indent=2) + "\n"  # JSON is YAML, and nothing needs quoting by hand
