"""
The plan and what the server holds in, what is wider and what is missing out: pure.

Wider means that a compromised daemon could do more than the policy says (P1); missing means that
some definitions cannot work. A difference that cannot be read counts as wider.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from taskmint.model.scope import Json
from taskmint.policy.acl import LiveRule, Rule, covers, parse
from taskmint.policy.plan_objects import AclPolicy, Plan, TokenRole


@dataclass(frozen=True, slots=True)
class LiveRights:
    """
    What was read with the daemon's own token; None stands for what is not there.

    `token_policies` and `identity_policies` are of its look-up, lower-case as Vault keeps them.
    """

    token_policies: frozenset[str]
    identity_policies: frozenset[str]
    policies: Mapping[str, str | None] = field(repr=False)
    token_roles: Mapping[str, Mapping[str, Json] | None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rights:
    """`wider` names each excess; `missing` maps a definition to the first thing it lacks."""

    wider: tuple[str, ...]
    missing: Mapping[str, str]


def compare(plan: Plan, live: LiveRights) -> Rights:
    """Compare; with nothing wider and nothing missing the server holds exactly the plan."""
    wider = [
        *(f"the daemon's token has the policy {name}" for name in _extra_names(plan, live)),
        *(line for name in sorted(plan.policies) for line in _wider_lines(plan, live, name)),
        *(line for name in sorted(plan.token_roles) for line in _wider_role(plan, live, name)),
    ]
    held = _held_rules(plan, live)
    missing = {}
    for definition in plan.needs:
        lack = next(_lacks(plan, live, held, definition), None)
        if lack is not None:
            missing[definition] = lack
    return Rights(tuple(wider), missing)


def wider_rules(policy: AclPolicy, text: str) -> Iterator[LiveRule]:
    """Yield each block of a live policy that allows something the planned one does not."""
    if sha256(text.encode()).hexdigest() == policy.digest:
        return
    planned = {rule.path: rule for rule in policy.rules}
    seen: set[str] = set()
    for block in parse(text):
        rule = block.rule
        planned_rule = planned.get(rule.path) if rule else None
        fits = rule is not None and planned_rule is not None and covers(planned_rule, rule)
        # A path written twice is merged by the server, so the second block is never harmless.
        if rule is None or not fits or rule.path in seen:
            yield block
        if rule is not None:
            seen.add(rule.path)


def missing_rules(policy: AclPolicy, text: str) -> Iterator[Rule]:
    """Yield each planned rule that a live policy does not allow in full."""
    if sha256(text.encode()).hexdigest() == policy.digest:
        return
    held = _by_path(text)
    for rule in policy.rules:
        if rule.path not in held or not covers(held[rule.path], rule):
            yield rule


def role_fields(role: TokenRole) -> dict[str, Json]:
    """Return a token role as the API writes and reads it (OpenBao API, auth/token)."""
    policies: list[Json] = [*sorted(name.lower() for name in role.policies)]
    return {
        "allowed_policies": policies,
        "allowed_policies_glob": [] if role.policies_glob is None else [role.policies_glob],
        "disallowed_policies": [],
        "disallowed_policies_glob": [],
        "allowed_entity_aliases": [],
        "orphan": role.orphan,
        "renewable": True,
        "token_no_default_policy": True,
        "token_period": int(role.period.total_seconds()),
        "token_explicit_max_ttl": int(role.explicit_max_ttl.total_seconds()),
        "token_num_uses": role.num_uses,
        "token_type": "service",
        "path_suffix": "",
    }


def role_differences(role: TokenRole, live: Mapping[str, Json]) -> dict[str, tuple[Json, Json]]:
    """Map each field that differs to (planned, live); an absent list is an empty one."""
    differences: dict[str, tuple[Json, Json]] = {}
    for name, wanted in role_fields(role).items():
        given = live.get(name)
        if isinstance(wanted, list):
            given = [*sorted(map(str, given))] if isinstance(given, list) else []
        if given != wanted and (given or wanted):  # an absent field is off, empty or zero
            differences[name] = (wanted, given)
    return differences


def _extra_names(plan: Plan, live: LiveRights) -> Iterator[str]:
    yield from sorted(live.token_policies - plan.daemon_policies)
    for name in sorted(live.identity_policies):
        yield f"{name}, through its entity or a group"


def _wider_lines(plan: Plan, live: LiveRights, name: str) -> Iterator[str]:
    text = live.policies.get(name)
    if text is not None:
        for block in wider_rules(plan.policies[name], text):
            yield f"policy {name}, line {block.line}: {block.text}"


def _wider_role(plan: Plan, live: LiveRights, name: str) -> Iterator[str]:
    held = live.token_roles.get(name)
    if held is None:
        return
    for key, (wanted, given) in role_differences(plan.token_roles[name], held).items():
        if not _narrower(key, wanted, given):
            yield f"token role {name}: {key} is {given}, planned {wanted}"


def _narrower(key: str, wanted: Json, given: Json) -> bool:
    """Say whether a differing field only takes something away."""
    if key == "allowed_policies" and isinstance(wanted, list) and isinstance(given, list):
        return bool(given) and set(map(str, given)) < set(map(str, wanted))
    if key in {"token_period", "token_explicit_max_ttl"}:
        return isinstance(given, int) and isinstance(wanted, int) and 0 < given < wanted
    return key in {"renewable", "disallowed_policies", "disallowed_policies_glob"}


def _held_rules(plan: Plan, live: LiveRights) -> Mapping[str, Rule]:
    """Collect what the daemon's own policies allow as they stand, by path."""
    held: dict[str, Rule] = {}
    for name in plan.daemon_policies & live.token_policies:
        text = live.policies.get(name)
        if text is not None:
            held.update(_by_path(text))
    return held


def _by_path(text: str) -> dict[str, Rule]:
    return {block.rule.path: block.rule for block in parse(text) if block.rule is not None}


def _lacks(
    plan: Plan, live: LiveRights, held: Mapping[str, Rule], definition: str
) -> Iterator[str]:
    need = plan.needs[definition]
    for rule in need.rules:
        if rule.path not in held or not covers(held[rule.path], rule):
            yield f"the daemon may not use {rule.path}"
    for name in sorted(need.policies):
        text = live.policies.get(name)
        if text is None:
            yield f"policy {name} does not exist"
        else:
            for rule in missing_rules(plan.policies[name], text):
                yield f"policy {name} does not allow {rule.path}"
    for name in sorted(need.token_roles):
        role = live.token_roles.get(name)
        if role is None:
            yield f"token role {name} does not exist"
        elif role_differences(plan.token_roles[name], role):
            yield f"token role {name} is not as planned"
