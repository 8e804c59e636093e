"""
An auditor who knows nothing of taskmint: what stands in OpenBao and PostgreSQL, and what changed.

It looks with an administrator's token and the superuser's login, and imports nothing of ours.
As a script it prints an inventory as JSON: VAULT_ADDR, a token in the file VAULT_TOKEN_FILE,
libpq's variables for PostgreSQL, and the path of psql as its argument.
"""

import hashlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Each role with everything that makes it one; pg_ roles come with the server.
ROLES = """
SELECT rolname, json_build_object(
  'login', rolcanlogin, 'super', rolsuper, 'createrole', rolcreaterole,
  'password', rolpassword IS NOT NULL, 'until', rolvaliduntil,
  'in', ARRAY(
    SELECT DISTINCT roleid::regrole::text FROM pg_auth_members WHERE member = r.oid ORDER BY 1))
FROM pg_authid r WHERE rolname NOT LIKE 'pg\\_%' ORDER BY 1;
"""
# Vault's own pool comes and goes as it likes; a session whose account is gone is shown by its oid.
SESSIONS = """
SELECT pid, coalesce(usename, 'oid ' || usesysid) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM 'vault'
  AND application_name <> 'taskmint-auditor' ORDER BY 1;
"""
LOOK_UPS = ("auth/token/lookup-accessor", "sys/leases/lookup")


@dataclass(frozen=True)
class Inventory:
    """Everything found, by kind: a name, and what it is in a line of text."""

    tokens: Mapping[str, str]
    leases: Mapping[str, str]
    irrevocable: Mapping[str, str]
    policies: Mapping[str, str]
    token_roles: Mapping[str, str]
    auth_roles: Mapping[str, str]
    database_roles: Mapping[str, str]
    entities: Mapping[str, str]
    accounts: Mapping[str, str]
    sessions: Mapping[str, str]


def difference(before: Inventory, after: Inventory) -> list[str]:
    """Say what came (+), went (-) and changed (~), one line each; nothing when they are equal."""
    lines = []
    for field in fields(Inventory):
        old, new = getattr(before, field.name), getattr(after, field.name)
        for name in sorted(old.keys() | new.keys()):
            if name not in old:
                lines.append(f"+ {field.name}: {name} {new[name]}")
            elif name not in new:
                lines.append(f"- {field.name}: {name} {old[name]}")
            elif old[name] != new[name]:
                lines.append(f"~ {field.name}: {name} {old[name]} -> {new[name]}")
    return lines


@dataclass(frozen=True)
class Auditor:
    """`libpq` holds the variables of the superuser's login; `psql` is the client's path."""

    address: str
    token: str
    libpq: Mapping[str, str]
    psql: Path

    def inventory(self) -> Inventory:
        """Look at everything, now."""
        return Inventory(
            tokens=dict(self._tokens()),
            leases=dict.fromkeys(self._leases(""), ""),
            irrevocable=self._irrevocable(),
            policies=dict(self._policies()),
            token_roles=dict(self._each("auth/token/roles")),
            auth_roles=dict(self._auth_roles()),
            database_roles=dict(self._database_roles()),
            entities=dict(self._entities()),
            accounts=self._rows(ROLES),
            sessions=self._rows(SESSIONS),
        )

    def lease_expiry(self, lease: str) -> str | None:
        """When a lease's time is over (RFC 3339); None when there is no such lease."""
        found = self._data("PUT", "sys/leases/lookup", {"lease_id": lease})
        expires = found.get("expire_time")
        return str(expires) if expires else None

    def _tokens(self) -> Iterator[tuple[str, str]]:
        for accessor in self._list("auth/token/accessors"):
            found = self._data("POST", "auth/token/lookup-accessor", {"accessor": accessor})
            if found:
                shown = ("display_name", "path", "role", "policies", "identity_policies", "orphan")
                yield accessor, _line({name: found.get(name) for name in shown})

    def _leases(self, prefix: str) -> Iterator[str]:
        for name in self._list(f"sys/leases/lookup/{prefix}"):
            if name.endswith("/"):
                yield from self._leases(prefix + name)
            else:
                yield prefix + name

    def _irrevocable(self) -> Mapping[str, str]:
        found = self._data("GET", "sys/leases?type=irrevocable")
        return {lease["lease_id"]: str(lease["error"]) for lease in found.get("leases") or ()}

    def _policies(self) -> Iterator[tuple[str, str]]:
        for name in self._list("sys/policies/acl"):
            text = str(self._data("GET", f"sys/policies/acl/{name}").get("policy"))
            yield name, hashlib.sha256(text.encode()).hexdigest()

    def _auth_roles(self) -> Iterator[tuple[str, str]]:
        for mount, about in self._data("GET", "sys/auth").items():
            if about["type"] in {"jwt", "oidc", "approle"}:
                yield from self._each(f"auth/{mount}role")

    def _database_roles(self) -> Iterator[tuple[str, str]]:
        for mount, about in self._data("GET", "sys/mounts").items():
            if about["type"] == "database":
                yield from self._each(f"{mount}roles")
                yield from self._each(f"{mount}config")

    def _entities(self) -> Iterator[tuple[str, str]]:
        for name in self._list("identity/entity/name"):
            found = self._data("GET", f"identity/entity/name/{name}")
            aliases = sorted(
                f"{alias['mount_path']}{alias['name']}" for alias in found.get("aliases") or ()
            )
            shown = {"policies": found.get("policies"), "disabled": found.get("disabled")}
            yield name, _line(shown | {"aliases": aliases})

    def _each(self, path: str) -> Iterator[tuple[str, str]]:
        for name in self._list(path):
            yield f"{path}/{name}", _line(self._data("GET", f"{path}/{name}"))

    def _list(self, path: str) -> list[str]:
        names: list[str] = self._data("LIST", path).get("keys") or []
        return sorted(names)

    def _data(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> Mapping[str, Any]:
        """Return `data` of the answer; {} for what is not there, or gone since it was listed."""
        headers = {"X-Vault-Token": self.token, "X-Vault-Request": "true"}
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=30)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/{path}", sent, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        # A token that ended after it was listed answers 403, or 400 naming the accessor.
        vanished = answer.status == 403 or (answer.status == 400 and b"accessor" in text)
        vanished |= answer.status == 400 and b"invalid lease" in text
        if answer.status == 404 or (vanished and path.endswith(LOOK_UPS)):
            return {}
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status}")
        data: Mapping[str, Any] = json.loads(text).get("data") or {}
        return data

    def _rows(self, query: str) -> dict[str, str]:
        """Run a query of two columns."""
        done = subprocess.run(
            [self.psql, "-X", "-q", "-At", "-F", "\t", "-v", "ON_ERROR_STOP=1"],
            input=query,
            env={**self.libpq, "PGAPPNAME": "taskmint-auditor"},
            capture_output=True,
            text=True,
            check=True,
        )
        return dict(line.split("\t", 1) for line in done.stdout.splitlines())


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)


if __name__ == "__main__":
    environment = {name: value for name, value in os.environ.items() if name.startswith("PG")}
    auditor = Auditor(
        address=os.environ["VAULT_ADDR"],
        token=Path(os.environ["VAULT_TOKEN_FILE"]).read_text().strip(),
        libpq=environment,
        psql=Path(sys.argv[1]),
    )
    sys.stdout.write(json.dumps(asdict(auditor.inventory()), indent=2, sort_keys=True) + "\n")
