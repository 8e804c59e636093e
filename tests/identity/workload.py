"""Real processes that do to a socket what a test tells them, one line at a time."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_PROGRAM = r"""
import os, signal, socket, sys

sock = None
for line in sys.stdin:
    what, *args = line.split()
    if what == "connect":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(args[0])
    elif what == "send":
        sock.sendall(bytes.fromhex(args[0]))
    elif what == "receive":
        print(sock.recv(65536).hex(), flush=True)
        continue
    elif what == "take":  # a descriptor that another process passes
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(args[0])
            other.listen()
            print(os.getpid(), flush=True)
            giver, _ = other.accept()
            sock = socket.socket(fileno=socket.recv_fds(giver, 1, 1)[1][0])
        continue
    elif what == "give":
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(args[0])
            socket.send_fds(other, [b"x"], [sock.fileno()])
    elif what == "session":
        os.setsid()
    elif what == "groups":
        os.setgroups([int(group) for group in args])
    elif what == "user":
        os.setgid(int(args[0]))
        os.setuid(int(args[0]))
    elif what == "child-goes-on":  # and the parent stays
        if os.fork():
            signal.pause()
    elif what == "child-takes-over":  # and the parent exits
        if os.fork():
            os._exit(0)
    elif what == "fork":  # the child stays, with every descriptor
        if not os.fork():
            signal.pause()
    elif what == "exec":
        os.set_inheritable(sock.fileno(), True)
        print(os.getpid(), flush=True)
        os.execv(sys.executable, [sys.executable, "-ISc", "import signal; signal.pause()"])
    elif what == "exit":
        os._exit(0)
    print(os.getpid(), flush=True)
"""


class Workload:
    """A process that follows orders; `pid` is who answered last."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.first_pid = process.pid
        self.pid = process.pid
        self.seen: set[int] = {process.pid}

    def tell(self, *words: object) -> "Workload":
        """Give an order and wait until it is done; the pid of who did it becomes `pid`."""
        self.pid = int(self._ask(*words))
        self.seen.add(self.pid)
        return self

    def receive(self) -> bytes:
        """Return what comes on the socket."""
        return bytes.fromhex(self._ask("receive"))

    def reap(self) -> None:
        """Wait until the first process has exited."""
        self._process.wait(5)

    def exit(self) -> None:
        """Let whoever listens to orders exit; wait for the first process only."""
        self._order("exit")
        if self.pid == self.first_pid:
            self.reap()

    def kill(self, pid: int) -> None:
        """Kill one of its processes, and wait when it is the first."""
        os.kill(pid, signal.SIGKILL)
        if pid == self.first_pid:
            self.reap()

    def order(self, *words: object) -> None:
        """Give an order that nobody answers."""
        self._order(*words)

    def _order(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def _ask(self, *words: object) -> str:
        self._order(*words)
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        assert answer, f"no answer to {words}"
        return answer

    def end(self) -> None:
        """Kill everything that is left."""
        for pid in self.seen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@contextlib.contextmanager
def workload(*prefix: str) -> Iterator[Workload]:
    """Run a process that follows orders, behind a command such as unshare when given."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-ISuc", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    one = Workload(process)
    try:
        yield one
    finally:
        one.end()


def can_unshare(*options: str) -> bool:
    """Whether this machine lets us make namespaces."""
    tried = subprocess.run(["unshare", *options, "true"], check=False, capture_output=True)
    return tried.returncode == 0


def script(name: str) -> str:
    """Return the path of a script beside this file."""
    return str(Path(__file__).with_name(name))
