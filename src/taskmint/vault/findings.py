"""
The plan and what Vault holds in, what an admin must see to out: pure.

What gives more than the plan, by line; what is missing and not ours to write; and where a database
role breaks a promise: its clocks (P6), what a task could leave behind, how it is revoked (P5).
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from taskmint.policy.database import expires_by_itself
from taskmint.policy.plan_objects import DatabaseRole, Plan

from .changes import lacks_certificate, stale
from .clocks import account_clock, longest_lease, seconds, texts
from .issuing import issuing_findings
from .live import Fields, Live
from .objects import planned_objects
from .rights import wider_rules
from .statements import statement_findings
from .task_roles import task_role_findings

_PATH: Final = re.compile(r'^\s*path\s+"([^"\n]{1,512})"', re.MULTILINE)


def findings(plan: Plan, live: Live) -> Iterator[str]:
    """Yield one sentence for each finding; nothing when all is well."""
    yield from _wider(plan, live)
    for kind, name, _ in stale(plan, live):
        yield f"{kind} {name} is not in the plan; `taskmint vault apply --prune` removes it"
    yield from _absent(plan, live)
    for role in plan.database_roles:
        if (role.mount, role.name) in live.database_roles:
            for problem in _database_findings(role, live):
                yield f"database role {role.mount}/{role.name}: {problem}"
    yield from issuing_findings(plan, live.mounts, live.issuing)
    yield from task_role_findings(plan, live)


def notes(plan: Plan, live: Live) -> Iterator[str]:
    """
    Yield what an admin should know and need not change.

    Which other policies reach a path that the plan mints at: whoever has one needs no task, and an
    administrator's policy reaches everything. And what nothing but Vault's own revocation ends.
    """
    minting = sorted(
        {rule.path for name, policy in plan.policies.items() for rule in policy.rules}
        - {rule.path for name in plan.daemon_policies for rule in plan.policies[name].rules}
    )
    for name in sorted(live.others):
        for pattern in _PATH.findall(live.others[name]):
            reached = [path for path in minting if _reaches(pattern, path)]
            if reached:
                yield f"policy {name} reaches {reached[0]} as well, by path {pattern!a}"
                break
    for role in sorted(_without_a_clock(plan, live)):
        yield f"{role} has no clock of its own: a task whose mint is not answered stays revoking"


def _without_a_clock(plan: Plan, live: Live) -> Iterator[str]:
    """Name the roles whose credentials only a lease ends (taskmint/tasks/unheard.py)."""
    for (mount, name), data in live.database_roles.items():
        if data is not None and account_clock(data) is None:
            yield f"{mount}/roles/{name}"
    for made in plan.task_roles:
        if not expires_by_itself(texts(made.fields.get("creation_statements"))):
            yield f"{made.mount}/roles/{made.beginning}"
    for issuing in plan.issuing_roles:
        if issuing.operation == "creds":
            yield f"{issuing.mount}/roles/{issuing.name}"


def _reaches(pattern: str, path: str) -> bool:
    """Match as Vault does: `+` is one segment, a final `*` any ending."""
    ending = ".*" if pattern.endswith("*") else ""
    segments = pattern.removesuffix("*").split("/")
    expression = "/".join("[^/]+" if part == "+" else re.escape(part) for part in segments)
    return re.fullmatch(expression + ending, path) is not None


def _wider(plan: Plan, live: Live) -> Iterator[str]:
    for name in sorted(plan.policies):
        data = live.objects.get(f"sys/policies/acl/{name}")
        text = None if data is None else data.get("policy")
        if isinstance(text, str):
            for block in wider_rules(plan.policies[name], text):
                yield f"policy {name}, line {block.line} is wider than the plan: {block.text}"


def _absent(plan: Plan, live: Live) -> Iterator[str]:
    for role in plan.token_roles.values():
        for name in role.policies:
            if not role.orphan and name.lower() not in live.policy_names:
                yield f"policy {name}, which {role.name} hands out, does not exist"
    if plan.auth_role is not None and plan.auth_role.mount not in live.auth_mounts:
        yield f"auth method {plan.auth_role.mount} is not enabled"
    for item in planned_objects(plan):
        if lacks_certificate(plan, live, item):
            yield f"{item.path} does not exist: write it with certificate=@ the trust domain's CA"
    for mount in sorted(plan.mounts - live.mounts.keys()):
        yield f"secrets engine {mount} is not mounted"


def _database_findings(role: DatabaseRole, live: Live) -> Iterator[str]:
    data = live.database_roles[role.mount, role.name]
    if data is None:
        yield "does not exist"
        return
    connection = live.connections.get((role.mount, str(data.get("db_name"))))
    if connection is None:
        yield f"its connection {data.get('db_name')} does not exist"
        return
    yield from _clock_findings(role, data, live.mounts[role.mount])
    creation, revocation = (
        texts(data.get(f"{which}_statements")) for which in ("creation", "revocation")
    )
    yield from statement_findings(connection, role.proof, creation, revocation)


def _clock_findings(role: DatabaseRole, data: Fields, mount: Fields) -> Iterator[str]:
    longest = longest_lease(mount)
    default, most = seconds(data.get("default_ttl")), seconds(data.get("max_ttl")) or longest
    dead_man, deadline = (
        int(value / timedelta(seconds=1)) for value in (role.dead_man, role.deadline_max)
    )
    if default != dead_man:
        yield f"its default_ttl is {default} s, and the dead-man interval is {dead_man} s (P6)"
    if most < deadline:
        yield f"its max_ttl is {most} s, and the longest deadline is {deadline} s"
    if most > longest:
        yield f"its max_ttl is {most} s, and the mount's maximum is {longest} s"
