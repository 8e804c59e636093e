"""
The daemon's answers as values: what a task was given, how long it lasts, how it ended.

Named tuples, not dataclasses: those import inspect, which every `taskmint run` would pay for.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from .errors import BadAnswer

NOT_TASKMINT: Final = "check that the socket belongs to taskmint"
_AWAITING: Final = "awaiting_approval"


class Credential(NamedTuple):
    """
    What the caller receives for one entitlement; `data` is as Vault gave it and does not print.

    `revocable` is False for what lives until `expires_at` whatever happens; None when nobody says.
    """

    kind: str
    data: Mapping[str, Any]
    revocable: bool
    expires_at: datetime | None
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Credential(kind={self.kind!r}, data=[secret], expires_at={self.expires_at})"


class Started(NamedTuple):
    """A task that runs. Intervals are in seconds; None where the definition asks for none."""

    id: str
    expires_at: datetime
    guaranteed_until: datetime
    heartbeat: float | None
    reprove: float | None
    credentials: Mapping[str, Credential]


class Waiting(NamedTuple):
    """
    A request that waits for an approval: `quorum` different ones of `approvers` must say yes.

    `plan` is what they are asked to approve, and `until` when they must have. To be shown to a
    human; the approvers see the same plan.
    """

    id: str
    approvers: tuple[str, ...]
    quorum: int
    given: int
    until: datetime
    plan: Mapping[str, Any]


class Ended(NamedTuple):
    """
    How a task ended. `state` is `revoked` when that is proven, `revoking` while it is not.

    `cause` is what ended it first, which need not be what the caller asked for. A request that was
    never started is `failed`, `denied` or `expired_unused`: nothing was there to revoke.
    """

    state: str
    cause: str | None
    revocation_seconds: float | None

    @property
    def proven(self) -> bool:
        """Whether every credential is gone, looked up and not found."""
        return self.state == "revoked"


FORGOTTEN: Final = Ended(state="forgotten", cause=None, revocation_seconds=None)


def started(answer: Mapping[str, Any]) -> Started:
    """Read the answer to a start or a heartbeat. Raises BadAnswer."""
    try:
        return Started(
            id=str(answer["id"]),
            expires_at=datetime.fromisoformat(answer["expires_at"]),
            guaranteed_until=datetime.fromisoformat(answer["guaranteed_until"]),
            heartbeat=_seconds(answer["heartbeat_seconds"]),
            reprove=_seconds(answer["reprove_seconds"]),
            credentials={
                name: _credential(item) for name, item in (answer.get("credentials") or {}).items()
            },
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise BadAnswer("the answer does not describe a task", fix=NOT_TASKMINT) from error


def waiting(answer: Mapping[str, Any]) -> Waiting | None:
    """Read the answer to a start or a look: None for what waits no more. Raises BadAnswer."""
    try:
        if answer["state"] != _AWAITING:
            return None
        approval = answer["approval"]
        return Waiting(
            id=str(answer["id"]),
            approvers=tuple(map(str, approval["approvers"])),
            quorum=int(approval["quorum"]),
            given=int(approval["given"]),
            until=_instant(approval["until"]),
            plan=dict(approval["plan"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadAnswer("the answer does not describe a request", fix=NOT_TASKMINT) from error


def ended(answer: Mapping[str, Any]) -> Ended:
    """Read the answer to an end. Raises BadAnswer."""
    try:
        return Ended(
            state=str(answer["state"]),
            cause=answer["end_cause"],
            revocation_seconds=_seconds(answer["revocation_seconds"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadAnswer("the answer does not describe a task's end", fix=NOT_TASKMINT) from error


def _credential(item: Mapping[str, Any]) -> Credential:
    return Credential(
        kind=str(item["kind"]),
        data=dict(item["data"]),
        revocable=bool(item["revocable"]),
        expires_at=datetime.fromisoformat(expires) if (expires := item["expires_at"]) else None,
        warnings=tuple(map(str, item["warnings"])),
    )


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("a time of no zone")
    return instant


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(value)
