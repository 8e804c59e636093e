"""
Named places where a test may kill or fail the daemon: before and after each durable step.

`TASKMINT_FAILPOINT=name:n:action` arms one: the n-th arrival at `name` does `action`
(`kill`: SIGKILL to ourselves; `error`: an OSError with ENOSPC). Unset, nothing happens.
"""

import errno
import os
import signal
from enum import StrEnum
from typing import Self


class Failpoint(StrEnum):
    """tests/torture kills the daemon at each; one that is not reached fails the run."""

    BEFORE_INTENT = "before_intent"
    AFTER_INTENT = "after_intent"
    AFTER_WRITE = "after_write"
    AFTER_TOKEN = "after_token"
    AFTER_ACCESSOR = "after_accessor"
    AFTER_MINT = "after_mint"
    AFTER_ACTIVE = "after_active"
    BEFORE_ENDING = "before_ending"
    AFTER_ENDING = "after_ending"
    AFTER_REVOKE_LEASE = "after_revoke_lease"
    AFTER_REVOKE_TOKEN = "after_revoke_token"
    AFTER_DELETE = "after_delete"
    AFTER_REVOKED = "after_revoked"
    LEDGER_BEFORE_COMMIT = "ledger_before_commit"
    LEDGER_AFTER_COMMIT = "ledger_after_commit"


class Failpoints:
    """Counts arrivals at the one armed place; built once, from the environment, by the daemon."""

    def __init__(self, armed: Failpoint | None = None, nth: int = 1, action: str = "kill") -> None:
        self._armed = armed
        self._left = nth
        self._action = action

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read `name:n:action`; empty text arms nothing. Raises ValueError."""
        if not text:
            return cls()
        name, nth, action = text.split(":")
        if action not in {"kill", "error"}:
            raise ValueError("a failpoint's action is kill or error")
        return cls(Failpoint(name), int(nth), action)

    def reach(self, point: Failpoint) -> None:
        """Do what was armed for this place, if it is this place's turn."""
        if point is not self._armed:
            return
        self._left -= 1
        if self._left:
            return
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, f"failpoint {point}")
