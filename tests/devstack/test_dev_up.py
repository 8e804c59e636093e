"""`taskmint dev up`: several at once, as root and not, and nothing is left whatever ends it."""

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

import taskmint

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

UP = (sys.executable, "-m", "taskmint", "dev", "up")
DEBIAN = Path("/usr/bin/python3")
OTHER_UID = 33  # www-data, whom every Debian has: initdb asks for the name of its user


class Running:
    """A `dev up` that has said `ready`: what it exported, and everything below it."""

    def __init__(self, process: asyncio.subprocess.Process, exports: dict[str, str]) -> None:
        self.process = process
        self.exports = exports
        self.directory = Path(exports["TASKMINT_DEV_DIRECTORY"])
        self.pidfds = {pid: os.pidfd_open(pid) for pid in below(process.pid)}

    def survivors(self) -> list[int]:
        """Wait for all to end, at most ten seconds; those that did not."""
        deadline = time.monotonic() + 10
        return [pid for pid, fd in self.pidfds.items() if not ended(fd, deadline)]


def below(pid: int) -> list[int]:
    """The process and all its descendants (proc(5), stat: the parent is the fourth field)."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += parents.get(found[-1], [])
    return found


def ended(pidfd: int, deadline: float) -> bool:
    """Wait for a process to end until the deadline."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0, int((deadline - time.monotonic()) * 1000))))


def gone(directory: Path) -> bool:
    """Wait for a directory to go, at most ten seconds."""
    deadline = time.monotonic() + 10
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not directory.exists()


@asynccontextmanager
async def up(*command: str, env: dict[str, str] | None = None) -> AsyncIterator[Running]:
    """Start one and wait for `ready`; whatever the test did, it is gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env=env
    )
    assert process.stdout is not None
    try:
        exports = {}
        while (line := (await process.stdout.readline()).decode().strip()) != "ready":
            assert line.startswith("export "), f"it said {line!r}"
            name, _, value = line.removeprefix("export ").partition("=")
            exports[name] = value
        yield Running(process, exports)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def check(running: Sequence[Running]) -> None:
    """Nothing runs and nothing lies about."""
    for each in running:
        assert each.survivors() == []
        assert gone(each.directory)


async def test_two_at_once_one_interrupted_one_killed(tmp_path: Path) -> None:
    """They share nothing; Ctrl-C ends one with 0, SIGKILL the other; nothing is left."""
    wanted = tmp_path / "s"
    async with AsyncExitStack() as exits:
        first, second = await asyncio.gather(
            exits.enter_async_context(up(*UP)),
            exits.enter_async_context(up(*UP, "--directory", str(wanted))),
        )
        assert len(first.pidfds) > 8
        assert second.directory == wanted
        assert not set(first.exports.values()) & set(second.exports.values())

        first.process.send_signal(signal.SIGINT)
        assert await first.process.wait() == 0
        second.process.send_signal(signal.SIGKILL)
        await second.process.wait()

        await asyncio.to_thread(check, [first, second])


async def test_it_ends_with_the_process_that_started_it() -> None:
    """The shell that runs it is killed: it notices, and goes as after Ctrl-C."""
    shell = ("/bin/sh", "-c", '"$@" & wait', "sh", *UP)
    async with up(*shell) as running:
        running.process.send_signal(signal.SIGKILL)
        await running.process.wait()

        await asyncio.to_thread(check, [running])


@pytest.mark.skipif(
    os.geteuid() != 0 or not DEBIAN.exists() or sys.version_info[:2] != (3, 11),
    reason="needs root, to become an ordinary user, and a python3 of the distribution like ours",
)
async def test_an_ordinary_user_can_do_it_too() -> None:
    """Without any privilege, on an interpreter that everybody may run."""
    home = Path("/var/tmp") / f"taskmint-test-{os.getpid()}"  # noqa: S108 - /tmp may be private
    await asyncio.to_thread(prepare, home)
    user = ("setpriv", f"--reuid={OTHER_UID}", f"--regid={OTHER_UID}", "--clear-groups")
    command = (str(home / "venv" / "bin" / "python"), "-m", "taskmint", "dev", "up")
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        async with up(*user, *command, env=env) as running:
            assert running.directory.stat().st_uid == OTHER_UID
            running.process.send_signal(signal.SIGTERM)
            assert await running.process.wait() == 0

            await asyncio.to_thread(check, [running])
    finally:
        await asyncio.to_thread(shutil.rmtree, home)


def prepare(home: Path) -> None:
    """Make a virtual environment of the distribution's Python that sees what ours sees."""
    home.mkdir(0o755)
    subprocess.run([DEBIAN, "-m", "venv", "--without-pip", home / "venv"], check=True)
    ours = str(Path(str(taskmint.__file__)).parents[1])
    seen = [ours, *(path for path in sys.path if path.endswith("site-packages"))]
    (target,) = (home / "venv" / "lib").glob("python*/site-packages")
    (target / "ours.pth").write_text("".join(f"{path}\n" for path in seen))
