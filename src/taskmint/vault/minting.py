"""
Vault's answer to a creating request in, what was made out, or the failure that it hides.

An answer that lacks what it must have, or belongs to another request, is an unknown outcome:
something may exist that we cannot name, and the task token's revocation takes it back.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from taskmint.errors import BackendFailed, Code
from taskmint.model.scope import Entitlement, EntitlementKind, Json
from taskmint.model.secret import Secret
from taskmint.ports import Minted, Revocable, RevocableKind, TaskToken, TokenRequest

from .certificates import issued
from .responses import Meaning, Reply, failure

# Random letters; in a namespace, a dot and the namespace's id follow.
_LEASE_WORD: Final = re.compile(r"[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9]{1,64})?", re.ASCII)
# A token goes into a header, an accessor into paths, both and a user's name into the ledger.
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)
_ACCESSOR: Final = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)
_LONGEST_USER_NAME: Final = 255
# No credential lives so long; beyond it a number is no duration that can be reckoned with.
_LONGEST_LIFE: Final = timedelta(days=3650)


def task_token(reply: Reply, request: TokenRequest) -> TaskToken:
    """Read the answer to a token's creation. Raises Unavailable, BackendFailed."""
    if reply.meaning is not Meaning.DONE:
        raise failure(reply, "creating a task token", refused_created_nothing=True)
    auth = reply.part("auth")
    token, accessor, life = (
        auth.get(key) for key in ("client_token", "accessor", "lease_duration")
    )
    if not _is_token(token, accessor) or not isinstance(life, int) or life <= 0:
        raise _unknown("created a task token, but did not say which")
    made = TaskToken(Secret(str(token)), str(accessor), _life(life), request.policy)
    if auth.get("policies") != [request.policy.lower()] or auth.get("orphan") is not True:
        raise WrongToken(made.revocable)
    return made


def minted(reply: Reply, entitlement: Entitlement, now: datetime) -> Minted:
    """
    Read the answer to an entitlement's one request; `now` is the wall clock's.

    Raises Unavailable, BackendFailed.
    """
    if reply.meaning is not Meaning.DONE:
        raise failure(reply, f"minting {entitlement.name}")
    if reply.body is None or reply.body.get("wrap_info"):
        raise _unknown(f"gave no secret for {entitlement.name}")
    if entitlement.kind is EntitlementKind.TOKEN:
        return _handed_token(reply, entitlement, now)
    data = reply.body.get("data")
    if not isinstance(data, dict) or not data or reply.part("auth"):
        raise _unknown(f"gave no secret for {entitlement.name}")
    revocable, ttl = _lease(reply, entitlement) if entitlement.revocable else (None, None)
    renewable = revocable is not None and reply.body.get("renewable") is True
    certificate = issued(entitlement, data, now)
    if certificate is not None:
        expires_at: datetime | None = certificate.expires_at
    elif ttl is None:
        expires_at = _own_end(entitlement, reply, now)
    else:
        expires_at = None if renewable else now + ttl
    return Minted(
        entitlement=entitlement.name,
        data=Secret(dict(data)),
        revocable=revocable,
        ttl=ttl,
        renewable=renewable,
        user_name=_user_name(data.get("username")),
        serial=None if certificate is None else certificate.serial,
        expires_at=expires_at,
        warnings=reply.warnings,
    )


def _lease(reply: Reply, entitlement: Entitlement) -> tuple[Revocable, timedelta]:
    """Read the lease of what was asked for, and how long it has."""
    body = reply.body or {}
    lease, life = body.get("lease_id"), body.get("lease_duration")
    path = f"{entitlement.mount}/{entitlement.path}/"
    if not isinstance(lease, str) or not _is_lease_of(path, lease):
        raise _unknown(f"gave {entitlement.name} no lease of {path}")
    if not isinstance(life, int) or life <= 0:
        raise _unknown(f"gave {entitlement.name} no lease of {path}")
    if entitlement.kind is EntitlementKind.DATABASE and body.get("renewable") is not True:
        raise _unknown(f"gave {entitlement.name} a lease that cannot be renewed")
    return Revocable(RevocableKind.LEASE, lease), _life(life)


