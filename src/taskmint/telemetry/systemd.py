"""
Readiness, reloads and signs of life to the service manager (sd_notify(3)).

Without $NOTIFY_SOCKET every call does nothing.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Self

import structlog

_FEEDS_PER_INTERVAL: Final = 3  # sd_watchdog_enabled(3) advises at least two


@dataclass(frozen=True, slots=True)
class Systemd:
    """
    Who started us, as the environment says.

    `address` is a Unix socket's path or, with a leading NUL, its abstract name; None: nobody asks.
    `watchdog` is the time after which silence gets us killed; None: nobody waits.
    """

    address: str | None = None
    watchdog: timedelta | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. Raises ValueError."""
        address = environ.get("NOTIFY_SOCKET") or None
        if address is not None and address[0] not in "/@":
            raise ValueError("NOTIFY_SOCKET is neither a path nor an abstract name")
        if address is not None and address[0] == "@":
            address = "\0" + address[1:]
        microseconds = int(environ.get("WATCHDOG_USEC") or 0)
        ours = environ.get("WATCHDOG_PID") in {None, "", str(os.getpid())}
        watchdog = timedelta(microseconds=microseconds) if microseconds and ours else None
        return cls(address, watchdog)

    def ready(self, status: str = "") -> None:
        """Say that start-up or a reload is finished. Raises OSError."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that a reload begins (systemd.service(5), Type=notify-reload). Raises OSError."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that we are on our way out. Raises OSError."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`. Raises OSError."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Feed the watchdog once. Raises OSError."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self.address is None:
            return
        message = "\n".join(line.replace("\n", " ") for line in lines)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)
            out.connect(self.address)
            out.send(message.encode())


@asynccontextmanager
async def fed(
    manager: Systemd,
    healthy: Callable[[], str | None],
    log: structlog.stdlib.BoundLogger,
) -> AsyncIterator[None]:
    """Feed the watchdog as `keep_alive` does for as long as the context lasts."""
    feeding = asyncio.create_task(keep_alive(manager, healthy, log), name="watchdog")
    try:
        yield
    finally:
        feeding.cancel()
        with suppress(asyncio.CancelledError):
            await feeding


async def keep_alive(
    manager: Systemd,
    healthy: Callable[[], str | None],
    log: structlog.stdlib.BoundLogger,
) -> None:
    """
    Feed the watchdog from the loop, for ever; return at once when nobody waits for it.

    Each third of the interval, it is fed unless the loop came back a third of the interval late
    or `healthy` says why not: then the next turn decides, and silence for a whole interval gets
    the process killed and started anew, which revokes or re-adopts what it left.
    """
    if manager.watchdog is None:
        return
    pause = manager.watchdog.total_seconds() / _FEEDS_PER_INTERVAL
    while True:
        before = time.monotonic()
        await asyncio.sleep(pause)
        late = time.monotonic() - before - pause
        reason = f"the loop was {late:.3f} s late" if late > pause else healthy()
        if reason is not None:
            log.error("watchdog_not_fed", reason=reason)
            continue
        try:
            manager.alive()
        except OSError as error:
            log.warning("watchdog_unreachable", reason=error.strerror)
