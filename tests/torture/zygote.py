"""
Forks daemons from one process that has imported the program already; run by tests, never imported.

Standard input is a line of JSON for each daemon to start: `config`, `log`, `environment`. Standard
output is `started PID` for each, and `ended PID STATUS` when it has ended, where -9 is SIGKILL.
Each is a process of its own on this interpreter and runs what `taskmint serve` runs; only the
importing is saved. When standard input ends, all of them are killed.
"""

import ctypes
import json
import os
import select
import signal
import sys
from typing import Any, Final, NoReturn

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import taskmint.daemon.start
from taskmint.cli.serve import serve

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def _become(order: dict[str, Any]) -> NoReturn:
    """Be the daemon, with a log and an environment of its own."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    os.environ.update(order["environment"])
    status = 1
    try:
        serve.main(["--config", order["config"]], prog_name="taskmint serve")
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stderr.flush()
        os._exit(status)


def _collect() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say("ended", pid, os.waitstatus_to_exitcode(status))


def main() -> None:
    """Fork as told until standard input ends."""
    if taskmint.daemon.start.__doc__ is None:
        raise AssertionError("it is imported so that its children need not")
    wake, wakes = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting = b""
    while True:
        readable, _, _ = select.select([0, wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
        _collect()
        if 0 not in readable:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            return  # the children die with us (PR_SET_PDEATHSIG)
        *lines, waiting = (waiting + chunk).split(b"\n")
        for line in lines:
            order = json.loads(line)
            pid = os.fork()
            if pid == 0:
                os.close(wake)
                os.close(wakes)
                _become(order)
            _say("started", pid)


if __name__ == "__main__":
    main()
