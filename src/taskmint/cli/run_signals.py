"""
The runner's signals: before the command runs they give up, afterwards they are passed on.

A terminal sends ^C and ^\\ to the whole foreground process group, so the command has them already;
those two are not passed on while we are in the foreground of our terminal.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
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


class Signals:
    """Remembers the first signal that asks for an end, and tells whoever listens now."""

    def __init__(self) -> None:
        self.asked_to_end: int | None = None
        self._listener: Callable[[int], None] | None = None

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Handle signals on the running loop for as long as the block lasts."""
        loop = asyncio.get_running_loop()
        for number in _PASSED_ON:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in _PASSED_ON:
                loop.remove_signal_handler(number)

    @contextlib.contextmanager
    def told_to(self, listener: Callable[[int], None]) -> Iterator[None]:
        """Tell `listener` each signal for as long as the block lasts; nobody else is told."""
        self._listener = listener
        try:
            yield
        finally:
            self._listener = None

    def _on_signal(self, number: int) -> None:
        if self.asked_to_end is None and number in _ENDING:
            self.asked_to_end = number
        if self._listener is not None:
            self._listener(number)


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
