"""Background work with an owner: nothing runs that is not in a set, and no crash is silent."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class OwnedWork:
    """
    Starts coroutines that must outlive the request which caused them, and drains them at the end.

    A coroutine that raises anything but cancellation has hit a bug: `on_crash` gets it, and the
    daemon goes down, because issuing while nobody can revoke is worse than being away.
    """

    def __init__(self, on_crash: Callable[[BaseException], None]) -> None:
        self._on_crash = on_crash
        self._running: set[asyncio.Task[Any]] = set()
        self._droppable: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, T], *, droppable: bool = False) -> None:
        """
        Run `work`, which handles what it expects; whatever it raises is a crash.

        What is `droppable` no stop waits for.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        if droppable:
            self._droppable.add(task)
        task.add_done_callback(lambda done: self._finished(done, ()))

    async def outliving(self, work: Coroutine[Any, Any, T], *, expected: type[Exception]) -> T:
        """
        Run `work` to its end even when the awaiting request is cancelled; return its result.

        An `expected` error is for whoever awaits; any other is a crash as well.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(lambda done: self._finished(done, (expected,)))
        return await asyncio.shield(task)

    async def drain(self, seconds: float) -> int:
        """
        Wait at most `seconds` for everything to finish, cancel the rest, return how many.

        What begins meanwhile, such as taking back what was still being minted, is waited for too;
        what is droppable is cancelled at once.
        """
        for task in self._droppable:
            task.cancel()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._running and (left := deadline - loop.time()) > 0:
            await asyncio.wait(
                set(self._running), timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
        late = set(self._running)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return len(late)

    def _finished(self, task: asyncio.Task[Any], expected: tuple[type[Exception], ...]) -> None:
        self._running.discard(task)
        self._droppable.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, expected):
            self._on_crash(error)
