"""
Open `cgroup.events` files in, a call on the loop when one has changed; one descriptor for all.

Such a file is always readable; that it has changed shows as POLLPRI, which event loops do not ask
for (cgroups(7)). An epoll that asks for it is itself readable when that comes (epoll(7)), and what
a loop can wait on. What a file says is not read here, and files are their owners' to close.
"""

import asyncio
import select
from collections.abc import Callable


class GroupEvents:
    """Watches from the first file on until the last is forgotten, on the loop of the first."""

    def __init__(self) -> None:
        self._changed: dict[int, Callable[[], None]] = {}
        self._poll: select.epoll | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, events: int, changed: Callable[[], None]) -> None:
        """
        Call `changed` on the running loop, again and again, until the file is read or forgotten.

        Raises OSError(EMFILE) when there is no descriptor for the epoll.
        """
        if self._poll is None:
            self._poll = select.epoll()
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._poll.fileno(), self._look)
        if events not in self._changed:
            self._poll.register(events, select.EPOLLPRI)
        self._changed[events] = changed

    def forget(self, events: int) -> None:
        """Watch a file no more; to be called before it is closed. One not watched is no error."""
        if self._changed.pop(events, None) is None or self._poll is None:
            return
        self._poll.unregister(events)
        if not self._changed and self._loop is not None:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None

    def _look(self) -> None:
        ready = self._poll.poll(0) if self._poll is not None else []
        for events, _ in ready:
            changed = self._changed.get(events)  # one before it may have had it forgotten
            if changed is not None:
                changed()
