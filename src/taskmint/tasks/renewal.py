"""
The dead-man's other half: token and leases renewed together while no end has come.

First at a third of the life, retried at a twelfth of it, always to the dead-man interval
(decisions.md, renewal). A lease has its own clock: renewing its token does not renew it.
"""

import asyncio
import random
from datetime import timedelta
from enum import Enum, auto
from typing import Final

from taskmint.errors import BackendFailed, TaskmintError, Unavailable
from taskmint.model.state import TaskState
from taskmint.ports import Revocable

from .outside import Outside
from .task import Task

PARALLEL_RENEWALS: Final = 32


def first_renewal(dead_man: timedelta, now: float) -> float:
    """A third of the life, up to a fifth earlier, so that tasks started together spread out."""
    third = dead_man.total_seconds() / 3
    return now + third * random.uniform(0.8, 1.0)  # noqa: S311 - not for secrecy


def retry(dead_man: timedelta, now: float) -> float:
    """A twelfth of the life later: eight tries fit before the credentials lapse."""
    return now + dead_man.total_seconds() / 12


class Outcome(Enum):
    """What a renewal came to."""

    OK = auto()
    FAILED = auto()  # to be tried again
    LOST = auto()  # the server knows no such token or lease any more


class Renewer:
    """Renews one task at a time per call, a bounded number of calls side by side."""

    def __init__(self, outside: Outside) -> None:
        self._vault = outside.vault
        self._clock = outside.clock
        self._observer = outside.observer
        self._log = outside.log
        self._slots = asyncio.Semaphore(PARALLEL_RENEWALS)

    async def renew(self, task: Task) -> Outcome:
        """
        Renew token and leases; set `guaranteed_until` and `renew_at`.

        What Vault grants counts from before the call, so that the guarantee never says too much.
        """
        async with self._slots:
            if task.state is not TaskState.ACTIVE:
                return Outcome.OK
            asked_at = self._clock.boottime()
            # Each of them is asked for by itself: none that fails keeps the others from renewal.
            lives = await asyncio.gather(*(self._one(task, item) for item in _handles(task)))
        if None in lives:
            self._observer.renewal("lost")
            return Outcome.LOST
        if timedelta() in lives:
            self._observer.renewal("failed")
            task.renew_at = retry(task.scope.dead_man, self._clock.boottime())
            return Outcome.FAILED
        self._observer.renewal("ok")
        life = min((one for one in lives if one is not None), default=task.scope.dead_man)
        task.guaranteed_until = asked_at + life.total_seconds()
        task.renew_at = first_renewal(min(life, task.scope.dead_man), asked_at)
        return Outcome.OK

    async def _one(self, task: Task, revocable: Revocable) -> timedelta | None:
        """The life it has now; nothing when that is not known; None when it is gone."""
        try:
            return await self._vault.renew(revocable, task.scope.dead_man)
        except (Unavailable, BackendFailed) as error:
            self._log.warning("renewal_failed", task=task.id, code=error.code)
            return None if await self._is_gone(error, revocable) else timedelta()

    async def _is_gone(self, error: TaskmintError, revocable: Revocable) -> bool:
        """A failure of the backend may mean that there is nothing to renew any more: look."""
        if not isinstance(error, BackendFailed):
            return False
        try:
            return await self._vault.is_gone(revocable)
        except (Unavailable, BackendFailed):
            return False


def _handles(task: Task) -> list[Revocable]:
    handles = [held.revocable for held in task.held if held.revocable and held.renewable]
    return [task.token, *handles] if task.token else handles