def _own_end(entitlement: Entitlement, reply: Reply, now: datetime) -> datetime | None:
    """
    Say when what nothing takes back ends by itself; None when Vault does not say.

    An engine says it as a lease that revokes nothing, or beside the secret, as `ttl` in seconds.
    A duration without a lease is when KV wants to be read again: then `ttl` is part of the secret.
    Raises BackendFailed when that is later than the policy's ceiling, or not said.
    """
    body = reply.body or {}
    life = body.get("lease_duration")
    if not body.get("lease_id"):
        life = None if life else reply.part("data").get("ttl")
    told = _life(life) if isinstance(life, int) and life > 0 else None
    ceiling = entitlement.ceiling
    if ceiling is not None and (told is None or told > ceiling):
        lives = "does not say how long it lives" if told is None else f"lives {life} s"
        raise _unknown(f"made {entitlement.name}, which {lives}; the policy's ceiling is shorter")
    return None if told is None else now + told


def _handed_token(reply: Reply, entitlement: Entitlement, now: datetime) -> Minted:
    auth = reply.part("auth")
    token, accessor, life = (
        auth.get(key) for key in ("client_token", "accessor", "lease_duration")
    )
    if not _is_token(token, accessor) or not isinstance(life, int) or life <= 0:
        raise _unknown(f"gave no token for {entitlement.name}")
    if auth.get("policies") != [entitlement.body.get("policies")] or auth.get("orphan") is True:
        raise _unknown(f"gave {entitlement.name} another token than was asked for")
    data: dict[str, Json] = {"token": token}
    return Minted(
        entitlement=entitlement.name,
        data=Secret(data),
        revocable=Revocable(RevocableKind.TOKEN, str(accessor)),
        ttl=_life(life),
        renewable=auth.get("renewable") is True,
        expires_at=None if entitlement.ceiling is None else now + entitlement.ceiling,
        warnings=reply.warnings,
    )


def remaining(reply: Reply, part: Mapping[str, Json]) -> timedelta:
    """Read how much life a renewal left. Raises Unavailable, BackendFailed."""
    if reply.meaning is not Meaning.DONE:
        raise failure(reply, "renewing")
    life = part.get("lease_duration")
    if not isinstance(life, int) or life <= 0:
        raise BackendFailed(Code.VAULT_ERROR, "Vault renewed, but left no life")
    return _life(life)


class WrongToken(BackendFailed):
    """Raised when Vault made another token than was asked for; it must be taken back."""

    def __init__(self, revocable: Revocable) -> None:
        super().__init__(
            Code.VAULT_ERROR,
            "Vault made a task token with other policies than the one asked for",
            fix="run `taskmint vault check`",
        )
        self.revocable = revocable


def _is_lease_of(path: str, lease: str) -> bool:
    """Say whether a lease's id is the path that was asked for and one word more, as it must be."""
    return lease.startswith(path) and _LEASE_WORD.fullmatch(lease[len(path) :]) is not None


def _life(seconds: int) -> timedelta:
    """Read a duration. Raises BackendFailed for one that nothing has."""
    if seconds > _LONGEST_LIFE.total_seconds():
        raise _unknown("told of a life of more than ten years")
    return timedelta(seconds=seconds)


def _is_token(token: Json, accessor: Json) -> bool:
    if not isinstance(token, str) or not isinstance(accessor, str):
        return False
    return _TOKEN.fullmatch(token) is not None and _ACCESSOR.fullmatch(accessor) is not None


def _user_name(said: Json) -> str | None:
    """Take what can stand in the ledger; a longer or stranger one is no database user's."""
    fits = isinstance(said, str) and len(said) <= _LONGEST_USER_NAME and said.isprintable()
    return str(said) if fits else None


def _unknown(what: str) -> BackendFailed:
    return BackendFailed(Code.VAULT_ERROR, f"Vault {what}")
