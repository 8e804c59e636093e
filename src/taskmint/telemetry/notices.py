"""
Notices to a webhook and a command: soon, in order, bounded, and never in anybody's way.

The body is signed by HMAC-SHA256 under a key that the receiver shares; redirects are not followed,
and no proxy of the environment is used. What hangs is cut off; what does not fit is dropped; both
are counted, logged and reported to `failed`. No decision waits for any of this.
"""

import asyncio
import hmac
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from types import TracebackType
from typing import Final, Self

import aiohttp
import structlog

from taskmint.canonical import canonical
from taskmint.model.secret import Secret
from taskmint.ports import Notice

from .commands import run_command

MOST_WAITING: Final = 100
MOST_LOST: Final = 1_000  # of those dropped, how many wait to be reported; more are only counted
_OK: Final = range(200, 300)
_STOP_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a notice goes, and the key that its signature is made with."""

    url: str
    key: Secret[bytes]


@dataclass(frozen=True, slots=True)
class Channels:
    """To whom notices go; each has `at_most` for one of them."""

    webhook: Webhook | None = None
    command: Sequence[str] = ()
    at_most: timedelta = timedelta(seconds=5)


class Notices:
    """
    Fits ports.Notifier. `async with` it; on leaving, what waits has two seconds.

    `failed` is told of each notice that did not arrive, and why; `count` gets `told`, `failed` or
    `dropped`.
    """

    def __init__(
        self,
        channels: Channels,
        node: str,
        log: structlog.stdlib.BoundLogger,
        failed: Callable[[Notice, str], Awaitable[None]],
        count: Callable[[str], None],
    ) -> None:
        self._channels = channels
        self._node = node
        self._log = log
        self._failed = failed
        self._waiting: asyncio.Queue[Notice] = asyncio.Queue(MOST_WAITING)
        self._lost: deque[Notice] = deque(maxlen=MOST_LOST)
        self._telling: Notice | None = None
        self._session: aiohttp.ClientSession | None = None
        self._worker: asyncio.Task[None] | None = None
        self._count = count

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(trust_env=False, auto_decompress=False)
        self._worker = asyncio.create_task(self._work(), name="notices")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._waiting.join()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._report_left()
        if self._session is not None:
            await self._session.close()

    def notify(self, notice: Notice) -> None:
        """Tell, soon; without a channel there is nobody to tell."""
        if self._channels.webhook is None and not self._channels.command:
            return
        try:
            self._waiting.put_nowait(notice)
        except asyncio.QueueFull:
            self._count("dropped")
            self._log.error("notice_dropped", kind=notice.kind, task=notice.task)
            self._lost.append(notice)

    async def _work(self) -> None:
        while True:
            self._telling = await self._waiting.get()
            try:
                await self._tell(self._telling)
                self._telling = None
                await self._report_lost()
            finally:
                self._waiting.task_done()

    async def _report_lost(self) -> None:
        while self._lost:
            await self._failed(self._lost.popleft(), f"more than {MOST_WAITING} waited")

    async def _report_left(self) -> None:
        """Report what nobody was told of before the stop; what cannot be recorded is logged."""
        left = [] if self._telling is None else [self._telling]
        while not self._waiting.empty():
            left.append(self._waiting.get_nowait())
        if left:
            self._log.warning("notices_left", count=len(left))
        await self._report_lost()
        for notice in left:
            self._count("failed")
            await self._failed(notice, "the daemon stopped before it was told")

    async def _tell(self, notice: Notice) -> None:
        told = {
            "version": 1,
            "kind": notice.kind,
            "node": self._node,
            "task": notice.task,
            **notice.facts,
        }
        problems = []
        if self._channels.webhook is not None:
            problems.append(await self._post(self._channels.webhook, canonical(told)))
        if self._channels.command:
            command, at_most = self._channels.command, self._channels.at_most
            problems.append(await run_command(command, told, at_most))
        said = "; ".join(problem for problem in problems if problem)
        self._count("failed" if said else "told")
        if said:
            self._log.error("notice_failed", kind=notice.kind, task=notice.task, reason=said)
            await self._failed(notice, said)

    async def _post(self, webhook: Webhook, body: bytes) -> str | None:
        """Send one signed body; None when it was accepted."""
        if self._session is None:
            return "the webhook is closed"
        at = str(int(time.time()))
        try:
            async with (
                asyncio.timeout(self._channels.at_most.total_seconds()),
                self._session.post(
                    webhook.url,
                    data=body,
                    headers={
                        "Content-Type": "application/json",
                        "X-Taskmint-Timestamp": at,
                        "X-Taskmint-Signature": f"v1={signature(webhook.key, at, body)}",
                    },
                    allow_redirects=False,
                ) as answer,
            ):
                if answer.status not in _OK:
                    return f"the webhook answered {answer.status}"
        except TimeoutError:
            return "the webhook did not answer in time"
        except (OSError, RuntimeError, aiohttp.ClientError) as error:  # no thread to resolve in
            return f"the webhook cannot be reached: {type(error).__name__}"
        return None


def signature(key: Secret[bytes], at: str, body: bytes) -> str:
    """HMAC-SHA256 (hex) over the time in whole seconds, a dot, and the body."""
    return hmac.new(key.reveal(), at.encode() + b"." + body, sha256).hexdigest()
