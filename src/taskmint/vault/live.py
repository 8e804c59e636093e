"""
An admin's token in, what Vault holds of the plan's objects out; nothing is written here.

What does not exist is None; what may not be read is an error, because a check that could not look
is no check.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from taskmint.errors import Code, Denied, TaskmintError
from taskmint.model.scope import Json
from taskmint.policy.plan_objects import Plan

from .http import Door
from .issuing import issuing_paths
from .objects import planned_objects
from .responses import Meaning, Reply, failure

_PARALLEL_READS: Final = 8
OURS: Final = "taskmint-"

Fields = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Live:
    """
    What was read. `objects` are by path; database `roles` and `connections` by (mount, name).

    `mounts` and `auth_mounts` map each path, without its last slash, to what Vault says of it.
    `policy_names` are all there are, lower-case; `token_role_names` those that bear our name.
    `others` are the texts of the policies that are not in the plan; `issuing` are the roles of
    `pki` and `ssh` engines, by path.
    """

    objects: Mapping[str, Fields | None]
    mounts: Mapping[str, Fields]
    auth_mounts: Mapping[str, Fields]
    database_roles: Mapping[tuple[str, str], Fields | None]
    connections: Mapping[tuple[str, str], Fields | None]
    policy_names: frozenset[str]
    token_role_names: frozenset[str]
    others: Mapping[str, str]
    issuing: Mapping[str, Fields | None] = field(default_factory=dict)


async def read_live(door: Door, plan: Plan) -> Live:
    """Read with an admin's token. Raises Unavailable, BackendFailed."""
    mounts = _by_path(await _read(door, "sys/mounts"))
    wanted = [
        role for role in plan.database_roles if mounts.get(role.mount, {}).get("type") == "database"
    ]
    names = [(role.mount, role.name) for role in wanted]
    roles = await _read_pairs(door, names, "roles")
    used = {(key[0], str(data.get("db_name"))) for key, data in roles.items() if data is not None}
    own = [role for role in plan.task_roles if mounts.get(role.mount, {}).get("type") == "database"]
    used |= {(role.mount, role.connection) for role in own}
    probes = [f"{role.mount}/roles/{role.probe}" for role in wanted if role.probe]
    probes += (f"{role.mount}/roles/{role.probe}" for role in own if role.probe)
    paths = [item.path for item in planned_objects(plan)] + probes
    policy_names = await read_names(door, "sys/policies/acl")
    planned = {name.lower() for name in plan.policies}
    others = await _read_many(
        door, (f"sys/policies/acl/{name}" for name in sorted(policy_names - planned - {"root"}))
    )
    return Live(
        objects=await _read_many(door, paths),
        mounts=mounts,
        auth_mounts=_by_path(await _read(door, "sys/auth")),
        database_roles=roles,
        connections=await _read_pairs(door, sorted(used), "config"),
        policy_names=policy_names,
        token_role_names=frozenset(
            name for name in await read_names(door, "auth/token/roles") if name.startswith(OURS)
        ),
        others={
            path.rpartition("/")[2]: str(data.get("policy"))
            for path, data in others.items()
            if data is not None
        },
        issuing=await _read_many(door, issuing_paths(plan, mounts)),
    )


def admin_failure(reply: Reply, doing: str) -> TaskmintError:
    """Translate an answer to an admin's request; a 403 is about the admin's own token."""
    if reply.meaning is Meaning.DENIED:
        return Denied(
            Code.NOT_PERMITTED,
            f"the given token may not be used for {doing}",
            fix="use a token of an administrator of this namespace",
        )
    return failure(reply, doing)


async def _read(door: Door, path: str) -> Fields | None:
    reply: Reply = await door.get(f"/v1/{path}")
    if reply.meaning is Meaning.DONE:
        return reply.part("data")
    if reply.meaning is Meaning.ABSENT:
        return None
    raise admin_failure(reply, f"reading {path}")


async def _read_many(door: Door, paths: Iterable[str]) -> dict[str, Fields | None]:
    slots = asyncio.Semaphore(_PARALLEL_READS)

    async def one(path: str) -> Fields | None:
        async with slots:
            return await _read(door, path)

    ordered = list(dict.fromkeys(paths))
    found: dict[str, Fields | None] = {}
    answers = await asyncio.gather(*map(one, ordered), return_exceptions=True)
    for path, answer in zip(ordered, answers, strict=True):
        if isinstance(answer, BaseException):
            raise answer
        found[path] = answer
    return found


async def _read_pairs(
    door: Door, pairs: Iterable[tuple[str, str]], part: str
) -> dict[tuple[str, str], Fields | None]:
    by_path = {f"{mount}/{part}/{name}": (mount, name) for mount, name in pairs}
    return {by_path[path]: data for path, data in (await _read_many(door, by_path)).items()}


async def read_names(door: Door, path: str) -> frozenset[str]:
    """List the names at a path; none when there is nothing. Raises TaskmintError."""
    reply: Reply = await door.list(f"/v1/{path}")
    if reply.meaning is Meaning.ABSENT:
        return frozenset()
    if reply.meaning is not Meaning.DONE:
        raise admin_failure(reply, f"listing {path}")
    keys = reply.part("data").get("keys")
    return frozenset(map(str, keys)) if isinstance(keys, list) else frozenset()


def _by_path(data: Fields | None) -> dict[str, Fields]:
    return {
        path.rstrip("/"): value for path, value in (data or {}).items() if isinstance(value, dict)
    }
