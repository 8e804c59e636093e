"""What the life of a task is given: its ports and its settings, plugged in by the daemon."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from taskmint.errors import Code, Denied
from taskmint.failpoints import Failpoints
from taskmint.model.approval import Statement, Vouched
from taskmint.model.scope import Json
from taskmint.ports import (
    Approvers,
    Clock,
    Ledger,
    Notice,
    Notifier,
    Observer,
    Processes,
    Tickets,
    Vault,
)

from .limits import TaskLimits


@dataclass(frozen=True, slots=True)
class Settings:
    """
    Of this node and its config.

    `delivery_window` is also how long a replaced revision goes on when nobody acknowledges the new
    one; `reconnect_grace` how long a task bound to its event stream may be without one at its start
    and over a restart. `host` are the configured labels that policies see; `boot_id` is the
    kernel's, and tells whether boot-clock times in the ledger are of this boot.
    """

    node: str
    boot_id: str
    host: Mapping[str, str] = field(default_factory=dict)
    limits: TaskLimits = field(default_factory=TaskLimits)
    delivery_window: timedelta = timedelta(seconds=60)
    reconnect_grace: timedelta = timedelta(seconds=10)


class NoApprovers:
    """Where the config names nobody: nothing can be approved."""

    def verify(self, text: str) -> Vouched:
        """Refuse."""
        del text
        raise Denied(
            Code.APPROVAL_INVALID,
            "the config names no approvers",
            fix="name them under approvals.approvers in the daemon's config",
        )

    def vouch_local(self, uid: int, statement: Statement) -> Vouched:
        """Refuse."""
        del uid, statement
        return self.verify("")

    def current(self, vouched: Vouched) -> None:
        """Nobody."""
        del vouched

    def recall(self, facts: Mapping[str, Json]) -> Vouched:
        """Refuse."""
        raise ValueError(f"nobody is known who could have said {facts['outcome']}")


class NoTickets:
    """Where no hook is configured: no ticket is known to be open."""

    async def why_not_open(self, ticket: str, definition: str, spiffe_id: str) -> str | None:
        """Refuse."""
        del definition, spiffe_id
        return f"no hook is configured that knows of ticket {ticket}"


class Silence:
    """Where nobody is to be told."""

    def notify(self, notice: Notice) -> None:
        """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Outside:
    """The ports."""

    vault: Vault
    ledger: Ledger
    processes: Processes
    clock: Clock
    observer: Observer
    log: structlog.stdlib.BoundLogger
    failpoints: Failpoints = field(default_factory=Failpoints)
    approvers: Approvers = field(default_factory=NoApprovers)
    notifier: Notifier = field(default_factory=Silence)
    tickets: Tickets = field(default_factory=NoTickets)
