"""What a task is given, and the facts from which that was decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal, TypeAlias

from .caller import IdentityMethod, TokenBinding
from .spiffe import SpiffeId

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
ParameterValue: TypeAlias = str | int | bool


class EntitlementKind(StrEnum):
    """Exactly one per entitlement (decisions.md)."""

    SECRET = "secret"
    DATABASE = "database"
    TOKEN = "token"
    PKI = "pki"
    SSH = "ssh"


# What is signed for a time that the request names, in its field `ttl`.
ISSUED: Final = frozenset({EntitlementKind.PKI, EntitlementKind.SSH})


class ProofLevel(StrEnum):
    """What `revoked` promises for an entitlement (P5); each level includes the ones before."""

    LEASE = "lease"  # the synchronous revoke answered and a look-up finds nothing
    LOGIN = "login"  # the revocation statements disabled the login in the answering transaction
    SESSIONS = "sessions"  # a probe role counted no open session
    CRL = "crl"  # as `lease`, and the issuer's revocation list names the certificate


class KeyField(StrEnum):
    """Where a caller's own public key goes, and in which form it comes."""

    CSR = "csr"  # a PKCS#10 request: the key, and the proof that the caller holds it
    PUBLIC_KEY = "public_key"  # one line as in an OpenSSH .pub file


class BindKind(StrEnum):
    """The thing outside the daemon whose end ends the task (decisions.md, `bind`)."""

    PEER = "peer"
    PARENT = "parent"
    SESSION = "session"
    UNIT = "unit"


ACL_POLICIES: Final = "sys/policies/acl"


@dataclass(frozen=True, slots=True)
class Ephemeral:
    """
    An object in Vault that exists for one task: written before minting, deleted after the end.

    `path` is below /v1/ and ends with the object's name; by itself the object gives nobody access.
    """

    path: str
    body: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entitlement:
    """
    One named thing in a scope, reduced to the one Vault request that mints it.

    `mount` and `path` are joined with a slash below /v1/; both came through an allow-list.
    A credential that cannot be revoked (`revocable=False`), a certificate, and a token that is
    handed to the caller live at most `ceiling`, when they have one; `key_field` is the field of
    `body` that holds the caller's own public key, if it sends one.
    Of a database entitlement `body` is the role that has to be written first, and `path` lacks the
    end of its name until `for_task` has told it. Of a token whose policy exists for one task `acl`
    is that policy's text, and the name in `body` lacks its end in the same way.
    """

    name: str
    kind: EntitlementKind
    mount: str
    path: str
    method: Literal["GET", "POST"] = "GET"
    body: Mapping[str, Json] = field(default_factory=dict)
    proof: ProofLevel = ProofLevel.LEASE
    revocable: bool = True
    ceiling: timedelta | None = None
    key_field: KeyField | None = None
    acl: str | None = None

    def for_task(self, name: str) -> "Entitlement":
        """Return it for one revision of one task, which is called `name` in Vault."""
        if self.kind is EntitlementKind.DATABASE:
            return replace(self, path=f"{self.path}.{name}")
        if self.acl is not None:
            return replace(self, body={**self.body, "policies": f"{self.body['policies']}.{name}"})
        return self

    @property
    def ephemeral(self) -> Ephemeral | None:
        """What has to be written before it can be minted; None for most."""
        if self.kind is EntitlementKind.DATABASE:
            role = self.path.removeprefix("creds/")
            return Ephemeral(f"{self.mount}/roles/{role}", self.body)
        if self.acl is not None:
            path = f"{ACL_POLICIES}/{self.body['policies']}"
            return Ephemeral(path, {"policy": self.acl})
        return None


@dataclass(frozen=True, slots=True)
class Ends:
    """What ends a task besides DELETE and its deadline; `bind` is ordered, the first is default."""

    bind: tuple[BindKind, ...] = ()
    connection: bool = False
    heartbeat: timedelta | None = None
    reprove: timedelta | None = None
    daemon_stop: Literal["keep", "revoke"] = "keep"


@dataclass(frozen=True, slots=True)
class Scope:
    """
    What a task gets: the granting answer to a request.

    `token_role` and `token_policy` name the Vault objects of the plan that bound the task token;
    `lifetime` is the time to the deadline; `policy_digest` says which policy decided (P11);
    `clauses` are those of the definition that were reached, each with its outcome, for its tests.
    """

    definition: str
    policy_digest: str
    token_role: str
    token_policy: str
    entitlements: tuple[Entitlement, ...]
    dead_man: timedelta
    lifetime: timedelta
    ends: Ends
    trace: tuple[str, ...] = ()
    break_glass: bool = False  # for emergencies: under a ticket that is watched, and loud
    clauses: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Approval:
    """
    Whose yes a task waits for: `quorum` different ones of `approvers`, given within `within`.

    An approver is `group:NAME`, `user:NAME` or a SPIFFE ID.
    """

    approvers: tuple[str, ...]
    quorum: int
    within: timedelta


@dataclass(frozen=True, slots=True)
class Denial:
    """
    The refusing answer: a stable code for the caller, the reasons for the operator.

    `code` is one of `errors.Code`; `detail` is safe to show to the caller and names no policy text.
    With `approval` nothing but that approval is missing: decided again with `approved`, it grants.
    """

    code: str
    detail: str
    policy_digest: str
    trace: tuple[str, ...] = ()
    approval: Approval | None = None
    clauses: tuple[str, ...] = field(default=(), compare=False)


Decision: TypeAlias = Scope | Denial


@dataclass(frozen=True, slots=True)
class CallerFacts:
    """What was proven of the caller; `binding` is as firm as the identity layer made it."""

    spiffe_id: SpiffeId
    uid: int
    method: IdentityMethod
    binding: TokenBinding = TokenBinding.UID


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """
    What the caller claims; nothing in here is an identity.

    `public_keys` are by entitlement: for those that sign a key of the caller's own.
    """

    task: str
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    purpose: str = ""
    ticket: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    ttl: timedelta | None = None
    bind: BindKind | None = None
    public_keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HistoryFacts:
    """This identity's last hour on this node, from the ledger."""

    grants: int = 0
    denials: int = 0
    processes: int = 0


@dataclass(frozen=True, slots=True)
class DecisionInput:
    """
    Everything a decision depends on besides the policy; recorded whole in the ledger.

    With it a reload can decide again exactly as it was decided then (decisions.md, reload).
    `approved` says that what the definition's approval asks for has been given.
    """

    caller: CallerFacts
    request: RequestFacts
    now: datetime
    host: Mapping[str, str] = field(default_factory=dict)
    history: HistoryFacts = HistoryFacts()
    approved: bool = False
