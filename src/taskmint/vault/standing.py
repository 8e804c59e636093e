"""
An operator's token and the tasks that live in, what of ours stands without reason out (P1).

It knows Vault and the plan, and asks nothing of the ledger. What belongs to a task is told from
names: task tokens are named `token-taskmint-<node>-<ulid>`. A lease does not say whose it is, so
those of a path are counted against the task tokens that may own them.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from taskmint.errors import BackendFailed, Code
from taskmint.model.scope import ACL_POLICIES
from taskmint.model.task_id import TaskId, born, parse_revision_name
from taskmint.policy.names import DATABASE_PREFIX
from taskmint.policy.plan_objects import Plan
from taskmint.policy.plan_rules import PROBE_PREFIX

from .changes import stale
from .http import Door
from .live import OURS, Live, admin_failure, read_names
from .objects import ENTITY
from .responses import Meaning, Reply, says_token_gone

Result = TypeVar("Result")

_PARALLEL: Final = 8
TOKEN_NAME: Final = re.compile(r"token-taskmint-([a-z0-9-]{1,20})-([0-9a-z]{26})", re.ASCII)


@dataclass(frozen=True, slots=True)
class FoundToken:
    """A token that bears our name or our policies; `node` and `task` where its name says so."""

    accessor: str = field(repr=False)
    policies: frozenset[str]
    role: str
    node: str | None
    task: str | None
    created: int


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object that was written for one task, or a lease of one, by its path."""

    kind: str
    path: str
    node: str
    task: TaskId


@dataclass(frozen=True, slots=True)
class Found:
    """What was read: tokens, leases by mint path with their times of issue, and other names."""

    tokens: tuple[FoundToken, ...]
    objects: tuple[FoundObject, ...]
    leases: Mapping[str, tuple[float, ...]]
    probes: frozenset[str]
    entities: frozenset[str]


@dataclass(frozen=True, slots=True)
class LiveTasks:
    """What the daemon of one node says: its tasks that are not over."""

    node: str
    tasks: frozenset[str]


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that stands without reason; `age_seconds` where Vault knows it."""

    kind: str
    name: str
    owner: str
    age_seconds: int | None
    reason: str


async def read_found(door: Door, plan: Plan) -> Found:
    """Read with an operator's token that may list accessors and leases (sudo). Raises as `live`."""
    accessors = await read_names(door, "auth/token/accessors")
    looked_up = await _each(accessors, lambda accessor: _token(door, accessor))
    paths = sorted(_mint_paths(plan))
    leases = await _each(paths, lambda path: _lease_times(door, path))
    probes = [
        f"{mount}/roles/{name}"
        for mount in sorted(
            {role.mount for role in plan.database_roles} | {role.mount for role in plan.task_roles}
        )
        for name in await read_names(door, f"{mount}/roles")
        if name.startswith(PROBE_PREFIX)
    ]
    entities = await read_names(door, "identity/entity/name")
    return Found(
        tokens=tuple(token for token in looked_up if token is not None),
        objects=tuple([item async for item in _task_objects(door, plan)]),
        leases=dict(zip(paths, leases, strict=True)),
        probes=frozenset(probes),
        entities=frozenset(name for name in entities if name.startswith(OURS)),
    )


def leftovers(
    plan: Plan, live: Live, found: Found, here: LiveTasks | None, now: datetime
) -> Iterator[Leftover]:
    """
    Yield what stands without reason.

    Tokens of the node that was asked are held against its live tasks. Those of other nodes pass:
    the server ends each at its role's maximum; `of_node` lists them for a node that is gone.
    """
    seconds = int(now.timestamp())
    for token in found.tokens:
        if reason := _token_reason(plan, token, here):
            yield _leftover_token(token, seconds, reason)
    for item in found.objects:
        age = max(0, int(seconds - born(item.task)))
        if reason := _object_reason(plan, item, here, age):
            yield Leftover(item.kind, item.path, item.node, age, reason)
    yield from _surplus_leases(plan, found, now)
    for kind, name, _ in stale(plan, live):
        yield Leftover(kind, name, "-", None, "not in the plan")
    planned = {f"{role.mount}/roles/{role.probe}" for role in plan.database_roles if role.probe}
    planned |= {f"{role.mount}/roles/{role.probe}" for role in plan.task_roles if role.probe}
    for path in sorted(found.probes - planned):
        yield Leftover("database role", path, "-", None, "not in the plan")
    for name in sorted(found.entities - {ENTITY}):
        yield Leftover("entity", name, "-", None, "not in the plan")


