"""
Changes in, requests with an admin's token out: the only place that writes to Vault's configuration.

It runs in the admin's process, never in the daemon's, whose own token could not do it.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from taskmint.errors import BackendFailed, Code
from taskmint.model.scope import Json
from taskmint.model.secret import Secret
from taskmint.policy.predicate import is_safe_path

from .changes import Change
from .http import Door, Transport
from .live import admin_failure
from .responses import Meaning, Reply
from .settings import VaultSettings


@asynccontextmanager
async def admin_door(settings: VaultSettings, token: Secret[str]) -> AsyncIterator[Door]:
    """Open the way to Vault with an admin's token; any safe path may be asked for."""
    async with Transport(settings) as transport:
        yield Door(transport, token, _any_safe_path)


async def write(door: Door, changes: Iterable[Change]) -> AsyncIterator[Change]:
    """Make the changes in order; yields each when it is done. Raises TaskmintError."""
    for change in changes:
        body = change.body
        if change.alias_of is not None:
            body = {**(body or {}), "canonical_id": await _entity_id(door, change.alias_of)}
        reply: Reply = await door.request(change.method, f"/v1/{change.path}", json=body)
        if reply.meaning is not Meaning.DONE:
            raise admin_failure(reply, f"writing {change.path}")
        yield change


async def _entity_id(door: Door, name: str) -> Json:
    reply: Reply = await door.get(f"/v1/identity/entity/name/{name}")
    identity = reply.part("data").get("id")
    if reply.meaning is not Meaning.DONE or not isinstance(identity, str):
        raise BackendFailed(Code.VAULT_ERROR, f"the entity {name} cannot be read")
    return identity


def _any_safe_path(method: str, path: str, body: Mapping[str, Json] | None) -> bool:
    del method, body
    return is_safe_path(path)
