"""The states of a task and of its revisions, the tables of legal moves, the reasons of an end."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class TaskState(StrEnum):
    """Where a task stands in its life (design.md, section 3)."""

    REQUESTED = "requested"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    MINTING = "minting"
    ACTIVE = "active"
    REVOKING = "revoking"
    REVOKED = "revoked"
    DENIED = "denied"
    FAILED = "failed"  # only when provably nothing was created
    EXPIRED_UNUSED = "expired_unused"  # approved, never collected


_S = TaskState

NEXT: Final[Mapping[TaskState, frozenset[TaskState]]] = {
    _S.REQUESTED: frozenset({_S.AWAITING_APPROVAL, _S.APPROVED, _S.DENIED, _S.FAILED}),
    _S.AWAITING_APPROVAL: frozenset({_S.APPROVED, _S.DENIED, _S.FAILED}),
    _S.APPROVED: frozenset({_S.MINTING, _S.DENIED, _S.FAILED, _S.EXPIRED_UNUSED}),
    _S.MINTING: frozenset({_S.ACTIVE, _S.REVOKING, _S.FAILED}),
    _S.ACTIVE: frozenset({_S.REVOKING}),
    _S.REVOKING: frozenset({_S.REVOKED}),
    _S.REVOKED: frozenset(),
    _S.DENIED: frozenset(),
    _S.FAILED: frozenset(),
    _S.EXPIRED_UNUSED: frozenset(),
}

TERMINAL: Final = frozenset(state for state, onward in NEXT.items() if not onward)


class RevisionState(StrEnum):
    """
    Where one revision of a task stands: what one decision gave it, with a token of its own.

    A task has one current revision. Changing it makes another, and the old one goes on beside it
    until the caller has the new credentials.
    """

    MINTING = "minting"
    CURRENT = "current"
    OVERLAPPING = "overlapping"  # replaced; still works until acknowledged or the overlap is over
    REVOKING = "revoking"
    REVOKED = "revoked"
    FAILED = "failed"  # only when provably nothing was created


_R = RevisionState

REVISION_NEXT: Final[Mapping[RevisionState, frozenset[RevisionState]]] = {
    _R.MINTING: frozenset({_R.CURRENT, _R.REVOKING, _R.FAILED}),
    _R.CURRENT: frozenset({_R.OVERLAPPING, _R.REVOKING}),
    _R.OVERLAPPING: frozenset({_R.REVOKING}),
    _R.REVOKING: frozenset({_R.REVOKED}),
    _R.REVOKED: frozenset(),
    _R.FAILED: frozenset(),
}


def advance_revision(current: RevisionState, following: RevisionState) -> RevisionState:
    """Return `following` when the table allows the move; an illegal move is a bug of ours."""
    if following not in REVISION_NEXT[current]:
        raise ValueError(f"a revision does not go from {current} to {following}")
    return following


def advance(current: TaskState, following: TaskState) -> TaskState:
    """Return `following` when the table allows the move; an illegal move is a bug of ours."""
    if following not in NEXT[current]:
        raise ValueError(f"a task does not go from {current} to {following}")
    return following


class EndCause(StrEnum):
    """Why a task ended; the first one wins (P4)."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PROCESS_EXITED = "process_exited"
    UNIT_EMPTY = "unit_empty"
    CONNECTION_LOST = "connection_lost"
    HEARTBEAT_MISSED = "heartbeat_missed"
    REPROVE_MISSED = "reprove_missed"
    DEADLINE = "deadline"
    OPERATOR = "operator"
    EXTERNAL_SIGNAL = "external_signal"  # an outside event, reported on the admin socket
    POLICY_NARROWED = "policy_narrowed"
    IDENTITY_WITHDRAWN = "identity_withdrawn"
    APPROVAL_WITHDRAWN = "approval_withdrawn"
    TICKET_CLOSED = "ticket_closed"  # or nobody could say any more that it is open
    DAEMON_STOPPED = "daemon_stopped"
    START_FAILED = "start_failed"  # something may have been created; it is taken back
    NOT_RECOVERED = "not_recovered"  # found after a restart, and no end that binds it permits more
    RENEWAL_LOST = "renewal_lost"  # the dead-man interval passed without a renewal


EXPLICIT_ENDS: Final = frozenset({EndCause.SUCCEEDED, EndCause.FAILED, EndCause.CANCELLED})
