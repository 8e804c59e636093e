"""
The runner's signals: before the command runs they end the run, afterwards they are passed on.

A terminal sends ^C and ^\\ to the whole foreground process group, so the command has them already;
those two are not passed on while we are in the foreground of our terminal.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

_PASSED_ON: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_ENDING: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
_FROM_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT})


class GivenUp(BaseException):
    """Raised in the main thread by a second signal that asks for an end before the command runs."""


class CalledOff(BaseException):
    """Raised in the main thread by a signal that asks for an end while only an approval is due."""


class Signals:
    """Remembers the first signal that asks for an end, and tells whoever listens now."""

    def __init__(self) -> None:
        # Appended to in one step: a handler may run in the midst of another one.
        self._endings: list[int] = []
        self._listener: Callable[[int], None] = self._before_the_command

    @property
    def asked_to_end(self) -> int | None:
        """The first signal that asked for an end, if one has."""
        return self._endings[0] if self._endings else None

    @contextlib.contextmanager
    def caught(self) -> Iterator[int]:
        """
        Handle signals for as long as the block lasts.

        Yields a descriptor that becomes readable with each signal, in whichever thread it arrives:
        who waits by poll(2) on it misses none, as one in waitpid(2) might.
        """
        readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        wakeup = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        before = {number: signal.signal(number, self._on_signal) for number in _PASSED_ON}
        try:
            yield readable
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            os.close(readable)
            os.close(writable)

    @contextlib.contextmanager
    def calling_off(self) -> Iterator[None]:
        """Raise CalledOff at a signal that asks for an end, also one that came a moment before."""
        before = self._listener

        def call_off(number: int) -> None:
            if number in _ENDING:
                raise CalledOff

        self._listener = call_off
        try:
            if self.asked_to_end is not None:
                raise CalledOff
            yield
        finally:
            self._listener = before

    @contextlib.contextmanager
    def passed_to(self, listener: Callable[[int], None]) -> Iterator[None]:
        """
        Tell `listener` each signal for as long as the block lasts; afterwards tell nobody.

        It is told at once of one that asked for an end a moment before; rather twice than never.
        """
        self._listener = listener
        try:
            if self.asked_to_end is not None:
                listener(self.asked_to_end)
            yield
        finally:
            self._listener = _ignore

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number in _ENDING:
            self._endings.append(number)
        self._listener(number)

    def _before_the_command(self, number: int) -> None:
        # The first one is obeyed as soon as the daemon has answered, so that no task is left.
        if number in _ENDING and len(self._endings) > 1:
            raise GivenUp


def _ignore(_: int) -> None:
    """The command has ended and the task is being ended: there is nothing to hurry."""


def sent_by_terminal(number: int) -> bool:
    """Whether the terminal has given this signal to our whole process group already."""
    if number not in _FROM_TERMINAL:
        return False
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
