"""A leashed program ends with its owner, whatever becomes of the owner, and so does its rest."""

import asyncio
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from taskmint.devstack.process import Program, StackError, leashed, removed_afterwards, start

# It forks a grandchild into a session of its own, says its pid, and waits.
BREEDER = (
    "import os, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        print(os.getpid(), flush=True)\n"
    "        time.sleep(600)\n"
    "    os._exit(0)\n"
    "time.sleep(600)\n"
)
# An owner as `dev up` is one: a directory that goes, a program in it that breeds.
OWNER = """
import asyncio, sys
from pathlib import Path
from taskmint.devstack.process import Program, leashed, removed_afterwards

async def own(directory):
    async with removed_afterwards(directory):
        program = Program("breeder", (sys.executable, "-c", sys.argv[2]), directory / "log")
        async with leashed(program, directory) as running:
            print(running.pid, flush=True)
            await asyncio.sleep(600)

asyncio.run(own(Path(sys.argv[1])))
"""


def breeder(directory: Path) -> Program:
    """A program with a grandchild that nobody waits for."""
    return Program("breeder", (sys.executable, "-c", BREEDER), directory / "log")


async def first_line(log: Path) -> int:
    """Wait for the number that the program writes when it is ready."""
    await until(lambda: log.exists() and log.read_text().endswith("\n"))
    return int(await asyncio.to_thread(log.read_text))


async def until(what: Callable[[], bool]) -> None:
    """Wait up to ten seconds for what another process does to files."""

    def wait() -> None:
        deadline = time.monotonic() + 10
        while not what():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    await asyncio.to_thread(wait)


def parent(pid: int) -> int:
    """Return the parent of a process: the leash, for a leashed program (proc(5), stat)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ended(pidfd: int) -> bool:
    """Wait up to ten seconds for a process to end."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(10_000))


async def test_leaving_ends_the_program_and_what_it_left_behind(tmp_path: Path) -> None:
    """A daemonised grandchild, in a session of its own, goes too."""
    async with leashed(breeder(tmp_path), tmp_path) as running:
        held = [os.pidfd_open(running.pid), os.pidfd_open(await first_line(tmp_path / "log"))]

    assert [ended(pidfd) for pidfd in held] == [True, True]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_owners_death_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    """After SIGKILL nothing of ours runs and the directory is gone, without anybody's help."""
    directory = tmp_path / "stack"
    directory.mkdir()
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWNER, str(directory), BREEDER), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    pids = [int(word) for word in (await owner.stdout.readline()).split()]
    pids += [parent(pids[0]), await first_line(directory / "log")]
    held = [os.pidfd_open(pid) for pid in pids]

    owner.send_signal(number)
    await owner.wait()

    assert all([await asyncio.to_thread(ended, pidfd) for pidfd in held])
    await until(lambda: not directory.exists())


async def test_the_leashs_death_ends_the_program(tmp_path: Path) -> None:
    """Even the process that guards can be killed: the program dies with it."""
    program = Program("sleep", ("sleep", "600"), tmp_path / "log")
    async with leashed(program, tmp_path) as running:
        pidfd = os.pidfd_open(running.pid)
        os.kill(parent(running.pid), signal.SIGKILL)

        assert await asyncio.to_thread(ended, pidfd)


async def test_a_stubborn_program_is_killed_after_its_grace(tmp_path: Path) -> None:
    """What ignores the request to stop gets SIGKILL, and its status says so."""
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(0, flush=True);"
    command = (sys.executable, "-c", stubborn + "time.sleep(600)")
    program = Program("stubborn", command, tmp_path / "log", grace=0.2)
    running = await start(program, tmp_path)
    await first_line(tmp_path / "log")

    assert await running.stop() == 128 + signal.SIGKILL


async def test_an_orderly_stop_uses_the_programs_own_signal(tmp_path: Path) -> None:
    """The program chooses what asks it to stop; its exit status comes back."""
    polite = (
        "import signal, sys, time; signal.signal(2, lambda *_: sys.exit(7));"
        "print(0, flush=True); time.sleep(600)"
    )
    command = (sys.executable, "-c", polite)
    running = await start(
        Program("polite", command, tmp_path / "log", stop=signal.SIGINT), tmp_path
    )
    await first_line(tmp_path / "log")

    assert await running.stop() == 7
    assert not running.running


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """The status is 127, as a shell's, and the log says why."""
    async with leashed(Program("no", ("/no/such",), tmp_path / "log"), tmp_path) as running:
        assert await running.wait() == 127

    assert "/no/such: No such file or directory" in (tmp_path / "log").read_text()


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """Neither leash nor janitor starts without the directory that they hold."""
    with pytest.raises(StackError, match="janitor could not be started"):
        async with removed_afterwards(tmp_path / "no"):
            pass
    with pytest.raises(StackError, match="sleep could not be started"):
        await start(Program("sleep", ("sleep", "1"), tmp_path / "log"), tmp_path / "no")


async def test_the_directory_goes_after_the_last_program(tmp_path: Path) -> None:
    """The janitor waits for every leash that holds the directory."""
    directory = tmp_path / "stack"
    directory.mkdir()
    program = Program("sleep", ("sleep", "600"), tmp_path / "log")
    async with removed_afterwards(directory), leashed(program, directory):
        assert directory.exists()

    assert not directory.exists()
