"""
The dead-man's other half: token and leases renewed together while no end has come.

First at a third of the life, retried at a twelfth of it, always to the dead-man interval
(decisions.md, renewal). A lease has its own clock: renewing its token does not renew it.
"""

from datetime import timedelta
from enum import Enum, auto
from typing import Final

from taskmint.errors import BackendFailed, TaskmintError, Unavailable
from taskmint.ports import RenewalOutcome, Revocable

from .jitter import between
from .lanes import Lanes, mount_of
from .outside import Outside
from .revision import NEVER, Revision
from .task import Task
from .together import together

PARALLEL_RENEWALS: Final = 16  # for each mount
_UNKNOWN: Final = 0.0


def first_renewal(life: timedelta, now: float) -> float:
    """
    Between a sixth and a third of the life, anywhere: ten thousand tasks that started together
    are spread over half of that time at once.
    """
    return now + life.total_seconds() / 3 * between(0.5, 1.0)


def next_renewal(life: timedelta, now: float) -> float:
    """A third of the life, a little earlier at times: what is spread out stays so."""
    return now + life.total_seconds() / 3 * between(0.9, 1.0)


def retry(life: timedelta, now: float) -> float:
    """A twelfth of the life later: eight tries fit before the credentials lapse."""
    return now + life.total_seconds() / 12


class Outcome(Enum):
    """What a renewal came to."""

    OK = auto()
    FAILED = auto()  # to be tried again
    LOST = auto()  # the server knows no such token or lease any more


class Renewer:
    """Renews one revision at a time per call, a bounded number of calls for each mount."""

    def __init__(self, outside: Outside) -> None:
        self._vault = outside.vault
        self._clock = outside.clock
        self._observer = outside.observer
        self._log = outside.log
        self._lanes = Lanes(PARALLEL_RENEWALS)

    async def renew(self, task: Task, revision: Revision) -> Outcome:
        """
        Renew token and leases; set the revision's clock.

        What Vault grants counts from before the call, so that the guarantee never says too much.
        """
        # Each of them is asked for by itself: none that fails keeps the others from renewal.
        lapses = await together(
            [self._one(task, revision, each) for each in revision.renewed_together()]
        )
        now = self._clock.boottime()
        if not revision.works():  # its end came meanwhile
            return Outcome.OK
        if None in lapses:
            self._observer.renewal(RenewalOutcome.LOST)
            return Outcome.LOST
        if _UNKNOWN in lapses:
            self._observer.renewal(RenewalOutcome.FAILED)
            revision.renew_at = retry(revision.scope.dead_man, now)
            return Outcome.FAILED
        self._observer.renewal(RenewalOutcome.OK)
        life = timedelta(seconds=min(one for one in lapses if one is not None) - now)
        revision.granted(life, now)
        revision.renew_at = next_renewal(min(life, revision.scope.dead_man), now)
        return Outcome.OK

    async def _one(self, task: Task, revision: Revision, revocable: Revocable) -> float | None:
        """
        When it lapses now; `_UNKNOWN` when nobody said; None when it is gone already; NEVER for a
        token of the caller's own, whose end is its own.
        """
        async with self._lanes.through(mount_of(revision, revocable)):
            asked_at = self._clock.boottime()
            if not revision.works():
                return _UNKNOWN
            handed = revision.is_handed(revocable)
            try:
                life = await self._vault.renew(revocable, revision.scope.dead_man)
            except (Unavailable, BackendFailed) as error:
                self._log.warning("renewal_failed", task=task.id, code=error.code)
                if not await self._is_gone(error, revocable):
                    return _UNKNOWN
                if not handed:
                    return None
                revision.let_go(revocable)
                return NEVER
            return NEVER if handed else asked_at + life.total_seconds()

    async def _is_gone(self, error: TaskmintError, revocable: Revocable) -> bool:
        """A failure of the backend may mean that there is nothing to renew any more: look."""
        if not isinstance(error, BackendFailed):
            return False
        try:
            return await self._vault.is_gone(revocable)
        except (Unavailable, BackendFailed):
            return False
