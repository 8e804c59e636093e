"""
`ports.Observer` as Prometheus metrics.

Labels are codes, causes and outcomes from our enums, and definition names; never an id, a SPIFFE
ID or a path.
"""

from collections.abc import Callable
from typing import Final

from taskmint.errors import Code
from taskmint.model.scope import Scope
from taskmint.model.state import EndCause

from .exposition import OTHER, Counter, Gauge, Histogram, Metric, render

_CODES: Final = frozenset(Code)
_BOUNDS: Final = (
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300,
)  # fmt: skip


class Metrics:
    """Counts from its construction on; `text` renders everything for a scrape."""

    def __init__(self) -> None:
        self._starts = Histogram(
            "taskmint_task_start_seconds",
            "From a request to its credentials, for tasks that became active.",
            _BOUNDS,
            ("definition",),
        )
        self._refusals = Counter(
            "taskmint_refusals_total", "Requests refused, by the code of the answer.", ("code",)
        )
        self._shadows = Counter(
            "taskmint_shadow_decisions_total",
            "Requests that a shadow decided as well, by what it would have changed.",
            ("definition", "verdict"),
        )
        self._ends = Counter(
            "taskmint_tasks_ended_total",
            "Tasks whose end began, by what ended them.",
            ("definition", "cause"),
        )
        self._revocations = Histogram(
            "taskmint_revocation_seconds",
            "From a task's end to the proof that nothing of it stands.",
            _BOUNDS,
            ("definition",),
        )
        self._renewals = Counter(
            "taskmint_renewals_total", "Renewals of task tokens and leases.", ("outcome",)
        )
        self._families: list[Metric] = [
            self._starts,
            self._refusals,
            self._shadows,
            self._ends,
            self._revocations,
            self._renewals,
        ]

    def started(self, scope: Scope, seconds: float) -> None:
        """A task became active; the time from request to credentials."""
        self._starts.observe(seconds, (scope.definition,))

    def refused(self, code: str) -> None:
        """A request was refused with this code."""
        self._refusals.add((code if code in _CODES else OTHER,))

    def shadowed(self, definition: str, verdict: str) -> None:
        """A shadow was decided beside the definition of this name."""
        self._shadows.add((definition, verdict))

    def ended(self, definition: str, cause: EndCause) -> None:
        """A task's end began."""
        self._ends.add((definition, cause.value))

    def revoked(self, definition: str, seconds: float) -> None:
        """A task's revocation was proven; the time from its end."""
        self._revocations.observe(seconds, (definition,))

    def renewal(self, outcome: str) -> None:
        """A renewal succeeded (`ok`) or did not (`failed`)."""
        self._renewals.add((outcome if outcome in {"ok", "failed"} else OTHER,))

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show what `read` returns at each scrape; it runs on the loop and must not block."""
        self._families.append(Gauge(name, meaning, read))

    def text(self) -> str:
        """Return the page that a scrape gets (exposition.CONTENT_TYPE)."""
        return render(self._families)
