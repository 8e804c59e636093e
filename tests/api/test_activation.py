"""Listening sockets: taken over from systemd, or bound without a moment of weakness."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from identity.workload import can_unshare
from taskmint.api.activation import SocketFile, bound_socket, sockets_from_systemd
from taskmint.errors import Code, TaskmintError

ONE_SOCKET: Final = {"LISTEN_PID": "own", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "task"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of our own, not writable by everybody."""
    tmp_path.chmod(0o755)
    return tmp_path


async def refused(file: SocketFile) -> Code:
    """Return the code with which binding is refused; nothing is left behind but the lock."""
    before = listed(file.path.parent)
    with pytest.raises(TaskmintError) as raised:
        async with bound_socket(file):
            raise AssertionError("must not be bound")
    assert listed(file.path.parent) == before
    return raised.value.code


def listed(directory: Path) -> set[str]:
    """What is in a directory, but for lock files."""
    if not directory.is_dir():
        return set()
    return {path.name for path in directory.iterdir() if path.suffix != ".lock"}


async def output_of(*command: str) -> str:
    """Run a program to its end; returns what it printed."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    return printed.decode()


def leave_stale(path: Path) -> None:
    """Leave a socket file behind on which nobody listens."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


async def test_a_bound_socket_listens_with_its_mode_and_goes_with_us(directory: Path) -> None:
    """Mode as asked; callers can connect; the file is gone afterwards."""
    path = directory / "task.sock"
    async with bound_socket(SocketFile(path, 0o620)) as sock:
        found = path.lstat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o620
        assert not sock.get_inheritable()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert listed(directory) == set()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to any group")
async def test_a_bound_socket_belongs_to_its_group(directory: Path) -> None:
    """Group and mode decide who may connect."""
    path = directory / "task.sock"
    async with bound_socket(SocketFile(path, 0o660, group=12345)):
        assert path.lstat().st_gid == 12345


async def test_a_wide_umask_opens_nothing(directory: Path) -> None:
    """The file is private from its first moment, whatever the umask."""
    path = directory / "task.sock"
    script = (
        "import os, socket, sys, time\n"
        "os.umask(0)\n"
        "from pathlib import Path\n"
        "from taskmint.api import activation\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        "activation._bind(sock, Path(sys.argv[1]))\n"
        "print(oct(os.lstat(sys.argv[1]).st_mode & 0o777))\n"
    )
    assert await output_of(sys.executable, "-c", script, str(path)) == "0o600\n"


async def test_a_stale_socket_of_ours_is_replaced(directory: Path) -> None:
    """A daemon that was killed leaves its file; nobody listens, so it is removed."""
    path = directory / "task.sock"
    leave_stale(path)
    async with bound_socket(SocketFile(path)):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


async def test_a_second_daemon_is_refused(directory: Path) -> None:
    """socket_in_use, and the first goes on being reached."""
    path = directory / "task.sock"
    async with bound_socket(SocketFile(path)) as first:
        assert await refused(SocketFile(path)) is Code.SOCKET_IN_USE
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            first.accept()[0].close()


async def test_a_foreign_listener_is_not_taken_over(directory: Path) -> None:
    """Somebody who knows nothing of our lock, also when its queue is full."""
    path = directory / "task.sock"
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen(0)
        for _ in range(3):  # each of our questions stays in its queue
            assert await refused(SocketFile(path)) is Code.SOCKET_IN_USE


async def test_two_that_start_at_once_do_not_both_win(directory: Path) -> None:
    """Over one stale file, of many that start together exactly one listens."""
    path = directory / "task.sock"
    leave_stale(path)
    started, release = asyncio.Semaphore(0), asyncio.Event()
    outcomes: list[str] = []

    async def start() -> None:
        try:
            async with bound_socket(SocketFile(path)):
                outcomes.append("listening")
                started.release()
                await release.wait()
        except TaskmintError as error:
            outcomes.append(error.code)
            started.release()

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(start())
        for _ in range(8):
            await started.acquire()
        release.set()
    assert sorted(outcomes) == ["listening"] + ["socket_in_use"] * 7


def make_file(path: Path) -> None:
    """A plain file."""
    path.write_text("precious")


