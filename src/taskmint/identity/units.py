"""
Peers in, held units out: a task bound to its systemd unit ends when the unit is empty.

Everything in the unit's control group counts, whatever it daemonised, re-parented or moved to
another session: the kernel itself says `populated 0` when the last of it has ended. Fits
ports.Processes together with processes.py (bindings.py).
"""

import asyncio
import os
from collections.abc import Callable
from typing import Self

import structlog

from taskmint.model.peer import Peer
from taskmint.ports import BoundUnit

from . import procfs
from .cgroups import MOUNTINFO, is_populated, open_group, unit_of
from .group_events import GroupEvents
from .processes import bind_refused, require_firm, require_spare

_log = structlog.get_logger()


class UnitWatch:
    """Holds a group's `cgroup.events`, which it owns and nothing else. Fits ports.ProcessWatch."""

    __slots__ = ("_all", "_callbacks", "_events", "process")

    def __init__(self, process: BoundUnit, events: int, every: GroupEvents) -> None:
        self.process = process
        self._events: int | None = events
        self._all = every
        self._callbacks: list[Callable[[], None]] = []

    def exited(self) -> bool:
        """Whether the unit is empty. Raises ValueError after close()."""
        return not is_populated(self._open())

    def on_exit(self, callback: Callable[[], None]) -> None:
        """
        Call back once, on the running loop, when the unit is empty; soon if it is already.

        Soon also where it cannot be watched, without a descriptor left: then nobody would hear.
        """
        events = self._open()
        self._callbacks.append(callback)
        try:
            self._all.watch(events, self._notice)
        except OSError as error:
            _log.error("unit_not_watched", unit=self.process.path, error=error.strerror)
            asyncio.get_running_loop().call_soon(self._call_back)
        else:
            asyncio.get_running_loop().call_soon(self._notice)

    def close(self) -> None:
        """Stop watching and let go; callbacks not yet called never are."""
        self._callbacks.clear()
        events, self._events = self._events, None
        if events is not None:
            self._all.forget(events)
            os.close(events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> int:
        if self._events is None:
            raise ValueError("this watch is closed")
        return self._events

    def _notice(self) -> None:
        """Look again: reading is what lets the next change show, except where the group is gone."""
        if self._events is None or is_populated(self._events):
            return
        self._all.forget(self._events)
        self._call_back()

    def _call_back(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class HeldUnits:
    """Resolves the unit that a peer runs in, and finds it again after a restart."""

    def __init__(self, mountinfo: str = MOUNTINFO) -> None:
        self._mountinfo = mountinfo
        self._events = GroupEvents()
        self._boot_id = procfs.read_boot_id()

    def bind(self, peer: Peer) -> UnitWatch:
        """
        Hold the peer's unit. Raises Unprocessable(bind_refused).

        1. The peer is firmly known and alive (processes.require_firm).
        2. Read its group, and of that the unit. The root is none: it is never empty.
        3. Open the unit. On a pure v1 host there is nothing that tells when it is empty.
        4. The peer is alive and still in that unit: so it is the peer's that is held.
        """
        # 1.
        pidfd = require_firm(peer)
        # 2.
        group = procfs.read_group(peer.pid)
        unit = unit_of(group) if group is not None else None
        if unit is None:
            raise bind_refused("the process that connected runs in no unit that the daemon can see")
        # 3.
        opened = open_group(unit, self._mountinfo)
        if opened is None:
            raise bind_refused(
                "this host does not tell when a unit is empty: no cgroup2 mount shows it",
                fix="mount the unified hierarchy, or bind to peer, parent or session",
            )
        events, inode = opened
        require_spare(events)
        # 4.
        group = procfs.read_group(peer.pid)
        same = group is not None and unit_of(group) == unit
        if not same or procfs.has_exited(pidfd) or not is_populated(events):
            os.close(events)
            raise bind_refused("the process that connected has exited or left its unit")
        return UnitWatch(BoundUnit(unit, inode, self._boot_id), events, self._events)

    def reopen(self, unit: BoundUnit) -> UnitWatch | None:
        """
        Hold a recorded unit again, or None when it is not provably the same one, populated.

        A group that was removed and made again has another inode; in another boot, all have.
        """
        if not self._boot_id or unit.boot_id != self._boot_id:
            return None
        opened = open_group(unit.path, self._mountinfo)
        if opened is None:
            return None
        events, inode = opened
        if inode != unit.id or not is_populated(events):
            os.close(events)
            return None
        return UnitWatch(unit, events, self._events)
