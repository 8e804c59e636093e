"""The wrapped command as a process: it dies with its runner and hears its signals."""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping
from typing import Final, Self

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_NOT_FOUND: Final = 127  # env(1)
_NOT_EXECUTABLE: Final = 126
_BY_SIGNAL: Final = 128
_CHUNK: Final = 4096


class CommandNotStarted(Exception):
    """Raised when exec fails; `exit_code` is what env(1) would exit with."""

    def __init__(self, exit_code: int, problem: str) -> None:
        super().__init__(problem)
        self.exit_code = exit_code


class Child:
    """A running command. Use as a context manager, so that its pidfd is closed."""

    def __init__(self, process: subprocess.Popen[bytes], pidfd: int) -> None:
        self._process = process
        self._pidfd = pidfd

    @classmethod
    def start(cls, command: tuple[str, ...], environment: Mapping[str, str]) -> Self:
        """
        Run the command with this environment and our standard streams.

        It is killed when the runner is: the runner is the process that the task is bound to, so
        without it there are no credentials either. Raises CommandNotStarted.
        """
        try:
            process = subprocess.Popen(  # noqa: S603 - running what we are told to run is the job
                command,
                env=environment,
                preexec_fn=_dying_with_us(),  # noqa: PLW1509 - no other thread runs here
            )
        except FileNotFoundError:
            raise CommandNotStarted(_NOT_FOUND, f"{command[0]}: not found") from None
        except OSError as error:
            raise CommandNotStarted(_NOT_EXECUTABLE, f"{command[0]}: {error.strerror}") from None
        return cls(process, os.pidfd_open(process.pid))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pidfd)

    def wait(self, signalled: int) -> int:
        """
        Wait for the command; return its exit code, or 128 + the signal that ended it.

        `signalled` is a descriptor that becomes readable with every signal to ourselves.
        """
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.register(signalled, select.POLLIN)
        while all(descriptor != self._pidfd for descriptor, _ in poll.poll()):
            os.read(signalled, _CHUNK)  # the handlers run here, between two instructions
        code = self._process.wait()
        return code if code >= 0 else _BY_SIGNAL - code

    def send(self, number: int) -> None:
        """Pass a signal on, to this process and no other; one that has just exited gets none."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)


def _dying_with_us() -> Callable[[], None]:
    """Return what the child does between fork and exec."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask_for_a_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # the runner died before we had asked
            os.kill(os.getpid(), signal.SIGKILL)

    return ask_for_a_signal
