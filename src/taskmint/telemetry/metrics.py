"""
`ports.Observer` as Prometheus metrics.

Labels are words of our enums, mounts of the policy and definition names; never an id, a SPIFFE ID
or a path.
"""

from typing import Final

from taskmint.errors import Code, Limit
from taskmint.model.scope import Scope
from taskmint.model.state import EndCause
from taskmint.ports import Answered, RenewalOutcome, VaultCall

from .exposition import OTHER, Counter, Histogram, Metric, Read, render

_CODES: Final = frozenset(Code)
_BOUNDS: Final = (
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300,
)  # fmt: skip
_DISK_BOUNDS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1, 5)


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
            "taskmint_refusals_total", "Requests refused, by the code.", ("code",), known=_CODES
        )
        self._limits = Counter(
            "taskmint_limits_hit_total", "Requests that met a limit.", ("limit",), known=Limit
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
            "taskmint_renewals_total", "Renewals of tasks.", ("outcome",), known=RenewalOutcome
        )
        self._vault = Histogram(
            "taskmint_vault_request_seconds",
            "Calls to Vault, without the wait for a place; call=mint is minting.",
            _BOUNDS,
            ("mount", "call", "answered"),
        )
        self._records = Histogram(
            "taskmint_ledger_append_seconds", "From an append to its row on disk.", _DISK_BOUNDS
        )
        self._notices = _notices()
        self._emergencies = _emergencies()
        self._families: list[Metric] = [self._starts, self._refusals, self._limits, self._shadows]
        self._families += (self._ends, self._revocations, self._renewals, self._vault)
        self._families += (self._records, self._notices, self._emergencies)

    def started(self, scope: Scope, seconds: float) -> None:
        """A task became active; the time from request to credentials."""
        self._starts.observe(seconds, (scope.definition,))

    def refused(self, code: str) -> None:
        """A request was answered with this code of a refusal."""
        self._refusals.add((code if code in _CODES else OTHER,))

    def shadowed(self, definition: str, verdict: str) -> None:
        """A shadow was decided beside the definition of this name."""
        self._shadows.add((definition, verdict))

    def limited(self, limit: Limit) -> None:
        """A request met a limit."""
        self._limits.add((limit.value,))

    def emergency(self, definition: str, moment: str) -> None:
        """A break-glass task started, changed, was renewed, or ended."""
        self._emergencies.add((definition, moment))

    def ended(self, definition: str, cause: EndCause) -> None:
        """A task's end began."""
        self._ends.add((definition, cause.value))

    def revoked(self, definition: str, seconds: float) -> None:
        """A task's revocation was proven; the time from its end."""
        self._revocations.observe(seconds, (definition,))

    def renewal(self, outcome: RenewalOutcome) -> None:
        """A renewal came to this."""
        self._renewals.add((outcome.value,))

    def vault_called(self, mount: str, call: VaultCall, answered: Answered, seconds: float) -> None:
        """A call to Vault came back, or did not."""
        self._vault.observe(seconds, (mount, call.value, answered.value))

    def recorded(self, seconds: float) -> None:
        """A row became durable."""
        self._records.observe(seconds)

    def noticed(self, outcome: str) -> None:
        """A notice was `told`, `failed` or `dropped`."""
        self._notices.add((outcome,))

    def show(self, read: Read) -> None:
        """Show at each scrape what is read then; it runs on the loop and must not block."""
        self._families.append(read)

    def text(self) -> str:
        """Return the page that a scrape gets."""
        return render(self._families)


def _notices() -> Counter:
    return Counter(
        "taskmint_notices_total",
        "Notices to people, by what became of them.",
        ("outcome",),
        known=("told", "failed", "dropped"),
    )


def _emergencies() -> Counter:
    labels = ("definition", "moment")
    return Counter("taskmint_break_glass_total", "What break-glass tasks did.", labels)
