"""
What a policy spans in, everything that Vault must hold for it out (P1): the plan.

Pure and canonical: the same definitions and settings give the same texts and digests. The daemon
compares them with the live server, `taskmint vault` prints, applies and checks them. What a
compromised daemon could still do is in docs/vault.md.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from hashlib import sha256
from typing import Final

from taskmint.model.scope import ISSUED, Entitlement, EntitlementKind, ProofLevel

from .acl import Rule, merge, render
from .definition import AFTER_DEADLINE
from .enumerate import EnumeratedDefinition
from .plan_objects import (
    AclPolicy,
    AuthRole,
    DatabaseRole,
    IssuingRole,
    Need,
    Plan,
    PlanSettings,
    TaskDatabaseRole,
    TokenRole,
)
from .plan_rules import (
    clock_rules,
    crl_rules,
    daemon_rules,
    engine_mounts,
    entitlement_path,
    entitlements_of,
    leftover_rules,
    read_rules,
    take_back_rules,
    task_rules,
)
from .predicate import Predicate
from .template import ANY_SEGMENT

DAEMON_POLICY: Final = "taskmint-daemon"
# The daemon's own token: short, so that a daemon that is gone leaves nothing that lives long.
DAEMON_TOKEN_PERIOD: Final = timedelta(minutes=15)
DAEMON_TOKEN_MAX: Final = timedelta(hours=24)
# A policy is one entry in storage, and Raft refuses entries over 1 MiB.
_POLICY_BYTES: Final = 512 * 1024


def plan_of(definitions: tuple[EnumeratedDefinition, ...], settings: PlanSettings) -> Plan:
    """Derive the plan. Raises ValueError when two different things share a name."""
    by_policy = task_rules(definitions)
    roles = _token_roles(definitions)
    leftovers = leftover_rules(definitions, namespace=settings.namespace is not None)
    reads = [*clock_rules(definitions), *read_rules(by_policy, roles)]
    own = _daemon_policies(definitions, [*leftovers, *reads])
    policies = {name: _policy(name, rules) for name, rules in by_policy.items()}
    if clash := own.keys() & policies.keys():
        raise ValueError(f"{min(clash)} is the daemon's own policy")
    policies |= own
    digests = "".join(f"{name}={policies[name].digest}\n" for name in sorted(policies))
    sent = [rule for policy in own.values() for rule in policy.rules] + take_back_rules()
    return Plan(
        policies=policies,
        token_roles=roles,
        daemon_policies=frozenset(own),
        auth_role=_auth_role(settings, own),
        database_roles=_database_roles(definitions),
        issuing_roles=_issuing_roles(definitions),
        task_roles=_task_roles(definitions),
        writes_policies=any(item.acl is not None for item in entitlements_of(definitions)),
        needs={definition.name: _need(definition) for definition in definitions},
        definition_of={item.token_role: item.name for item in definitions},
        mounts=engine_mounts(definitions),
        digest=sha256((digests + repr(sorted(roles.items()))).encode()).hexdigest(),
        daemon_predicate=Predicate(sent),
        crl_predicate=Predicate(crl_rules()),
        task_predicates={name: Predicate(rules) for name, rules in by_policy.items()},
    )


def _policy(name: str, rules: Iterable[Rule]) -> AclPolicy:
    merged = merge(rules)
    text = render(merged)
    return AclPolicy(name, merged, text, sha256(text.encode()).hexdigest())


def _daemon_policies(
    definitions: tuple[EnumeratedDefinition, ...], others: Iterable[Rule]
) -> dict[str, AclPolicy]:
    """Split the daemon's rules over as many policies as their size asks for."""
    packs: list[list[Rule]] = [[]]
    size = 0
    for rule in merge([*daemon_rules(definitions), *others]):
        length = len(render((rule,)))
        if size + length > _POLICY_BYTES:
            packs.append([])
            size = 0
        packs[-1].append(rule)
        size += length
    names = [DAEMON_POLICY, *(f"{DAEMON_POLICY}-{n}" for n in range(2, len(packs) + 1))]
    packs[0] += read_rules(names, ())
    return {name: _policy(name, rules) for name, rules in zip(names, packs, strict=True)}


def _token_roles(definitions: Iterable[EnumeratedDefinition]) -> dict[str, TokenRole]:
    roles: dict[str, TokenRole] = {}
    for definition in definitions:
        policies = sorted({item.token_policy for item in definition.combinations})
        made = [_task_role(definition, tuple(policies))]
        made += (
            _hand_role(definition, entitlement)
            for combination in definition.combinations
            for entitlement in combination.entitlements
            if entitlement.kind is EntitlementKind.TOKEN
        )
        for role in made:
            if roles.setdefault(role.name, role) != role:
                raise ValueError(f"two definitions share the token role {role.name}")
    return roles


