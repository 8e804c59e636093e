"""When to ask again and when to say that a task lives: decisions on a clock that is passed in."""

from datetime import datetime
from typing import Final

from .answers import Started, Waiting
from .errors import BadAnswer, ClientError, Interrupted, Refused, Unreachable
from .proof import Proof

POLL_PAUSE: Final = 0.5  # between two looks, for a daemon that answers at once
_PATIENCE_SECONDS: Final = 10.0  # for a daemon that is being restarted
_GRACE_SECONDS: Final = 2.0  # in which the daemon says itself that the time is over
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_OVER: Final = frozenset({_NOT_FOUND, _CONFLICT})  # no such task any more, or no longer active


class Patience:
    """
    Repeats a request for ten seconds, or as long as it is told, with pauses that grow to one.

    A start is repeated only after a connection broke: nobody there at first is an answer. An end
    is repeated whenever that can help, and so is a look at a request that waits for an approval.
    """

    def __init__(self, now: float, *, at_first: bool, seconds: float = _PATIENCE_SECONDS) -> None:
        self._give_up = now + seconds
        self._pause = _FIRST_PAUSE
        self._at_first = at_first

    def pause(self, error: ClientError, now: float) -> float | None:
        """Return how long to wait before the next try; None when there is to be none."""
        if isinstance(error, Interrupted):
            self._at_first = True
        elif isinstance(error, Unreachable):
            if not self._at_first:
                return None
        elif not isinstance(error, Refused) or error.retry_after is None or not self._at_first:
            return None
        if now + self._pause > self._give_up:
            return None
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
        return pause

    def is_over(self, now: float) -> bool:
        """Whether its time has passed."""
        return now > self._give_up


def waits_for(view: Waiting, now: datetime) -> float:
    """How many seconds a request may wait, by the wall clock, which is the daemon's too."""
    return max(0.0, (view.until - now).total_seconds()) + _GRACE_SECONDS


def waits_too_long(view: Waiting) -> BadAnswer:
    """Build the error of a request that waits although its time is over."""
    return BadAnswer(
        f"the daemon lets request {view.id} wait for longer than it said", fix="see its log"
    )


class Pulse:
    """
    Heartbeats at a third of the interval that the definition asks for; after a failure, a twelfth.

    Re-proof needs an SVID that the daemon has not seen for this task. Agents hand out the same one
    for about half of its life, so from a third of that interval on, each beat asks for a new one.
    """

    def __init__(self, view: Started, proof: Proof, now: float) -> None:
        self._heartbeat = view.heartbeat
        self._reprove = view.reprove
        self._proof = proof
        self._proved_at = now

    @property
    def interval(self) -> float | None:
        """Seconds within which the daemon must hear of us; None when it need not."""
        return min((span for span in (self._heartbeat, self._reprove) if span), default=None)

    def wants_new_svid(self, now: float) -> bool:
        """Whether the next beat is to show an SVID asked for anew."""
        return self._reprove is not None and now >= self._proved_at + self._reprove / 3

    def beaten(self, proof: Proof, now: float) -> None:
        """Note a beat that the daemon accepted."""
        if not proof.shows(self._proof):
            self._proof, self._proved_at = proof, now


def is_over(error: ClientError) -> bool:
    """Whether the answer to a heartbeat says that the task has ended."""
    return isinstance(error, Refused) and error.status in _OVER


def is_forgotten(error: ClientError) -> bool:
    """Whether the answer to an end says that the daemon knows of no such task any more."""
    return isinstance(error, Refused) and error.status == _NOT_FOUND
