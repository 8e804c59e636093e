"""One revision of a task: what one decision gave it, and what stands in Vault for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from taskmint.model.scope import DecisionInput, Entitlement, Ephemeral, Json, Scope
from taskmint.model.state import RevisionState, advance_revision
from taskmint.policy.shadow import Shadowed
from taskmint.ports import Revocable, RevocableKind

NEVER: Final = float("inf")
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
_WORKING: Final = (RevisionState.CURRENT, RevisionState.OVERLAPPING)


@dataclass(frozen=True, slots=True)
class Held:
    """What stands in Vault for one entitlement; the secret itself is not in here."""

    entitlement: Entitlement
    revocable: Revocable | None
    renewable: bool
    user_name: str | None = None
    serial: str | None = None
    expires_at: datetime | None = None


@dataclass(slots=True, eq=False)
class Revision:
    """
    A scope, the token that owns everything minted for it, and its clock. Numbers count from 1.

    Times are boot-clock seconds, but for `expires_at`, which is the deadline in wall-clock time: a
    change may bring it nearer and never moves it away. `guaranteed_until` is the least expiry of
    what is renewed, as last heard from Vault, `warn_at` when half of that life is over, `lapses_at`
    when nothing can be left of it. `name` is how the names of its own objects in Vault end;
    `written` are the paths of those that may stand.
    """

    number: int
    given: DecisionInput
    scope: Scope
    deadline: float
    expires_at: datetime
    name: str
    state: RevisionState = RevisionState.MINTING
    token: Revocable | None = None
    held: tuple[Held, ...] = ()
    written: frozenset[str] = frozenset()
    # When the last creating call went without a clear answer: a token without a known accessor,
    # or a lease without a known id, may exist; of these entitlements, a lease.
    unheard_since: float | None = None
    unheard: frozenset[str] = frozenset()
    in_doubt: bool = False  # a row may be lost: what nobody heard of may have been delivered
    guaranteed_until: float = 0.0
    lapses_at: float = NEVER
    warn_at: float = NEVER
    warned: bool = False
    renew_at: float = NEVER
    overlap_until: float = NEVER
    retiring: bool = False  # its end is on the way; `state` follows when that work begins
    # By entitlement: accounts that cannot log in any more and could not be dropped either.
    left_disabled: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    left: bool = False  # to the next start, which waits until the server's clocks have ended it
    # Until they are in the ledger; a restart does without.
    shadow: Shadowed | None = None
    asked_by: dict[str, Json] | None = None

    @property
    def disabled(self) -> int:
        """How many accounts are left without login."""
        return sum(self.left_disabled.values())

    def recorded(self, scope: Scope) -> None:
        """Keep no more than a live task needs: what it was decided by is in the ledger."""
        self.scope = scope
        self.shadow = None
        self.asked_by = None

    def move(self, following: RevisionState) -> None:
        """Go to another state, as the table in model/state.py allows."""
        self.state = advance_revision(self.state, following)

    def granted(self, life: timedelta, asked_at: float) -> None:
        """Note what Vault granted, counted from before it was asked: never too much."""
        self.guaranteed_until = self.lapses_at = asked_at + life.total_seconds()
        self.warn_at = asked_at + life.total_seconds() / 2
        self.warned = False

    def adopted(self, now: float) -> None:
        """
        Nobody knows how long the credentials have left: guarantee nothing, and renew at once.

        The dead-man interval is the longest that it can be.
        """
        self.guaranteed_until = self.renew_at = now
        self.lapses_at = now + self.scope.dead_man.total_seconds()
        self.warned = True

    def stop_clock(self) -> None:
        """Nothing about it is due any more."""
        self.renew_at = self.warn_at = self.lapses_at = self.overlap_until = NEVER

    def entitlements(self) -> tuple[Entitlement, ...]:
        """What the scope names, as requests of this one revision."""
        return tuple(item.for_task(self.name) for item in self.scope.entitlements)

    def ephemerals(self) -> list[Ephemeral]:
        """What has to be written for it, and exists for nothing else."""
        each = (item.ephemeral for item in self.entitlements())
        return [one for one in each if one is not None]

    def renewed_together(self) -> list[Revocable]:
        """Name everything that is renewed: the token, and each lease by its own clock."""
        leases = [held.revocable for held in self.held if held.revocable and held.renewable]
        return [self.token, *leases] if self.token else leases

    def is_handed(self, revocable: Revocable) -> bool:
        """
        Whether it is a token of the caller's own: spent or at its end when the policy says so,
        which ends nothing else.
        """
        return revocable.kind is RevocableKind.TOKEN and revocable is not self.token

    def let_go(self, revocable: Revocable) -> None:
        """Renew it no more; it is taken back with the rest all the same."""
        self.held = tuple(
            replace(held, renewable=False) if held.revocable is revocable else held
            for held in self.held
        )

    def leases_end(self) -> datetime | None:
        """When the first lease that cannot be renewed ends by itself; None when there is none."""
        ends = (
            held.expires_at
            for held in self.held
            if held.revocable
            and held.revocable.kind is RevocableKind.LEASE
            and not held.renewable
            and held.expires_at
        )
        return min(ends, default=None)

    def works(self) -> bool:
        """Whether its credentials are in use: they are renewed."""
        return self.state in _WORKING and not self.retiring

    def may_stand(self) -> bool:
        """Whether something of it may exist in Vault."""
        heard = self.token is not None or bool(self.written)
        return heard or self.unheard_since is not None

    def is_gone(self) -> bool:
        """Whether nothing of it is left, provably."""
        return self.state in {RevisionState.REVOKED, RevisionState.FAILED}

    def is_settled(self) -> bool:
        """Whether this daemon has nothing more to do for it."""
        return self.left or self.is_gone()

    def next_due(self) -> float:
        """When something about it is to be looked at next."""
        return min(self.renew_at, self.warn_at, self.lapses_at, self.overlap_until)
