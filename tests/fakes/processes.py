"""Processes that exit when the test says so."""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

from taskmint.errors import Code, Unprocessable
from taskmint.model.peer import Peer
from taskmint.model.scope import BindKind
from taskmint.ports import BoundProcess, BoundUnit


@dataclass
class FakeWatch:
    """A pidfd that becomes readable on `exit`."""

    process: BoundProcess | BoundUnit
    gone: bool = False
    closed: bool = False
    callbacks: list[Callable[[], None]] = field(default_factory=list)

    def exited(self) -> bool:
        """Whether it has exited."""
        return self.gone

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Remember the callback, or call it when the process is gone already."""
        if self.gone:
            callback()
        else:
            self.callbacks.append(callback)

    def close(self) -> None:
        """Stop watching."""
        self.closed = True
        self.callbacks.clear()

    def exit(self) -> None:
        """The process exits."""
        self.gone = True
        for callback in tuple(self.callbacks):
            callback()


def pid_of(bound: BoundProcess | BoundUnit) -> int:
    """The pid of a fake process; a fake unit's id is its peer's."""
    return bound.id if isinstance(bound, BoundUnit) else bound.pid


@dataclass
class FakeProcesses:
    """Holds every process that was bound."""

    refuse: bool = False
    out_of_descriptors: bool = False
    watches: list[FakeWatch] = field(default_factory=list)
    gone_pids: set[int] = field(default_factory=set)

    def bind(self, peer: Peer, kind: BindKind) -> FakeWatch:
        """Hold the peer."""
        if self.out_of_descriptors:
            raise OSError(errno.EMFILE, "too many open files")
        if self.refuse:
            raise Unprocessable(Code.BIND_REFUSED, "refused")
        bound: BoundProcess | BoundUnit = BoundProcess(kind, peer.pid, 1, 1, "boot-1")
        if kind is BindKind.UNIT:
            bound = BoundUnit("/a.service", peer.pid, "boot-1")
        watch = FakeWatch(bound)
        self.watches.append(watch)
        return watch

    def kill(self, pid: int) -> None:
        """A process exits, or the last one of a unit, whether somebody watches or not."""
        self.gone_pids.add(pid)
        for watch in tuple(self.watches):
            if pid_of(watch.process) == pid and not watch.closed:
                watch.exit()

    def forget(self) -> None:
        """Whoever watched is gone."""
        self.watches.clear()

    def reopen(self, process: BoundProcess | BoundUnit) -> FakeWatch | None:
        """Hold it again unless it is gone."""
        if pid_of(process) in self.gone_pids:
            return None
        watch = FakeWatch(process)
        self.watches.append(watch)
        return watch
