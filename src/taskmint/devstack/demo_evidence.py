"""
The servers' own words: what stands in OpenBao and PostgreSQL, what was asked, who was let in.

Everything here is asked with an administrator's rights, or is read in a server's own log. Nothing
comes from taskmint.
"""

import asyncio
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from taskmint.model.secret import Secret

from .psql import query
from .stack import Stack

_POLL_SECONDS: Final = 0.02
_CREDS: Final = "database/creds"
# What the daemon asks by the clock to keep its own token and to check its own rights.
_UPKEEP: Final = re.compile(
    r"auth/token/(lookup|renew|revoke)-self|auth/token/roles/.*|auth/jwt/login|sys/policies/acl/.*"
    r"|auth/token/renew-accessor|sys/leases/renew"
)


@dataclass(frozen=True, slots=True)
class Credential:
    """A database login."""

    user: str
    password: Secret[str]


@dataclass(frozen=True, slots=True, order=True)
class Token:
    """A Vault token by its policies, and when it ends unless it is renewed."""

    policies: str
    ends: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What exists at one moment: database accounts that can log in, leases, Vault tokens."""

    logins: tuple[str, ...]
    leases: tuple[str, ...]
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as OpenBao's audit device wrote it, after it was answered."""

    operation: str
    path: str
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """PostgreSQL's refusal of a login: its SQLSTATE and sentence, and when the attempt ended."""

    sqlstate: str
    sentence: str
    at: float

    def __str__(self) -> str:
        return f"SQLSTATE {self.sqlstate}: {self.sentence}"


class Witness:
    """Asks the servers of a stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._audit = stack.bao.audit_log

    async def prepare(self) -> None:
        """Let PostgreSQL write the SQLSTATE (%e) of what it refuses: psql does not tell it."""
        await self._stack.postgres.sql("ALTER SYSTEM SET log_line_prefix = '%m [%p] %e '")
        await self._stack.postgres.sql("SELECT pg_reload_conf()")

    async def standing(self) -> Standing:
        """Look at everything, now."""
        logins = await self._stack.postgres.sql(
            "SELECT rolname FROM pg_roles WHERE rolcanlogin ORDER BY 1"
        )
        async with self._stack.admin() as bao:
            leases: list[str] = []
            roles = await bao.send("GET", f"sys/leases/lookup/{_CREDS}?list=true")
            for role in roles.data.get("keys", ()):
                found = await bao.send("GET", f"sys/leases/lookup/{_CREDS}/{role}?list=true")
                leases += (f"{_CREDS}/{role}{name}" for name in found.data.get("keys", ()))
            accessors = (await bao.call("GET", "auth/token/accessors?list=true")).data["keys"]
            tokens = []
            for accessor in accessors:
                token = await bao.send("POST", "auth/token/lookup-accessor", {"accessor": accessor})
                if token.status == HTTPStatus.OK:  # else it has expired since it was listed
                    ends = f"in {token.data['ttl']} s" if token.data["ttl"] else "never"
                    tokens.append(Token(", ".join(token.data["policies"]), ends))
        return Standing(logins, tuple(leases), tuple(sorted(tokens)))

    async def reads(self, policy: str, path: str) -> int:
        """Read a secret with a token that has this one policy; the status."""
        async with self._stack.admin() as bao:
            rights = {"policies": [policy], "no_default_policy": True, "ttl": "30s"}
            auth = (await bao.call("POST", "auth/token/create", rights)).body["auth"]
            token = Secret(str(auth["client_token"]))
            async with type(bao)(self._stack.bao.address, token) as its:
                status = (await its.send("GET", path)).status
            await bao.call("POST", "auth/token/revoke-accessor", {"accessor": auth["accessor"]})
        return status

    async def mark(self) -> int:
        """Remember how far the audit device has written."""
        return (await asyncio.to_thread(self._audit.stat)).st_size

    async def asked_since(self, mark: int) -> tuple[Asked, ...]:
        """Return what OpenBao answered since `mark`, upkeep of standing tokens left out."""
        data = await asyncio.to_thread(_read_from, self._audit, mark)
        entries = (json.loads(line) for line in data.splitlines())
        return tuple(_asked(entries))

    async def account(self, user: str) -> str:
        """Describe a database account as PostgreSQL knows it; empty when there is none."""
        rows = await self._stack.postgres.sql(
            "SELECT rolname, 'login ' || rolcanlogin || ', valid until ' || rolvaliduntil"
            " FROM pg_roles"
        )
        return dict(row.split("|", 1) for row in rows).get(user, "")

    async def says(self, credential: Credential, statements: str) -> str:
        """Run SQL with a credential; rows, or the error with its SQLSTATE."""
        answer = await query(self._dsn(credential), statements)
        return "\n".join(answer.rows) if answer.status == 0 else answer.errors.splitlines()[0]

    async def refused(self, credential: Credential, patience: float) -> Refusal | None:
        """Log in, again and again for so many seconds, until PostgreSQL refuses; None if never."""
        log = self._stack.postgres.directory / "server.log"
        give_up = time.monotonic() + patience
        while True:
            mark = (await asyncio.to_thread(log.stat)).st_size
            answer = await query(self._dsn(credential), "SELECT 1")
            at = time.monotonic()
            if answer.status:
                # The server writes its log first and answers then.
                written = await asyncio.to_thread(_read_from, log, mark)
                if refusal := _refusal(written, credential.user, at):
                    return refusal  # else it let us in, and ended the session at once
            if at >= give_up:
                return None
            await asyncio.sleep(_POLL_SECONDS)

    def _dsn(self, credential: Credential) -> Secret[str]:
        return self._stack.postgres.dsn(credential.user, credential.password)


def describe(asked: Iterable[Asked]) -> str:
    """Write one request a line, and whose token made it."""
    return "\n".join(
        f"{each.operation} {each.path}, by a token with {', '.join(each.policies) or 'no policy'}"
        for each in asked
    )


def _asked(entries: Iterable[Mapping[str, Any]]) -> Iterable[Asked]:
    for entry in entries:
        request, policies = entry["request"], (entry.get("auth") or {}).get("policies") or ()
        ours = "root" in policies or _UPKEEP.fullmatch(request["path"])
        if entry["type"] == "response" and not ours:
            yield Asked(request["operation"], request["path"], tuple(policies))


def _refusal(written: str, user: str, at: float) -> Refusal | None:
    """Find what the server's log says about a login of this user."""
    for line in written.splitlines():
        head, found, sentence = line.partition(" FATAL:  ")
        if found and f'"{user}"' in sentence:
            return Refusal(head.rpartition(" ")[2], sentence, at)
    return None


def _read_from(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


def milliseconds(since: float, until: float) -> float:
    """Turn two readings of the monotonic clock into milliseconds, to a tenth."""
    return round((until - since) * 1e3, 1)