def of_node(found: Found, node: str, now: datetime) -> Iterator[tuple[FoundToken, Leftover]]:
    """Yield every task token of a node; for one that is gone, each is a leftover."""
    for token in found.tokens:
        if token.node == node:
            yield token, _leftover_token(token, int(now.timestamp()), "its node is gone")


def objects_of_node(found: Found, node: str) -> Iterator[FoundObject]:
    """Yield what was written for tasks of a node; leases end with their tokens."""
    return (item for item in found.objects if item.node == node and item.kind != "lease")


async def reap(door: Door, tokens: Iterable[FoundToken]) -> AsyncIterator[FoundToken]:
    """Revoke tokens, and with each its leases; yields those that are done. Raises as `live`."""
    for token in tokens:
        body = {"accessor": token.accessor}
        reply: Reply = await door.post("/v1/auth/token/revoke-accessor", json=body)
        if reply.meaning is not Meaning.DONE:
            raise admin_failure(reply, f"revoking the token of {token.task}")
        yield token


async def delete(door: Door, objects: Iterable[FoundObject]) -> AsyncIterator[FoundObject]:
    """Delete what was written for tasks; yields each that is done. Raises as `live`."""
    for item in objects:
        reply: Reply = await door.delete(f"/v1/{item.path}")
        if reply.meaning not in {Meaning.DONE, Meaning.ABSENT}:
            raise admin_failure(reply, f"deleting {item.path}")
        yield item


def _token_reason(plan: Plan, token: FoundToken, here: LiveTasks | None) -> str | None:
    if token.policies <= plan.daemon_policies:
        return None  # a daemon's own: short, renewed only while it lives
    if token.role and token.role not in plan.token_roles:
        return "made by a role that is not in the plan"
    if token.task is None:
        return None if token.role else "has our policies, but no role of ours made it"
    if here is not None and token.node == here.node and token.task not in here.tasks:
        return "belongs to no live task of its node"
    return None


def _object_reason(plan: Plan, item: FoundObject, here: LiveTasks | None, age: int) -> str | None:
    if here is not None and item.node == here.node:
        return None if item.task in here.tasks else "belongs to no live task of its node"
    if age > plan.longest_life.total_seconds():
        return "is older than any task of the plan may be"
    return None


def _leftover_token(token: FoundToken, now: int, reason: str) -> Leftover:
    name = token.task or ", ".join(sorted(token.policies))
    return Leftover("token", name, token.node or "-", max(0, now - token.created), reason)


def _surplus_leases(plan: Plan, found: Found, now: datetime) -> Iterator[Leftover]:
    """Yield, for each path, the leases beyond one for each task token that may mint there."""
    by_policy = Counter(name for token in found.tokens for name in token.policies)
    owners = {
        path: sum(by_policy[name.lower()] for name in names)
        for path, names in _mint_paths(plan).items()
    }
    for path, issued in sorted(found.leases.items()):
        surplus = len(issued) - owners[path]
        if surplus > 0:
            age = int(now.timestamp() - min(issued))
            reason = f"{surplus} more than task tokens that may own one"
            yield Leftover("lease", path, "-", max(0, age), reason)


def _mint_paths(plan: Plan) -> dict[str, set[str]]:
    """Map each path below a lease mount to the task policies that mint there."""
    paths: dict[str, set[str]] = {}
    for name in plan.policies.keys() - plan.daemon_policies:
        for rule in plan.policies[name].rules:
            mount = next((m for m in plan.mounts if rule.path.startswith(f"{m}/")), None)
            wild = "+" in rule.path or "*" in rule.path
            if mount is not None and not wild and PROBE_PREFIX not in rule.path:
                paths.setdefault(rule.path, set()).add(name)
    return paths


