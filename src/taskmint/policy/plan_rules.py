"""
Enumerated definitions in, ACL rules out: what a task token may do, and what the daemon's own may.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from taskmint.model.scope import ACL_POLICIES, Entitlement, EntitlementKind, Json, ProofLevel

from .acl import Capability, Rule, Values
from .enumerate import EnumeratedDefinition
from .names import DATABASE_PREFIX, HAND_PREFIX
from .template import ANY_SEGMENT

PROBE_PREFIX: Final = "taskmint-probe-"
# Of a role that exists for one task nothing is left when it is probed: its connection has a probe.
CONNECTION_PROBE_PREFIX: Final = PROBE_PREFIX + "db."
DISPLAY_NAMES: Final = "taskmint-*"
_DATABASE_KINDS: Final = frozenset({EntitlementKind.DATABASE, EntitlementKind.SECRET})
# Of one to three segments; a rule knows no wildcard for any number of them.
_ANY_MOUNT: Final = ("+", "+/+", "+/+/+")


def entitlement_path(entitlement: Entitlement) -> str:
    """Return the path below /v1/ that mints this entitlement."""
    return f"{entitlement.mount}/{entitlement.path}"


def probe_path(entitlement: Entitlement) -> str | None:
    """Return the path of the probe role beside an entitlement's database role, if it has one."""
    if entitlement.proof is not ProofLevel.SESSIONS:
        return None
    if entitlement.kind is EntitlementKind.DATABASE:
        connection = entitlement.body["db_name"]
        return f"{entitlement.mount}/creds/{CONNECTION_PROBE_PREFIX}{connection}"
    role = entitlement.path.removeprefix("creds/")
    if role == ANY_SEGMENT:  # known only at run time; who may read any role may read any probe
        return None
    return f"{entitlement.mount}/creds/{PROBE_PREFIX}{role}"


def standing_role(entitlement: Entitlement) -> str | None:
    """Return the path of the role whose credentials an entitlement reads, where it is one's."""
    beginning, _, name = entitlement.path.rpartition("/")
    if entitlement.kind is not EntitlementKind.SECRET or entitlement.method != "GET":
        return None
    return f"{entitlement.mount}/roles/{name}" if beginning == "creds" else None


def task_rules(definitions: Iterable[EnumeratedDefinition]) -> dict[str, tuple[Rule, ...]]:
    """List each task policy's rules, one for each entitlement: what the predicate is held to."""
    found: dict[str, tuple[Rule, ...]] = {}
    for definition in definitions:
        for combination in definition.combinations:
            rules = [Rule("auth/token/revoke-self", ("update",), {})]
            for entitlement in combination.entitlements:
                rules.append(_mint_rule(entitlement))
                if probe := probe_path(entitlement):
                    rules.append(Rule(probe, ("read",), {}))
            name = combination.token_policy
            if found.setdefault(name, tuple(rules)) != tuple(rules):
                raise ValueError(f"two definitions share the policy name {name}")
    return found


def _mint_rule(entitlement: Entitlement) -> Rule:
    path = entitlement_path(entitlement)
    if entitlement.kind is EntitlementKind.DATABASE:
        return Rule(f"{path}.*", ("read",), {})
    if entitlement.method == "GET":
        return Rule(path, ("read",), {})
    parameters: dict[str, Values] = {name: (value,) for name, value in entitlement.body.items()}
    if entitlement.acl is not None:
        parameters["policies"] = (f"{entitlement.body['policies']}.*",)
    # An engine that knows whether a thing exists asks for `create` when it does not.
    return Rule(path, ("create", "update"), parameters, tuple(sorted(parameters)))


def daemon_rules(definitions: Iterable[EnumeratedDefinition]) -> list[Rule]:
    """
    List what the daemon's own token may do: ask for task tokens, and look after what it made.

    It reads no secret. A task token's policy goes as a text, since the server compares a list
    with nothing (decisions.md 7); without `policies` a role would give all of its policies.
    """
    definitions = tuple(definitions)
    rules = [
        Rule("auth/token/lookup-self", ("read",), {}),
        Rule("auth/token/renew-self", ("update",), {"increment": ()}),
        Rule("auth/token/revoke-self", ("update",), {}),
        _whole("auth/token/lookup-accessor", {"accessor": ()}),
        _whole("auth/token/revoke-accessor", {"accessor": ()}),
        _whole("auth/token/renew-accessor", {"accessor": (), "increment": ()}),
    ]
    if leases := tuple(f"{mount}/*" for mount in sorted(lease_mounts(definitions))):
        rules += (
            _whole("sys/leases/renew", {"lease_id": leases, "increment": ()}),
            _whole("sys/leases/revoke", {"lease_id": leases, "sync": (True,)}),
            _whole("sys/leases/lookup", {"lease_id": leases}),
        )
    for definition in definitions:
        policies = tuple(sorted({item.token_policy for item in definition.combinations}))
        path = f"auth/token/create/{definition.token_role}"
        fields = {"policies": policies, "display_name": (DISPLAY_NAMES,), "meta": ()}
        rules.append(Rule(path, ("update",), fields, ("display_name", "policies")))
    return [*rules, *ephemeral_rules(definitions)]


