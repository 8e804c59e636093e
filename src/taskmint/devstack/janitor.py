"""
Removes a directory once its owner and everything that used it are gone; run as a script.

    python -I -S janitor.py DIRECTORY

Standard input is held by the owner (see leash.py). When it closes, the janitor waits for the
exclusive lock on the directory, which every leash holds shared until its program is gone,
and removes the directory with all that is in it. It ignores the signals that end its owner.
"""

import fcntl
import os
import shutil
import signal
import sys


def _main(directory: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_SH)
    os.write(1, f"{os.getpid()}\n".encode())
    while os.read(0, 4096):
        pass
    fcntl.flock(held, fcntl.LOCK_EX)
    shutil.rmtree(directory)


if __name__ == "__main__":
    _main(sys.argv[1])