def make_link(path: Path) -> None:
    """A link to a socket elsewhere."""
    leave_stale(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("make", [make_file, make_link, Path.mkdir])
async def test_what_is_not_a_socket_is_left_alone(directory: Path, make: object) -> None:
    """Row 28: files, links and directories are not ours to remove."""
    assert callable(make)
    make(directory / "task.sock")

    assert await refused(SocketFile(directory / "task.sock")) is Code.CONFIG_INVALID


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's file")
async def test_another_users_socket_is_left_alone(directory: Path) -> None:
    """Row 28: a socket that somebody put there first is theirs."""
    leave_stale(directory / "task.sock")
    os.chown(directory / "task.sock", 12345, 12345)

    assert await refused(SocketFile(directory / "task.sock")) is Code.CONFIG_INVALID


async def test_a_directory_that_everybody_may_write_to_is_refused(directory: Path) -> None:
    """Row 28: there, anybody could put another socket in its place; sticky or not."""
    for mode in (0o777, 0o1777):
        directory.chmod(mode)
        assert await refused(SocketFile(directory / "task.sock")) is Code.CONFIG_INVALID


async def test_a_directory_that_is_not_there_is_refused(directory: Path) -> None:
    """A config pointing nowhere is said, not repaired."""
    assert await refused(SocketFile(directory / "no" / "task.sock")) is Code.CONFIG_INVALID


async def test_a_path_that_is_too_long_is_refused(directory: Path) -> None:
    """sun_path has 108 bytes, the last of them zero."""
    assert await refused(SocketFile(directory / ("x" * 108))) is Code.CONFIG_INVALID


@pytest.mark.skipif(not can_unshare("--user"), reason="this machine lets us make no namespaces")
async def test_a_group_that_cannot_be_given_is_refused(directory: Path) -> None:
    """Then nobody is let in with the wrong group; the file is taken away again."""
    script = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from taskmint.api.activation import SocketFile, bound_socket\n"
        "from taskmint.errors import TaskmintError\n"
        "async def main():\n"
        "    try:\n"
        "        async with bound_socket(SocketFile(Path(sys.argv[1]), group=54321)):\n"
        "            print('bound')\n"
        "    except TaskmintError as error:\n"
        "        print(error.code, os.path.lexists(sys.argv[1]))\n"
        "asyncio.run(main())\n"
    )
    printed = await output_of(
        "unshare", "--user", sys.executable, "-c", script, str(directory / "task.sock")
    )
    assert printed == "config_invalid False\n"


async def test_a_socket_that_another_put_in_our_place_is_not_removed(directory: Path) -> None:
    """On leaving only the very file that was bound is unlinked."""
    path = directory / "task.sock"
    async with bound_socket(SocketFile(path)):
        path.unlink()
        leave_stale(path)
    assert path.exists()


# --- socket activation -----------------------------------------------------------------------


def activated(directory: Path, environment: dict[str, str], *, listen: bool = True) -> str:
    """Start a child as systemd does, with one socket as descriptor 3; returns what it printed."""
    program = (
        "import os, sys\n"
        "from taskmint.api.activation import sockets_from_systemd\n"
        "from taskmint.errors import TaskmintError\n"
        "if os.environ.get('LISTEN_PID') == 'own':\n"
        "    os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "try:\n"
        "    sockets = sockets_from_systemd(os.environ)\n"
        "except TaskmintError as error:\n"
        "    print(error.code)\n"
        "else:\n"
        "    print({name: (sock.getsockname()[-9:], sock.get_inheritable())\n"
        "           for name, sock in sockets.items()})\n"
        "    print([name for name in os.environ if name.startswith('LISTEN_')])\n"
    )
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(directory / "task.sock"))
        if listen:
            sock.listen()
        launcher = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
            "os.execv(sys.executable, [sys.executable, '-c', sys.argv[2]])"
        )
        run = subprocess.run(
            [sys.executable, "-ISc", launcher, str(sock.fileno()), program],
            env={"PATH": os.environ["PATH"]} | environment,
            pass_fds=[sock.fileno()],
            check=True,
            capture_output=True,
            text=True,
        )
    return run.stdout


def test_sockets_are_taken_over_by_name(directory: Path) -> None:
    """sd_listen_fds(3): descriptors from 3, names beside them; then the variables are gone."""
    printed = activated(directory, ONE_SOCKET)

    assert printed == "{'task': ('task.sock', False)}\n[]\n"


def test_variables_meant_for_another_process_are_left_alone(directory: Path) -> None:
    """LISTEN_PID decides; a child of a daemon must not take its parent's sockets."""
    printed = activated(directory, ONE_SOCKET | {"LISTEN_PID": "1"})

    assert printed.startswith("{}\n")


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"LISTEN_FDS": "many", "LISTEN_FDNAMES": "task"}, id="no number"),
        pytest.param({"LISTEN_FDS": "1"}, id="no name"),
        pytest.param({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "task:task"}, id="one name for two"),
        pytest.param({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, id="more names than sockets"),
        pytest.param({"LISTEN_FDS": "9", "LISTEN_FDNAMES": "a:b:c:d:e:f:g:h:i"}, id="not there"),
    ],
)
def test_what_systemd_did_not_do_right_is_refused(
    directory: Path, environment: dict[str, str]
) -> None:
    """config_invalid, with what to write in the unit."""
    assert activated(directory, environment | {"LISTEN_PID": "own"}) == "config_invalid\n"


def test_a_socket_that_does_not_listen_is_refused(directory: Path) -> None:
    """ListenDatagram= and friends are not doors of ours."""
    assert activated(directory, ONE_SOCKET, listen=False) == "config_invalid\n"


def test_without_systemd_there_is_nothing_to_take_over() -> None:
    """An empty environment is no error."""
    assert sockets_from_systemd({}) == {}
