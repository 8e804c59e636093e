"""A stack's directory is its own: made fresh, gone afterwards, swept when left over."""

import asyncio
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from taskmint.devstack.process import StackError
from taskmint.devstack.stack_directory import stack_directory

# An owner that is killed together with its janitor: the worst that can happen.
OWNER = """
import asyncio, os, select, signal, sys
from pathlib import Path
from taskmint.devstack.stack_directory import stack_directory

async def own():
    async with stack_directory(Path(sys.argv[1]) if sys.argv[1:] else None) as directory:
        (directory / "file").touch()
        me = os.getpid()
        for pid in Path(f"/proc/self/task/{me}/children").read_text().split():
            gone = os.pidfd_open(int(pid))
            os.kill(int(pid), signal.SIGKILL)
            select.select([gone], [], [])
        print(directory, flush=True)
        await asyncio.Event().wait()

asyncio.run(own())
"""


async def leftover(*arguments: str) -> Path:
    """Leave a directory behind."""
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWNER, *arguments), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    directory = Path((await owner.stdout.readline()).decode().strip())
    owner.send_signal(signal.SIGKILL)
    await owner.wait()
    return directory


async def test_it_is_private_but_for_passing_through_and_gone_afterwards() -> None:
    """Nobody lists it, everybody may reach a socket whose path they know."""
    async with stack_directory() as directory:
        assert directory.parent == Path(tempfile.gettempdir())
        assert directory.stat().st_mode & 0o777 == 0o711

    assert not directory.exists()


async def test_the_next_stack_sweeps_what_was_left() -> None:
    """A leftover goes; the directory of a stack that runs stays."""
    async with stack_directory() as running:
        left = await leftover()
        assert left.exists()

        async with stack_directory():
            assert not left.exists()
            assert running.exists()


async def test_a_wanted_directory_is_used_again_after_a_crash(tmp_path: Path) -> None:
    """What an earlier stack left in it is removed first."""
    wanted = tmp_path / "stack"
    assert await leftover(str(wanted)) == wanted

    async with stack_directory(wanted) as directory:
        assert directory == wanted
        assert not (directory / "file").exists()
    assert not wanted.exists()


async def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    """What is not ours, or is in use, is neither used nor removed."""
    (tmp_path / "precious").touch()

    with pytest.raises(StackError, match="not empty"):
        async with stack_directory(tmp_path):
            pass
    assert (tmp_path / "precious").exists()

    async with stack_directory(tmp_path / "one") as directory:
        with pytest.raises(StackError, match="not empty, or another stack uses it"):
            async with stack_directory(directory):
                pass
        assert directory.exists()
