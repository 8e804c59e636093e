"""
Calls back when boot-clock times come.

asyncio's timers run on CLOCK_MONOTONIC, which stands still during suspend; so the boot clock
is looked at again at least once a second (decisions.md, trap 28).
"""

import asyncio
import contextvars
import heapq
import itertools
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from taskmint.ports import Clock

T = TypeVar("T")

LONGEST_SLEEP_SECONDS: Final = 1.0
_NEVER: Final = float("inf")


class Timetable(Generic[T]):
    """
    A heap of (time, subject); `due` is called on the loop with each subject whose time has come.

    A subject is due once, at the earliest time it was put in for. Moving that later is free: it is
    due early, finds nothing to do, and is put in again.
    """

    def __init__(self, clock: Clock, due: Callable[[T], None]) -> None:
        self._clock = clock
        self._due = due
        self._heap: list[tuple[float, int, T]] = []
        self._next: dict[T, float] = {}  # what else stands in the heap is out of date
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = _NEVER
        self._open = True

    def at(self, when: float, subject: T) -> None:
        """Call `due(subject)` at boot-clock time `when`, or on the next turn when it has passed."""
        if when >= self._next.get(subject, _NEVER):
            return
        self._next[subject] = when
        heapq.heappush(self._heap, (when, next(self._order), subject))
        if self._open and when < self._wakes_at:
            self._arm()

    def late(self) -> float:
        """Seconds since the first subject still waiting should have been called; 0 in time."""
        return max(0.0, self._clock.boottime() - self._heap[0][0]) if self._heap else 0.0

    def close(self) -> None:
        """Call nothing any more."""
        self._open = False
        self._heap.clear()
        self._next.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._heap:
            self._wakes_at = _NEVER
            return
        now = self._clock.boottime()
        delay = min(max(self._heap[0][0] - now, 0.0), LONGEST_SLEEP_SECONDS)
        self._wakes_at = now + delay
        # A context of its own: the timer is everybody's, not of the request that set it.
        self._timer = asyncio.get_running_loop().call_later(
            delay, self._wake, context=contextvars.Context()
        )

    def _wake(self) -> None:
        self._timer = None
        self._wakes_at = _NEVER
        now = self._clock.boottime()
        ready: list[T] = []
        while self._heap and self._heap[0][0] <= now:
            when, _, subject = heapq.heappop(self._heap)
            if self._next.get(subject) == when:
                del self._next[subject]
                ready.append(subject)
        for subject in ready:
            self._due(subject)
        if self._open:
            self._arm()
