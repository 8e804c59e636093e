"""A process is who the kernel says it is, and only while it lives."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskmint.devstack.registration import Caller, Entry

HERE = str(Path("/proc/self/exe").readlink())
ENTRY = Entry("spiffe://example.org/a", HERE)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A Unix socket to connect to."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        yield listening


def test_matching_is_by_path_and_user() -> None:
    """The path must be the same; a user is asked for only where the entry names one."""
    assert ENTRY.matches(1, HERE)
    assert not ENTRY.matches(1, HERE + "x")
    assert Entry("spiffe://example.org/a", HERE, 0).matches(0, HERE)
    assert not Entry("spiffe://example.org/a", HERE, 0).matches(1, HERE)


class OlderKernel(socket.socket):
    """A socket of a kernel before 6.5: it does not know SO_PEERPIDFD."""

    def getsockopt(self, level: int, option: int, length: int = 0) -> Any:
        """Refuse the one option."""
        if option == 77:
            raise OSError(errno.ENOPROTOOPT, "not known")
        return super().getsockopt(level, option, length)


def test_an_older_kernel_is_enough(listener: socket.socket) -> None:
    """Without the kernel's own handle the pid that connected is opened."""
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with OlderKernel(fileno=accepted.detach()) as connection:
            caller = Caller.of(connection)

        assert caller is not None
        assert (caller.pid, caller.uid) == (os.getpid(), os.geteuid())
        assert caller.entitled([ENTRY]) == (ENTRY,)
        caller.close()


def test_a_caller_is_known_until_it_exits(listener: socket.socket) -> None:
    """The connection stays open in another process, but who made it has gone."""
    connect = "import socket,sys; s = socket.socket(1); s.connect(sys.argv[1]); input()"
    path = listener.getsockname()
    with subprocess.Popen([sys.executable, "-c", connect, path], stdin=subprocess.PIPE) as child:
        connection, _ = listener.accept()
        caller = Caller.of(connection)
        assert caller is not None
        assert (caller.pid, caller.uid) == (child.pid, os.geteuid())
        assert caller.entitled([ENTRY]) == (ENTRY,)
        assert child.stdin is not None
        child.stdin.close()
        child.wait()

        assert caller.entitled([ENTRY]) == ()
        caller.close()
        connection.close()


def test_a_caller_that_became_another_program_is_that_program(listener: socket.socket) -> None:
    """After exec the same process has the rights of its new executable only."""
    become = (
        "import os,socket,sys; s = socket.socket(1); s.connect(sys.argv[1]);"
        "s.set_inheritable(True); os.dup2(s.fileno(), 9); os.execv('/bin/cat', ['cat'])"
    )
    path = listener.getsockname()
    with subprocess.Popen(
        [sys.executable, "-c", become, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        connection, _ = listener.accept()
        caller = Caller.of(connection)
        assert caller is not None
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"ready\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"ready\n"

        assert caller.entitled([ENTRY]) == ()
        cat = Entry("spiffe://example.org/cat", os.path.realpath("/bin/cat"))
        assert caller.entitled([ENTRY, cat]) == (cat,)
        child.stdin.close()
        caller.close()
        connection.close()
