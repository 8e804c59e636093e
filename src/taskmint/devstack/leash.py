"""
Runs one program that must not outlive its owner; run as a script, with the standard library only.

    python -I -S leash.py LOCK STOP_SIGNAL GRACE_SECONDS COMMAND [ARGUMENT…]

Standard input is the leash: the owner holds the other end and writes nothing. When it closes,
because the owner let go or because the owner died of anything at all, the program gets STOP_SIGNAL,
then SIGKILL after GRACE_SECONDS, and so does everything that it left behind. The first line on
standard output is the program's pid; the exit status is the program's, 128 + n for a signal.

LOCK is a directory that is held with a shared lock for as long as anything of ours may use it;
janitor.py removes it once nobody holds that lock any more.

Why a process of its own: PR_SET_PDEATHSIG is forgotten by `unshare --user` and does not reach
grandchildren. A child subreaper (prctl(2)) inherits every orphan below it, whatever forked it.
"""

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1  # prctl(2), linux/prctl.h
_PR_SET_CHILD_SUBREAPER: Final = 36
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_STDIN: Final = 0
_NOT_STARTED: Final = 127  # what a shell answers for a command that it could not start


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _become(command: list[str], leash: int) -> NoReturn:
    """In the child: die with the leash, own a new standard input, become the program."""
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != leash:
            os._exit(_NOT_STARTED)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(2, 1)  # the program's output goes to the log, which is our standard error
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(2, f"leash: {command[0]}: {error.strerror}\n".encode())
        os._exit(_NOT_STARTED)


def _children() -> list[int]:
    """Our children, orphans that came to us included. The kernel may lack `children`: scan then."""
    me = os.getpid()
    try:
        listed = Path(f"/proc/self/task/{me}/children").read_text()
        return [int(pid) for pid in listed.split()]
    except FileNotFoundError:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == me:
                    found.append(int(stat.parent.name))
        return found


def _wait(descriptors: list[int], seconds: float | None) -> None:
    """Wait until one is readable: the program has exited, or the leash is let go."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    poll.poll(None if seconds is None else max(0, int(seconds * 1000) + 1))


def _reap(program: int) -> int | None:
    """Collect whoever has exited; the program's status when it is among them."""
    status = None
    while True:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == program:
            code = os.waitstatus_to_exitcode(raw)
            status = code if code >= 0 else 128 - code


def _kill_everything() -> None:
    """Kill and collect until nothing is left; each kill may hand us the next generation."""
    while children := _children():
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _hold(program: int, let_go: int, stop_signal: int, grace: float) -> int:
    """Wait for the program's end, or end it when the owner lets go; its status either way."""
    pidfd = os.pidfd_open(program)
    deadline = None
    while True:
        watched = [pidfd] if deadline else [pidfd, _STDIN, let_go]
        _wait(watched, deadline - time.monotonic() if deadline else None)
        status = _reap(program)
        if status is not None:
            return status
        if deadline is None and _released(let_go):
            signal.pidfd_send_signal(pidfd, stop_signal)
            deadline = time.monotonic() + grace
        elif deadline and time.monotonic() >= deadline:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            deadline += grace


def _released(let_go: int) -> bool:
    """Whether the owner closed its end, or somebody sent us a signal to stop."""
    poll = select.poll()
    poll.register(_STDIN, select.POLLIN)
    poll.register(let_go, select.POLLIN)
    return bool(poll.poll(0))


def _main(arguments: list[str]) -> int:
    lock, stop_signal, grace, *command = arguments
    held = os.open(lock, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_SH)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    let_go, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    me = os.getpid()
    # What arrives while the child still has our handlers waits until it has the default ones.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    program = os.fork()
    if program == 0:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        _become(command, me)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    os.write(1, f"{program}\n".encode())
    try:
        return _hold(program, let_go, int(stop_signal), float(grace))
    finally:
        _kill_everything()


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
