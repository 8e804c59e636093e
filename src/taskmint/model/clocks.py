"""The clocks that a class of work gives to its task definitions (decisions.md)."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class ClassClocks:
    """
    `dead_man` is how long credentials outlive the daemon; `default` and `max` bound the deadline.

    `heartbeat` is the interval for definitions that do not say their own; None asks for none.
    """

    dead_man: timedelta
    default: timedelta
    max: timedelta
    heartbeat: timedelta | None = None
