"""What an approver says about one task, and who that approver is."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .spiffe import SpiffeId


class Outcome(StrEnum):
    """What a statement says."""

    APPROVE = "approve"
    DENY = "deny"
    WITHDRAW = "withdraw"  # takes an approval back, also after it was used


@dataclass(frozen=True, slots=True)
class Statement:
    """
    One approver's word about one plan of one task; nothing in here is an identity.

    `scope_digest` is the SHA-256 (hex) of the canonical plan that was shown, `policy_digest` that
    of the policy that decided it. `jti` makes the statement good for one use.
    """

    task: str
    scope_digest: str
    policy_digest: str
    outcome: Outcome
    not_after: datetime
    jti: str


@dataclass(frozen=True, slots=True)
class Approver:
    """
    Built by the identity package and nowhere else; tests/test_architecture.py says so.

    `principal` is the one name under which a person counts: a name of the config, or the SPIFFE ID
    of a certificate that the config gives to nobody. `uids` and `spiffe_ids` are what else the
    config says is this person. `proven_id` is there when an X.509-SVID made the statement.
    """

    principal: str
    groups: frozenset[str] = frozenset()
    uids: frozenset[int] = frozenset()
    spiffe_ids: frozenset[SpiffeId] = frozenset()
    proven_id: SpiffeId | None = None


@dataclass(frozen=True, slots=True)
class Vouched:
    """
    A statement and who made it; `by` is what proves that.

    `key:<thumbprint>`, `svid:<what was signed>` or `uid:<number>`.
    """

    statement: Statement
    approver: Approver
    by: str
