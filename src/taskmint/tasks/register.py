"""The tasks this daemon knows: live ones whole, ended ones for ten minutes, and their keys."""

from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from taskmint.errors import Code, Unavailable
from taskmint.model.task_id import TaskId, parse_task_id

from .bell import Bell
from .limits import Admission, TaskLimits
from .task import IdempotencyKey, Owner, Task, idempotency_mismatch

LONGEST_REPLAY: Final = timedelta(seconds=10)
REMEMBERED: Final = timedelta(minutes=10)
MOST_REMEMBERED: Final = 10_000


class Register:
    """Finds tasks by id and by (owner, idempotency key); counts them against the limits."""

    def __init__(self, limits: TaskLimits) -> None:
        self.admission = Admission(limits)
        self._tasks: dict[TaskId, Task] = {}
        self._by_key: dict[tuple[Owner, str], tuple[str, Task]] = {}
        self._ended: deque[tuple[float, TaskId]] = deque()
        self._complete = False
        self._completed = Bell()

    def __iter__(self) -> Iterator[Task]:
        return iter(tuple(self._tasks.values()))

    def add(self, task: Task) -> None:
        """Know a task, and by its key when it has one."""
        self._tasks[task.id] = task
        if task.idempotency is not None:
            self._by_key[task.owner, task.idempotency.key] = (task.idempotency.body, task)

    def get(self, task_id: TaskId) -> Task | None:
        """Find a task, live or lately ended."""
        return self._tasks.get(task_id)

    def complete(self) -> None:
        """Everything that was running before the daemon started has been added."""
        self._complete = True
        self._completed.ring()

    async def replayed(self) -> None:
        """Wait until the register is complete. Raises Unavailable after ten seconds."""
        if not await self._completed.until(lambda: self._complete, LONGEST_REPLAY):
            raise Unavailable(
                Code.LEDGER_UNAVAILABLE,
                "the daemon is still reading its ledger after a restart",
                fix="repeat the request",
            )

    async def find(self, text: str) -> Task | None:
        """Find a task by what somebody wrote as its id; may wait as `replayed` does."""
        task_id = parse_task_id(text)
        if task_id is None:
            return None
        if task_id not in self._tasks:
            await self.replayed()
        return self._tasks.get(task_id)

    def by_key(self, owner: Owner, key: IdempotencyKey) -> Task | None:
        """
        Find the task that this key started.

        Raises Conflict(idempotency_mismatch) when it was used with another body.
        """
        found = self._by_key.get((owner, key.key))
        if found is None:
            return None
        body, task = found
        if body != key.body:
            raise idempotency_mismatch()
        return task

    def drop(self, task: Task) -> None:
        """Forget a task."""
        self._tasks.pop(task.id, None)
        self.release_key(task)

    def release_key(self, task: Task) -> None:
        """Let the key of a failed start be used again while the task itself is still known."""
        if task.idempotency is None:
            return
        key = (task.owner, task.idempotency.key)
        found = self._by_key.get(key)
        if found is not None and found[1] is task:
            del self._by_key[key]

    def ended(self, task: Task, now: float) -> None:
        """Keep an ended task for ten minutes; forget those whose time is up or who are too many."""
        self._ended.append((now + REMEMBERED.total_seconds(), task.id))
        while self._ended and (self._ended[0][0] <= now or len(self._ended) > MOST_REMEMBERED):
            old = self._tasks.get(self._ended.popleft()[1])
            if old is not None:
                self.drop(old)
