"""
What the service manager is told: readiness that means it, reloads, and one line on how things are.

READY=1 is said once, when a task can be started at once; what is missing until then, or again
later, stands in the line that `systemctl status` shows.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from taskmint.api.readiness import Components
from taskmint.telemetry.systemd import Systemd

_POLL_SECONDS: Final = 0.02  # until ready
_STATUS_SECONDS: Final = 1.0  # from then on
_ALARM_SECONDS: Final = 30.0  # a start that takes longer is said once more, as a warning


class Announcer:
    """Tells the manager; one that cannot be reached is logged and otherwise ignored."""

    def __init__(
        self, systemd: Systemd, components: Components, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._systemd = systemd
        self._components = components
        self._log = log
        self._ready = False
        self._told = ""
        self._refused = ""

    async def follow(self, node: str) -> None:
        """Announce readiness when it comes, and every change of the status line, for ever."""
        alarm = asyncio.get_running_loop().call_later(_ALARM_SECONDS, self._alarm)
        try:
            while missing := self._missing():
                self._say(f"waiting for {missing}")
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            alarm.cancel()
        self._ready = True
        self._log.info("ready", node=node)
        self._told = self._line()
        self._tell(lambda: self._systemd.ready(self._told))
        while True:
            await asyncio.sleep(_STATUS_SECONDS)
            self._say(self._line())

    def reloading(self) -> None:
        """A reload begins; before the start is over, the manager has nothing to know of it."""
        if self._ready:
            self._tell(self._systemd.reloading)

    def reloaded(self, refused: str = "") -> None:
        """The reload is over; `refused` says why the old policy is still in force."""
        self._refused = refused
        if self._ready:
            self._told = self._line()
            self._tell(lambda: self._systemd.ready(self._told))

    def stopping(self) -> None:
        """The daemon is on its way out."""
        self._tell(self._systemd.stopping)

    def _alarm(self) -> None:
        # What runs is ended and taken back all the same, so nobody should end us for it.
        self._log.warning("serving_unready", missing=self._missing())

    def _missing(self) -> str:
        reasons = {name: ask() for name, ask in self._components.items()}
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)

    def _line(self) -> str:
        missing = self._missing()
        line = f"refuses new tasks: {missing}" if missing else "ready"
        return f"{line}; {self._refused}" if self._refused else line

    def _say(self, line: str) -> None:
        if line != self._told:
            self._told = line
            self._log.debug("status", line=line)
            self._tell(lambda: self._systemd.status(line))

    def _tell(self, message: Callable[[], None]) -> None:
        try:
            message()
        except OSError as error:
            self._log.warning("systemd_unreachable", reason=error.strerror)