def _task_role(definition: EnumeratedDefinition, policies: tuple[str, ...]) -> TokenRole:
    return TokenRole(
        name=definition.token_role,
        policies=policies,
        orphan=True,
        period=definition.dead_man,
        explicit_max_ttl=definition.deadline_max + AFTER_DEADLINE,
    )


def _hand_role(definition: EnumeratedDefinition, entitlement: Entitlement) -> TokenRole:
    """Derive the role of the tokens handed to callers; they are the task token's children."""
    policy, uses = entitlement.body.get("policies"), entitlement.body.get("num_uses")
    if not isinstance(policy, str):
        raise TypeError(f"{entitlement_path(entitlement)} names no policy for the token")
    longest = definition.deadline_max + AFTER_DEADLINE
    life = min(longest, entitlement.ceiling or longest)
    return TokenRole(
        name=entitlement.path.removeprefix("create/"),
        policies=() if entitlement.acl is not None else (policy,),
        policies_glob=None if entitlement.acl is None else f"{policy}.*",
        orphan=False,
        period=min(definition.dead_man, life),
        explicit_max_ttl=life,
        num_uses=uses if isinstance(uses, int) else 0,
    )


def _auth_role(settings: PlanSettings, own: Iterable[str]) -> AuthRole | None:
    named = settings.method in {"jwt", "cert"}
    unknown = named and settings.spiffe_id is None
    if unknown or settings.method == "token":
        return None
    return AuthRole(
        method=settings.method,
        mount=settings.mount,
        name=settings.role,
        audience=settings.audience,
        subject=settings.spiffe_id if named else None,
        policies=tuple(sorted(own)),
        period=DAEMON_TOKEN_PERIOD,
        explicit_max_ttl=DAEMON_TOKEN_MAX,
    )


def _database_roles(definitions: Iterable[EnumeratedDefinition]) -> tuple[DatabaseRole, ...]:
    found: defaultdict[tuple[str, str], list[DatabaseRole]] = defaultdict(list)
    for definition in definitions:
        for entitlement in entitlements_of((definition,)):
            match entitlement.path.split("/"):
                case ["creds", name] if name != ANY_SEGMENT and entitlement.ephemeral is None:
                    role = DatabaseRole(
                        entitlement.mount,
                        name,
                        definition.dead_man,
                        definition.deadline_max,
                        entitlement.proof,
                    )
                    found[entitlement.mount, name].append(role)
    return tuple(_strictest(found[key]) for key in sorted(found))


def _issuing_roles(definitions: Iterable[EnumeratedDefinition]) -> tuple[IssuingRole, ...]:
    found: dict[tuple[str, str, str], IssuingRole] = {}
    for entitlement in entitlements_of(definitions):
        if entitlement.kind not in ISSUED:
            continue
        operation, name = entitlement.path.split("/")
        if name == ANY_SEGMENT:
            continue
        key = (entitlement.mount, name, operation)
        held = found.get(key)
        ceilings = [each for each in (entitlement.ceiling, held and held.ceiling) if each]
        found[key] = IssuingRole(
            entitlement.kind,
            entitlement.mount,
            name,
            operation,
            min(ceilings, default=None),
            entitlement.proof is ProofLevel.CRL or (held is not None and held.listed),
        )
    return tuple(found[key] for key in sorted(found))


def _task_roles(definitions: Iterable[EnumeratedDefinition]) -> tuple[TaskDatabaseRole, ...]:
    found: dict[str, TaskDatabaseRole] = {}
    for definition in definitions:
        for entitlement in entitlements_of((definition,)):
            if (role := entitlement.ephemeral) is not None and entitlement.acl is None:
                found[role.path] = TaskDatabaseRole(
                    entitlement.mount,
                    str(role.body["db_name"]),
                    role.path.rpartition("/")[2],
                    role.body,
                    definition.deadline_max,
                    entitlement.proof,
                )
    return tuple(found[path] for path in sorted(found))


def _strictest(roles: list[DatabaseRole]) -> DatabaseRole:
    order = list(ProofLevel)
    return DatabaseRole(
        roles[0].mount,
        roles[0].name,
        min(role.dead_man for role in roles),
        max(role.deadline_max for role in roles),
        max((role.proof for role in roles), key=order.index),
    )


def _need(definition: EnumeratedDefinition) -> Need:
    return Need(
        rules=merge(daemon_rules((definition,))),
        policies=frozenset(item.token_policy for item in definition.combinations),
        token_roles=frozenset(_token_roles((definition,))),
        mounts=engine_mounts((definition,)),
    )