async def _task_objects(door: Door, plan: Plan) -> AsyncIterator[FoundObject]:
    """Find what was written for single tasks, and the leases of it, by their names."""
    for place, prefix in sorted(plan.task_object_places):
        kind = "policy" if place == ACL_POLICIES else "database role"
        for name in sorted(await read_names(door, place)):
            if found := _object(kind, place, prefix, name):
                yield found
    for mount in sorted({role.mount for role in plan.task_roles}):
        roles = await read_names(door, f"sys/leases/lookup/{mount}/creds")
        for role in sorted(name.rstrip("/") for name in roles):
            found = _object("lease", f"{mount}/creds", DATABASE_PREFIX, role)
            if found and await read_names(door, f"sys/leases/lookup/{mount}/creds/{role}"):
                yield found


def _object(kind: str, place: str, prefix: str, name: str) -> FoundObject | None:
    told = parse_revision_name(name.rpartition(".")[2])
    if told is None or not name.startswith(prefix):
        return None
    return FoundObject(kind, f"{place}/{name}", *told)


async def _token(door: Door, accessor: str) -> FoundToken | None:
    """Look one up; None when it is gone by now, or not ours."""
    body = {"accessor": accessor}
    reply: Reply = await door.post("/v1/auth/token/lookup-accessor", json=body)
    if says_token_gone(reply):
        return None
    if reply.meaning is Meaning.DENIED and await _may_look_up(door):
        return None  # that token has ended and is being cleaned up
    if reply.meaning is not Meaning.DONE:
        raise admin_failure(reply, "looking up tokens")
    data = reply.part("data")
    policies = data.get("policies")
    names = frozenset(map(str, policies)) if isinstance(policies, list) else frozenset[str]()
    role = str(data.get("role") or "")
    match = TOKEN_NAME.fullmatch(str(data.get("display_name")))
    ours = match or role.startswith(OURS) or any(name.startswith(OURS) for name in names)
    if not ours:
        return None
    created = data.get("creation_time")
    return FoundToken(
        accessor=accessor,
        policies=names,
        role=role,
        node=match[1] if match else None,
        task=f"tm_{match[2]}" if match else None,
        created=created if isinstance(created, int) else 0,
    )


async def _may_look_up(door: Door) -> bool:
    """Find out whether a 403 was about the operator's own token: can it look up itself?"""
    own: Reply = await door.get("/v1/auth/token/lookup-self")
    body = {"accessor": own.part("data").get("accessor")}
    reply: Reply = await door.post("/v1/auth/token/lookup-accessor", json=body)
    return reply.meaning is Meaning.DONE


async def _lease_times(door: Door, path: str) -> tuple[float, ...]:
    """Read when each lease of a mint path was issued, in Unix time."""
    ids = await read_names(door, f"sys/leases/lookup/{path}")
    times = await _each(ids, lambda name: _issue_time(door, f"{path}/{name}"))
    return tuple(time for time in times if time is not None)


async def _issue_time(door: Door, lease: str) -> float | None:
    reply: Reply = await door.put("/v1/sys/leases/lookup", json={"lease_id": lease})
    if reply.meaning is not Meaning.DONE:
        return None  # it ended while we looked
    text = reply.part("data").get("issue_time")
    try:
        return datetime.fromisoformat(_microseconds(str(text))).timestamp()
    except ValueError:
        raise BackendFailed(Code.VAULT_ERROR, "a lease without a time of issue") from None


def _microseconds(time: str) -> str:
    """Cut Go's nanoseconds to what Python reads."""
    return re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", time)


async def _each(
    items: Iterable[str], ask: Callable[[str], Awaitable[Result]]
) -> tuple[Result, ...]:
    """Ask for each, some at a time; the first failure is raised when all have been asked."""
    slots = asyncio.Semaphore(_PARALLEL)

    async def one(item: str) -> Result:
        async with slots:
            return await ask(item)

    found: list[Result] = []
    for answer in await asyncio.gather(*map(one, items), return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer
        found.append(answer)
    return tuple(found)