def ephemeral_rules(definitions: Iterable[EnumeratedDefinition]) -> list[Rule]:
    """
    Let roles be written that exist for one task: by the beginning of their names, fields exact.

    Statements go as lists, which the server compares as a whole; a `*` would mean nothing there
    (decisions.md 7). A role that exists cannot be changed. What bears such a name may be listed,
    and deleted (`leftover_rules`); the server takes the longest rule, so each has that right too.

    Of a policy's text the server can pin the beginning only, up to the first parameter that is no
    enum. So this is self-grant, and stays inside a namespace of its own (planning.py).
    """
    rules: dict[str, Rule] = {}
    for entitlement in entitlements_of(definitions):
        if (first := entitlement.ephemeral) is None:
            continue
        fields = {name: (value,) for name, value in first.body.items()}
        path, required = f"{first.path}.*", tuple(sorted(fields))
        # An ACL policy is written by `update`, whether it exists or not.
        writes: tuple[Capability, ...] = ("create", "delete")
        if entitlement.acl is not None:
            writes = ("delete", "update")
        rules[f"{path} {first.body}"] = Rule(path, writes, fields, required)
        names = first.path.rpartition("/")[0]
        rules[names] = Rule(names, ("list",), {})
    return list(rules.values())


def leftover_rules(definitions: Iterable[EnumeratedDefinition], *, namespace: bool) -> list[Rule]:
    """
    Let everything be deleted that bears the name of what exists for one task.

    Also where no definition writes such things any more: a task may be left that has one, and
    would stay `revoking` for ever. So a role at each mount whose leases can be taken back, and a
    policy wherever one may ever be written, which is inside a namespace.
    """
    mounts = {
        item.mount
        for item in entitlements_of(definitions)
        if item.revocable and item.path.startswith("creds/") and item.kind in _DATABASE_KINDS
    }
    paths = [f"{mount}/roles/{DATABASE_PREFIX}*" for mount in sorted(mounts)]
    if namespace:
        paths.append(f"{ACL_POLICIES}/{HAND_PREFIX}*")
    return [Rule(path, ("delete",), {}) for path in paths]


def clock_rules(definitions: Iterable[EnumeratedDefinition]) -> list[Rule]:
    """
    Let the roles be read that make leases: how long their accounts work by themselves, no secret.

    It is asked when the answer to a mint was lost. Nothing is refused while the server lacks this.
    """
    roles = (standing_role(item) for item in entitlements_of(definitions) if item.revocable)
    return [
        Rule(path, ("read",), {}) for path in sorted({path for path in roles if path is not None})
    ]


def take_back_rules() -> list[Rule]:
    """
    List what the daemon sends although its policies may not say so.

    A lease of a mount that the policy no longer names is still looked up and taken back, its role
    is read (`clock_rules`), and what was written for a task is deleted. While the server refuses
    that, the task stays `revoking`.
    """
    roles = [f"{mount}/roles/{DATABASE_PREFIX}*" for mount in _ANY_MOUNT]
    return [
        *(Rule(f"{mount}/roles/+", ("read",), {}) for mount in _ANY_MOUNT),
        *(Rule(path, ("delete",), {}) for path in (*roles, f"{ACL_POLICIES}/{HAND_PREFIX}*")),
        _whole("sys/leases/revoke", {"lease_id": (), "sync": (True,)}),
        _whole("sys/leases/lookup", {"lease_id": ()}),
    ]


def read_rules(policies: Iterable[str], token_roles: Iterable[str]) -> list[Rule]:
    """Let the plan's own objects be read, by exact name: there is no secret in them."""
    paths = [f"sys/policies/acl/{name}" for name in policies]
    paths += (f"auth/token/roles/{name}" for name in token_roles)
    return [Rule(path, ("read",), {}) for path in paths]


def crl_rules() -> list[Rule]:
    """
    List what is asked without any token, as a relying party asks: is this certificate revoked?

    The server lets everybody read both, so no policy of the plan has them; and at any mount, since
    a certificate is still proven revoked when the policy no longer names its mount.
    """
    return [
        Rule(f"{mount}/{path}", ("read",), {})
        for mount in _ANY_MOUNT
        for path in ("cert/+", "issuer/+/crl")
    ]


def lease_mounts(definitions: Iterable[EnumeratedDefinition]) -> frozenset[str]:
    """Collect the mounts whose leases we may hold; tokens are no leases."""
    return frozenset(
        item.mount
        for item in entitlements_of(definitions)
        if item.revocable and item.kind is not EntitlementKind.TOKEN
    )


def engine_mounts(definitions: Iterable[EnumeratedDefinition]) -> frozenset[str]:
    """Collect the mounts of every secrets engine that something is minted at."""
    return frozenset(
        item.mount
        for item in entitlements_of(definitions)
        if item.kind is not EntitlementKind.TOKEN
    )


def entitlements_of(definitions: Iterable[EnumeratedDefinition]) -> Iterator[Entitlement]:
    """Yield each entitlement of each combination."""
    for definition in definitions:
        for combination in definition.combinations:
            yield from combination.entitlements


def _whole(path: str, parameters: Mapping[str, tuple[Json, ...]]) -> Rule:
    return Rule(path, ("update",), parameters, tuple(sorted(parameters)))
