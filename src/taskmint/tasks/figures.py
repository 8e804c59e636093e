"""How many tasks there are, of which kind, and what waits: for `status` and for the metrics."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from taskmint.model.state import TaskState

from .task import Task


@dataclass(frozen=True, slots=True)
class Waiting:
    """Starts that wait for a place at Vault, and requests that wait for an approval."""

    mints: int
    approvals: int


@dataclass(frozen=True, slots=True)
class Figures:
    """
    Counts at one moment; ages in seconds.

    `tasks` is by definition and state. `unproven` counts tasks whose revocation was tried and is
    not proven yet; `oldest_unproven` is how long ago the end of the first of them began, and
    `unproven_at` counts what cannot be taken back by mount.
    """

    tasks: Mapping[tuple[str, TaskState], int]
    unproven: int
    oldest_unproven: float
    unproven_at: Mapping[str, int]
    waiting: Waiting

    def in_state(self, state: TaskState) -> int:
        """How many tasks are in a state."""
        return sum(count for (_, at), count in self.tasks.items() if at is state)


def figures_of(
    tasks: Iterable[Task], unproven_at: Mapping[str, int], waiting: Waiting, now: float
) -> Figures:
    """Count, in one pass, the tasks that are not over; `now` is boot-clock seconds."""
    counted: Counter[tuple[str, TaskState]] = Counter()
    unproven, oldest = 0, now
    for task in tasks:
        if task.over:
            continue
        counted[task.scope.definition, task.state] += 1
        if task.state is TaskState.REVOKING and task.attempts_failed:
            unproven += 1
            oldest = min(oldest, task.ended)
    return Figures(counted, unproven, now - oldest, dict(unproven_at), waiting)
