"""
The database roles that are written for single tasks, and what Vault holds around them, in; what an
admin must see to out: pure.

Their connection is kept for them alone, so that whoever may write them reaches nothing else; its
account is no superuser, because the statements it runs came from the policy.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from taskmint.model.scope import Json
from taskmint.policy.names import DATABASE_PREFIX
from taskmint.policy.plan_objects import Plan, TaskDatabaseRole
from taskmint.policy.plan_rules import PROBE_PREFIX

from .clocks import longest_lease, texts
from .live import Fields, Live
from .statements import statement_findings

# Accounts that database servers come with; each may do everything.
_SUPERUSERS: Final = frozenset({"postgres", "root", "sa", "sys", "system"})


def task_role_findings(plan: Plan, live: Live) -> Iterator[str]:
    """Yield one sentence for each finding; a mount that is absent is told of elsewhere."""
    for place in sorted({(role.mount, role.connection) for role in plan.task_roles}):
        if place[0] in live.mounts:
            for problem in _connection_findings(live, *place):
                yield f"connection {place[0]}/{place[1]}: {problem}"
    for role in plan.task_roles:
        connection = live.connections.get((role.mount, role.connection))
        if connection is not None:
            for problem in _role_findings(role, connection, live.mounts[role.mount]):
                yield f"database roles {role.mount}/{role.beginning}.*: {problem}"


def _connection_findings(live: Live, mount: str, name: str) -> Iterator[str]:
    engine = live.mounts[mount].get("type")
    if engine != "database":
        yield f"{mount} is a secrets engine of type {engine}, and a database was expected"
        return
    data = live.connections.get((mount, name))
    if data is None:
        yield "does not exist; make it for these roles alone, by an account that is no superuser"
        return
    for pattern in texts(data.get("allowed_roles")):
        if not fnmatchcase(pattern, f"{DATABASE_PREFIX}*") and not pattern.startswith(PROBE_PREFIX):
            yield f"also serves {pattern}; roles of single tasks have a connection of their own"
    if _user(data) in _SUPERUSERS:
        yield f"its account is {_user(data)}, a superuser"


def _role_findings(role: TaskDatabaseRole, connection: Fields, mount: Fields) -> Iterator[str]:
    longest = longest_lease(mount)
    deadline = int(role.deadline_max.total_seconds())
    if deadline > longest:
        yield f"the longest deadline is {deadline} s, and the mount's maximum is {longest} s"
    creation, revocation = (
        texts(role.fields[f"{which}_statements"]) for which in ("creation", "revocation")
    )
    yield from statement_findings(connection, role.proof, creation, revocation)


def _user(connection: Fields) -> Json:
    details = connection.get("connection_details")
    return details.get("username") if isinstance(details, dict) else None
