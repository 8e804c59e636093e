"""A task under way: keeps it alive, notices when it is over, ends it."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

from . import patiently
from .answers import Credential, Ended, Started, started
from .calls import Outcome
from .daemon_api import DaemonApi
from .errors import ClientError
from .proof import Proof
from .timing import Pulse, is_over


class RunningTask:
    """
    What the daemon gave, for as long as it lasts. Built by TaskmintClient.

    `over` is set when the daemon says, at a heartbeat, that the task has ended: by its deadline,
    an operator, the policy. The credentials do not work any more then.
    """

    def __init__(
        self, api: DaemonApi, view: Started, proof: Proof, on_end: Callable[["RunningTask"], None]
    ) -> None:
        self._api = api
        self._view = view
        self._proof = proof
        self._on_end = on_end
        self._keeper: asyncio.Task[None] | None = None
        self.over = asyncio.Event()
        self.over_because: ClientError | None = None
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
        pulse = Pulse(self._view, self._proof, asyncio.get_running_loop().time())
        if pulse.interval is not None:
            self._keeper = asyncio.create_task(self._beat(pulse, pulse.interval))

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
            await asyncio.wait([self._keeper])  # unlike await, it leaves cancellation to us alone
        self.ended = await patiently.end(self._api, self.id, outcome)
        return self.ended

    async def _beat(self, pulse: Pulse, interval: float) -> None:
        loop = asyncio.get_running_loop()
        pause = interval / 3
        while True:
            await asyncio.sleep(pause)
            try:
                proof = await self._api.proof(fresh=pulse.wants_new_svid(loop.time()))
                self._adopt(started(await self._api.heartbeat(self.id, proof)))
            except ClientError as error:
                if is_over(error):
                    self.over_because = error
                    self.over.set()
                    return
                pause = interval / 12
            else:
                pulse.beaten(proof, loop.time())
                pause = interval / 3

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
