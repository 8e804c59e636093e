"""
Run as pid 1 of new user and pid namespaces: reuse a pid, and print what our code makes of it.

Prints JSON: for a connection whose process is gone and whose pid is another's now, what the peer
looks like, whether a bind is refused, and whether a recorded process is found again.
"""

import json
import os
import signal
import socket
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from taskmint.errors import TaskmintError
from taskmint.identity import procfs
from taskmint.identity.peers import PeerReader, PidfdSource
from taskmint.identity.processes import HeldProcesses
from taskmint.model.scope import BindKind

_PID = 4242


def main() -> None:
    """Do it for the source of pidfds named on the command line."""
    reader = PeerReader(PidfdSource(sys.argv[1]))
    held = HeldProcesses(reader)
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{directory}/s")
        listening.listen()
        first = _spawn_as(_PID, f"{directory}/s")
        assert first == _PID
        accepted, _ = listening.accept()
        peer = reader.read(accepted)
        with held.bind(peer, BindKind.PEER) as watch:
            recorded = watch.process
            alive = held.reopen(recorded)
            found_alive = alive is not None
            if alive is not None:
                alive.close()
            os.kill(_PID, 9)
            os.waitpid(_PID, 0)
            exited = watch.exited()
        time.sleep(0.02)  # start times are counted in hundredths of a second
        second = _spawn_as(_PID, f"{directory}/s")
        late = reader.read(accepted)
        try:
            with held.bind(peer, BindKind.PEER):
                bound = "bound"
        except TaskmintError as error:
            bound = error.code
        other_start = procfs.read_stat(_PID)
        report = {
            "reused": second == _PID,
            "found while alive": found_alive,
            "watch saw the exit": exited,
            "found again": held.reopen(recorded) is not None,
            "found with the other's start time": held.reopen(
                replace(recorded, start_time=other_start.start_time if other_start else 0)
            )
            is not None,
            "found after another boot": held.reopen(replace(recorded, boot_id="x")) is not None,
            "late proof": late.proof,
            "late start time": late.start_time,
            "late alive": late.pidfd is not None and not procfs.has_exited(late.pidfd),
            "bind": bound,
        }
        os.kill(_PID, 9)
        sys.stdout.write(json.dumps(report))


def _spawn_as(pid: int, path: str) -> int:
    """Fork a process with that pid, which connects and waits."""
    read, write = os.pipe()
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    child = os.fork()
    if child == 0:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    return child


main()
