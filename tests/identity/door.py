"""A listening socket that takes one real caller after another."""

import os
import socket
from pathlib import Path

from identity.workload import Workload
from taskmint.identity.peers import PeerReader
from taskmint.identity.processes import HeldProcesses
from taskmint.model.peer import Peer


class Door:
    """Accepts one caller after another; peers' descriptors are closed at the end."""

    def __init__(self, path: Path, listening: socket.socket, reader: PeerReader) -> None:
        self.path = path
        self.held = HeldProcesses(reader)
        self._listening = listening
        self._reader = reader
        self._pidfds: list[int] = []

    def accept(self, caller: Workload) -> Peer:
        """Let the caller connect, and read it."""
        caller.tell("connect", self.path)
        accepted, _ = self._listening.accept()
        with accepted:
            peer = self._reader.read(accepted)
        if peer.pidfd is not None:
            self._pidfds.append(peer.pidfd)
        return peer

    def close(self) -> None:
        """Close what the listener would have closed."""
        while self._pidfds:
            os.close(self._pidfds.pop())
