"""
Items from an event loop to one call per group, on a thread of its own, and the outcome back.

Whatever is queued when the thread comes round goes into one call, so that under load many
appends share one commit; the loop is woken once per call, not once per item.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Final, Generic, TypeAlias, TypeVar

from taskmint.errors import Unavailable

from .files import refusal

T = TypeVar("T")

LARGEST_GROUP: Final = 64
LONGEST_QUEUE: Final = 4096
COMMIT_SECONDS: Final = 5.0  # after which whoever waits is told that the disk does not answer

_Done: TypeAlias = "asyncio.Future[None]"


@dataclass(frozen=True, slots=True)
class _Item(Generic[T]):
    value: T
    done: _Done


@dataclass(frozen=True, slots=True)
class _Job:
    call: Callable[[], None]
    done: _Done


class GroupCommit(Generic[T]):
    """
    Owns the thread. `commit` and jobs run there, one at a time, in the order of their coming.

    Either raises Unavailable when it failed; anything else is a bug of ours: the thread ends and
    whoever waits is told. `close` is the last thing that runs there. `noticed` is called on the
    loop when `trouble` may have changed.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[T]], None],
        *,
        close: Callable[[], None],
        noticed: Callable[[], None],
        longest_queue: int = LONGEST_QUEUE,
        deadline: float = COMMIT_SECONDS,
    ) -> None:
        self._commit = commit
        self._close = close
        self._noticed = noticed
        self._longest_queue = longest_queue
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Item[T] | _Job | None] = SimpleQueue()
        self._waiting: dict[_Done, float] = {}  # items, in the order of their coming
        self._jobs: set[_Done] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._ended: _Done = self._loop.create_future()
        self._stalled = False

    def start(self) -> None:
        """Start the thread; it does not keep the process alive."""
        threading.Thread(target=self._work, name="taskmint-ledger", daemon=True).start()

    async def stop(self) -> None:
        """Return when everything that was queued is done and the thread has ended."""
        self._queue.put(None)
        await asyncio.shield(self._ended)

    def trouble(self) -> str | None:
        """None when items can be submitted, else the reason why not."""
        if self._ended.done():
            return "the ledger's writer has ended"
        if self._stalled:
            return f"the disk has not finished a commit within {self._deadline:g} s"
        if len(self._waiting) >= self._longest_queue:
            return f"{self._longest_queue} entries already wait for the disk"
        return None

    def waiting(self) -> int:
        """How many items have not come back."""
        return len(self._waiting)

    def submit(self, value: T) -> _Done:
        """Queue an item; done when its commit is on stable storage. Raises Unavailable."""
        if reason := self.trouble():
            raise refusal(reason)
        done: _Done = self._loop.create_future()
        self._waiting[done] = now = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._deadline, self._look)
        self._queue.put(_Item(value, done))
        return done

    def run(self, call: Callable[[], None]) -> _Done:
        """Queue a job, which may take its time. Raises Unavailable."""
        if self._ended.done():
            raise refusal("the ledger's writer has ended")
        done: _Done = self._loop.create_future()
        self._jobs.add(done)
        self._queue.put(_Job(call, done))
        return done

    # --- on the loop ---------------------------------------------------------------------------

    def _look(self) -> None:
        """Tell whoever has waited too long; what they queued may still be written later."""
        self._timer = None
        if not self._waiting:
            return
        due = next(iter(self._waiting.values())) + self._deadline
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._look)
            return
        self._stalled = True
        self._settle(tuple(self._waiting), refusal(self.trouble() or ""))
        self._noticed()

    def _returned(self, group: Sequence[_Done], error: Unavailable | None) -> None:
        was_stalled, self._stalled = self._stalled, False
        self._settle(group, error)
        if error or was_stalled:
            self._noticed()

    def _settle(self, group: Sequence[_Done], error: Unavailable | None) -> None:
        for done in group:
            self._waiting.pop(done, None)
            self._jobs.discard(done)
            if done.done():
                continue  # whoever waited was cancelled, or has been told already
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(refusal(error.detail, error.fix))

    def _end(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._ended.set_result(None)
        self._settle((*self._waiting, *self._jobs), refusal("the ledger's writer has ended"))
        self._noticed()

    # --- on the thread -------------------------------------------------------------------------

    def _work(self) -> None:
        arrived: deque[_Item[T] | _Job | None] = deque()
        try:
            while True:
                if not arrived:
                    arrived.append(self._queue.get())
                while not self._queue.empty():
                    arrived.append(self._queue.get())
                first = arrived.popleft()
                if first is None:
                    return
                if isinstance(first, _Job):
                    self._do(first.call, (first.done,))
                    continue
                group = [first, *_items(arrived, LARGEST_GROUP - 1)]
                values = [item.value for item in group]
                self._do(partial(self._commit, values), [item.done for item in group])
        finally:
            try:
                self._close()
            finally:
                self._loop.call_soon_threadsafe(self._end)

    def _do(self, call: Callable[[], None], group: Sequence[_Done]) -> None:
        error: Unavailable | None = None
        try:
            call()
        except Unavailable as refused:
            error = refused
        self._loop.call_soon_threadsafe(self._returned, group, error)


def _items(arrived: "deque[_Item[T] | _Job | None]", most: int) -> Iterator[_Item[T]]:
    """Take the items that stand at the front."""
    for _ in range(most):
        if not arrived or not isinstance(front := arrived[0], _Item):
            return
        arrived.popleft()
        yield front
