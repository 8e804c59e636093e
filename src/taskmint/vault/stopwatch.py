"""Calls to Vault to whoever counts them: how long each took, and what became of it."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from taskmint.errors import Unavailable
from taskmint.ports import UNTRACED, Answered, Tracer, VaultCall

from .responses import MOUNT_FAILED, Meaning, Reply

Called: TypeAlias = Callable[[str, VaultCall, Answered, float], None]
"""What is told of each call: its mount, what it was for, what became of it, and seconds."""


class Stopwatch:
    """Times and traces calls; it changes nothing about them but what names their span."""

    def __init__(self, called: Called, tracer: Tracer) -> None:
        self._called = called
        self._tracer = tracer

    def outgoing(self) -> Mapping[str, str]:
        """Headers by which a request belongs to its span."""
        return self._tracer.outgoing()

    async def timed(
        self, mount: str, what: VaultCall, call: Callable[[], Awaitable[Reply]]
    ) -> Reply:
        """Make the call, in a span of its own. Raises what it raises."""
        with self._tracer.span(f"vault {what}", {"mount": mount}):
            began = time.perf_counter()
            try:
                reply = await call()
            except Unavailable:
                self._called(mount, what, Answered.AWAY, time.perf_counter() - began)
                raise
            answered = _answered(what, reply.meaning)
            self._called(mount, what, answered, time.perf_counter() - began)
            return reply


def _nobody_counts(mount: str, what: VaultCall, answered: Answered, seconds: float) -> None:
    """Tell nobody: for commands that have no metrics."""


UNWATCHED: Final = Stopwatch(_nobody_counts, UNTRACED)


def _answered(what: VaultCall, meaning: Meaning) -> Answered:
    """A look-up of what is gone is refused, and a probe fails, by what they are: both are fine."""
    if what is VaultCall.PROBE and meaning is Meaning.FAILED:
        return Answered.OK
    if meaning in MOUNT_FAILED:
        return Answered.FAILED
    if meaning is Meaning.DONE or what is VaultCall.LOOK_UP:
        return Answered.OK
    return Answered.REFUSED
