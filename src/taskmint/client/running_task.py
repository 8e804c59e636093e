"""A task under way: keeps it alive, notices when it is over, ends it."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from .answers import Credential, Ended, Started, ended, started
from .daemon_api import DaemonApi, Outcome
from .errors import ClientError, Refused, Unreachable

_OVER: Final = frozenset({404, 409})  # no such task any more, or no longer active
_GONE: Final = 404
_PATIENCE_SECONDS: Final = 10.0  # for a daemon that is being restarted
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 1.0


class RunningTask:
    """
    What the daemon gave, for as long as it lasts. Built by TaskmintClient.

    `over` is set when the daemon says, at a heartbeat, that the task has ended: by its deadline,
    an operator, the policy. The credentials do not work any more then.
    """

    def __init__(
        self, api: DaemonApi, view: Started, token: str, on_end: Callable[["RunningTask"], None]
    ) -> None:
        self._api = api
        self._view = view
        self._token = token  # the SVID that proved us last
        self._on_end = on_end
        self._keeper: asyncio.Task[None] | None = None
        self.over = asyncio.Event()
        self.over_because: Refused | None = None
        self.ended: Ended | None = None

    @property
    def id(self) -> str:
        """The task's id, as it stands in the ledger and in every database user name."""
        return self._view.id

    @property
    def credentials(self) -> Mapping[str, Credential]:
        """What was minted, by the names of the policy's scope."""
        return self._view.credentials

    @property
    def expires_at(self) -> datetime:
        """The deadline."""
        return self._view.expires_at

    @property
    def guaranteed_until(self) -> datetime:
        """How long the credentials work if nobody renewed them after the last answer."""
        return self._view.guaranteed_until

    def keep(self) -> None:
        """Start the heartbeats that the definition asks for; `end` stops them."""
        intervals = [span for span in (self._view.heartbeat, self._view.reprove) if span]
        if intervals:
            self._keeper = asyncio.create_task(self._beat(min(intervals)))

    async def end(self, outcome: Outcome) -> Ended:
        """
        End the task and return how it ended; a second call returns the same.

        A daemon that is away is asked again for ten seconds. Raises ClientError after that: the
        task then ends by what else binds it, at the latest by its dead-man interval.
        """
        if self.ended is not None:
            return self.ended
        self._on_end(self)
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        self.ended = await self._end(outcome)
        return self.ended

    async def _end(self, outcome: Outcome) -> Ended:
        loop = asyncio.get_running_loop()
        give_up, delay = loop.time() + _PATIENCE_SECONDS, _FIRST_DELAY
        while True:
            try:
                return ended(await self._api.end(self.id, outcome))
            except Refused as error:
                if error.status == _GONE:
                    return Ended(state="forgotten", cause=None, revocation_seconds=None)
                if error.retry_after is None or loop.time() + delay > give_up:
                    raise
            except Unreachable:
                if loop.time() + delay > give_up:
                    raise
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)

    async def _beat(self, interval: float) -> None:
        """
        Say that we live at a third of the interval; after a failure, at a twelfth.

        Re-proof needs an SVID that the daemon has not seen for this task. Agents hand out the same
        one for about half of its life, so from a third of that interval on each beat asks anew.
        """
        loop = asyncio.get_running_loop()
        proved_at, pause = loop.time(), interval / 3
        while True:
            await asyncio.sleep(pause)
            reprove = self._view.reprove
            fresh = reprove is not None and loop.time() >= proved_at + reprove / 3
            try:
                token = await self._api.token(fresh=fresh)
                self._adopt(started(await self._api.heartbeat(self.id, token)))
            except Refused as error:
                if error.status in _OVER:
                    self.over_because = error
                    self.over.set()
                    return
                pause = interval / 12
            except ClientError:
                pause = interval / 12
            else:
                pause = interval / 3
                if token != self._token:
                    self._token, proved_at = token, loop.time()

    def _adopt(self, view: Started) -> None:
        """Take over the new times; the credentials came with the start and stay."""
        self._view = Started(
            id=self._view.id,
            expires_at=view.expires_at,
            guaranteed_until=view.guaranteed_until,
            heartbeat=view.heartbeat,
            reprove=view.reprove,
            credentials=self._view.credentials,
        )
