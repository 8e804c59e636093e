"""Calls to Vault to whoever counts them: how long each took, and what became of it."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from taskmint.errors import Unavailable
from taskmint.ports import Answered, VaultCall

from .responses import MOUNT_FAILED, Meaning, Reply

Called: TypeAlias = Callable[[str, VaultCall, Answered, float], None]
"""What is told of each call: its mount, what it was for, what became of it, and seconds."""


def nobody_counts(mount: str, what: VaultCall, answered: Answered, seconds: float) -> None:
    """Tell nobody: for commands that have no metrics."""


class Stopwatch:
    """Times calls; it changes nothing about them."""

    def __init__(self, called: Called) -> None:
        self._called = called

    async def timed(
        self, mount: str, what: VaultCall, call: Callable[[], Awaitable[Reply]]
    ) -> Reply:
        """Make the call. Raises what it raises."""
        began = time.perf_counter()
        try:
            reply = await call()
        except Unavailable:
            self._called(mount, what, Answered.AWAY, time.perf_counter() - began)
            raise
        answered = _answered(what, reply.meaning)
        self._called(mount, what, answered, time.perf_counter() - began)
        return reply


def _answered(what: VaultCall, meaning: Meaning) -> Answered:
    """A look-up of what is gone is refused, and a probe fails, by what they are: both are fine."""
    if what is VaultCall.PROBE and meaning is Meaning.FAILED:
        return Answered.OK
    if meaning in MOUNT_FAILED:
        return Answered.FAILED
    if meaning is Meaning.DONE or what is VaultCall.LOOK_UP:
        return Answered.OK
    return Answered.REFUSED
