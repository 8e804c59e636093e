"""
The plan's nouns: what Vault must hold for a policy, as frozen values; plan.py derives them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, TypeAlias

from taskmint.model.scope import ACL_POLICIES, EntitlementKind, Json, ProofLevel

from .acl import Rule
from .names import DATABASE_PREFIX, HAND_PREFIX
from .plan_rules import CONNECTION_PROBE_PREFIX, PROBE_PREFIX
from .predicate import Predicate

AuthMethod: TypeAlias = Literal["jwt", "cert", "approle", "token"]


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """
    How the daemon logs in, and in which namespace; none is Vault's root.

    `audience` is what the daemon's own JWT-SVID is asked for; `mount` is below auth/. JWT auth
    and cert auth without `spiffe_id`, and a token from a file, leave the plan without an auth role.
    """

    audience: str = "vault"
    method: AuthMethod = "jwt"
    mount: str = "jwt"
    role: str = "taskmint"
    spiffe_id: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class AclPolicy:
    """`rules` are as the server holds them; `digest` is the SHA-256 (hex) of `text`."""

    name: str
    rules: tuple[Rule, ...]
    text: str = field(repr=False)
    digest: str


@dataclass(frozen=True, slots=True)
class TokenRole:
    """
    A token role; makes tokens without the default policy.

    `period` and `explicit_max_ttl` are the server's own clocks (decisions.md 1): what a request
    or a renewal asks for cannot pass them. `num_uses` 0 is without limit.
    """

    name: str
    policies: tuple[str, ...]
    orphan: bool
    period: timedelta
    explicit_max_ttl: timedelta
    num_uses: int = 0
    policies_glob: str | None = None  # of policies that exist for one task


@dataclass(frozen=True, slots=True)
class AuthRole:
    """
    The role through which the daemon logs in; `subject` is its SPIFFE ID, with JWT and cert auth.

    An AppRole has no subject: whoever holds role id and secret id is the daemon.
    """

    method: AuthMethod
    mount: str
    name: str
    audience: str
    subject: str | None
    policies: tuple[str, ...]
    period: timedelta
    explicit_max_ttl: timedelta


@dataclass(frozen=True, slots=True)
class DatabaseRole:
    """
    A database role that the admin made and the plan expects.

    The shape of the path says so; whether the mount is a database engine, the live server does.
    """

    mount: str
    name: str
    dead_man: timedelta
    deadline_max: timedelta
    proof: ProofLevel

    @property
    def probe(self) -> str | None:
        """The probe role beside it, where `sessions` is promised."""
        return PROBE_PREFIX + self.name if self.proof is ProofLevel.SESSIONS else None


@dataclass(frozen=True, slots=True)
class IssuingRole:
    """
    A role of a `pki` or `ssh` engine that the admin made and the plan expects.

    `operation` is issue, sign or creds; `ceiling` the shortest that the policy names for it;
    `listed` says that what it makes is to stand on the revocation list at the end.
    """

    kind: EntitlementKind
    mount: str
    name: str
    operation: str
    ceiling: timedelta | None
    listed: bool


@dataclass(frozen=True, slots=True)
class TaskDatabaseRole:
    """
    A database role that the daemon writes for each task; `beginning` is of its name.

    `connection` is kept for such roles alone. `fields` are everything that is written.
    """

    mount: str
    connection: str
    beginning: str
    fields: Mapping[str, Json]
    deadline_max: timedelta
    proof: ProofLevel

    @property
    def probe(self) -> str | None:
        """The probe role on its connection, where `sessions` is promised."""
        sessions = self.proof is ProofLevel.SESSIONS
        return CONNECTION_PROBE_PREFIX + self.connection if sessions else None


@dataclass(frozen=True, slots=True)
class Need:
    """What one definition needs of the plan: rules in the daemon's policies, objects, mounts."""

    rules: tuple[Rule, ...]
    policies: frozenset[str]
    token_roles: frozenset[str]
    mounts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Everything that Vault must hold, by name, and the predicate derived from it (P3).

    `daemon_policies` are the names that the daemon's own token has, all and only these.
    `definition_of` maps each task token's role to its definition.
    """

    policies: Mapping[str, AclPolicy]
    token_roles: Mapping[str, TokenRole]
    daemon_policies: frozenset[str]
    auth_role: AuthRole | None
    database_roles: tuple[DatabaseRole, ...]
    issuing_roles: tuple[IssuingRole, ...]
    task_roles: tuple[TaskDatabaseRole, ...]
    writes_policies: bool
    needs: Mapping[str, Need]
    definition_of: Mapping[str, str]
    mounts: frozenset[str]
    digest: str
    daemon_predicate: Predicate = field(repr=False)
    crl_predicate: Predicate = field(repr=False)
    task_predicates: Mapping[str, Predicate] = field(repr=False)

    @property
    def task_object_places(self) -> frozenset[tuple[str, str]]:
        """Where objects are written that exist for one task, and how their names begin there."""
        places = {(f"{role.mount}/roles", DATABASE_PREFIX) for role in self.task_roles}
        if self.writes_policies:
            places.add((ACL_POLICIES, HAND_PREFIX))
        return frozenset(places)

    @property
    def longest_life(self) -> timedelta:
        """How long anything may stand that belongs to a task: the most that a token role gives."""
        return max(
            (role.explicit_max_ttl for role in self.token_roles.values()), default=timedelta()
        )

    def permits_daemon(self, method: str, path: str, body: Mapping[str, Json] | None) -> bool:
        """Say whether the daemon's own token may be used for this request."""
        return self.daemon_predicate.permits(method, path, body)

    def permits_anyone(self, method: str, path: str, body: Mapping[str, Json] | None) -> bool:
        """Say whether this request may be made without a token."""
        return self.crl_predicate.permits(method, path, body)

    def permits_task(
        self, policy: str, method: str, path: str, body: Mapping[str, Json] | None
    ) -> bool:
        """Say whether a task token with this policy may be used for this request."""
        predicate = self.task_predicates.get(policy)
        return predicate is not None and predicate.permits(method, path, body)
