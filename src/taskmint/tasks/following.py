"""A task's changes as they happen, for whoever follows it, and what happens when nobody does."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Self

from taskmint.model.state import EndCause, TaskState
from taskmint.ports import Clock

from .ending import Ender
from .requests import Request
from .revision import NEVER
from .task import Guarantee, Task
from .views import TaskView, owners_view, request_view


class Topic(StrEnum):
    """What changed."""

    STATE = "state"
    GUARANTEE = "guarantee"
    REVISION = "revision"


@dataclass(frozen=True, slots=True)
class Told:
    """One change, and the task as it is after it, without credentials."""

    topic: Topic
    view: TaskView


class Following:
    """
    One follower of one task; entered while its event stream is open.

    A task that is bound to its connection ends when its last follower leaves, unless the daemon
    itself closes the streams: then a restart is under way, and the reconnect grace begins.
    """

    def __init__(self, task: Task, clock: Clock, followers: "Followers") -> None:
        self._task = task
        self._clock = clock
        self._followers = followers
        self._open = True

    def __enter__(self) -> Self:
        self._task.followers += 1
        self._task.connection_due = NEVER
        self._followers.joined(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._task.followers -= 1
        self._followers.left(self, self._task)

    def hang_up(self) -> None:
        """The stream is closed, from whichever side."""
        self._open = False
        self._task.changed.ring()

    async def changes(self, at_least_every: timedelta) -> AsyncIterator[Told | None]:
        """
        Yield what is, then each change; None when there was none for so long.

        A follower that is slow is told what is then; what was in between it misses. Ends when
        nothing more will happen to the task, or after `hang_up`.
        """
        seen: tuple[TaskState, Guarantee, int] | None = None
        while self._open:
            now = self._snapshot()
            for topic in _topics(seen, now):
                yield Told(topic, owners_view(self._task, self._clock, delivering=False))
            seen = now
            if self._task.over:
                return
            if not await self._task.changed.until(partial(self._differs, now), at_least_every):
                yield None

    def _differs(self, seen: tuple[TaskState, Guarantee, int]) -> bool:
        return not self._open or self._task.over or self._snapshot() != seen

    def _snapshot(self) -> tuple[TaskState, Guarantee, int]:
        task = self._task
        return task.state, task.guarantee, task.current.number


class RequestFollowing:
    """One follower of a request that waits; the stream ends when it is collected or over."""

    def __init__(self, request: Request, clock: Clock, followers: "Followers") -> None:
        self._request = request
        self._clock = clock
        self._followers = followers
        self._open = True

    def __enter__(self) -> Self:
        self._followers.joined(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._followers.left(self, None)

    def hang_up(self) -> None:
        """The stream is closed, from whichever side."""
        self._open = False
        self._request.changed.ring()

    async def changes(self, at_least_every: timedelta) -> AsyncIterator[Told | None]:
        """Yield what is, then each change; None when there was none for so long."""
        request, seen = self._request, None
        while self._open:
            now = request.state, len(request.tally.approvals)
            if now != seen:
                yield Told(Topic.STATE, request_view(request, self._clock))
            seen = now
            if not request.waits:
                return
            if not await request.changed.until(partial(self._differs, now), at_least_every):
                yield None

    def _differs(self, seen: tuple[TaskState, int]) -> bool:
        request = self._request
        now = request.state, len(request.tally.approvals)
        return not self._open or not request.waits or now != seen


def _topics(
    seen: tuple[TaskState, Guarantee, int] | None, now: tuple[TaskState, Guarantee, int]
) -> list[Topic]:
    if seen is None:
        return [Topic.STATE]
    order = (Topic.STATE, Topic.GUARANTEE, Topic.REVISION)
    changed = [topic for topic, old, new in zip(order, seen, now, strict=True) if old != new]
    return sorted(changed, key=lambda topic: topic is Topic.STATE)  # the reason before the end


class Followers:
    """All open event streams."""

    def __init__(self, clock: Clock, ender: Ender) -> None:
        self._clock = clock
        self._ender = ender
        self._open: set[Following | RequestFollowing] = set()
        self._closing = False

    def follow(self, task: Task) -> Following:
        """Build a follower, to be entered."""
        return Following(task, self._clock, self)

    def close(self) -> None:
        """Close every stream because the daemon stops; no task ends by that."""
        self._closing = True
        for following in tuple(self._open):
            following.hang_up()

    def follow_request(self, request: Request) -> RequestFollowing:
        """Build a follower of a request that waits, to be entered."""
        return RequestFollowing(request, self._clock, self)

    def joined(self, following: Following | RequestFollowing) -> None:
        """Know an open stream; while the daemon stops there are none."""
        self._open.add(following)
        if self._closing:
            following.hang_up()

    def left(self, following: Following | RequestFollowing, task: Task | None) -> None:
        """Forget a stream; end the task when it was bound to it."""
        self._open.discard(following)
        if task is None:
            return
        bound = task.scope.ends.connection and not self._closing
        if bound and not task.followers and task.lives():
            self._ender.end(task, EndCause.CONNECTION_LOST)
