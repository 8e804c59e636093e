"""P8 for the ledger: killed at any point of a commit, it holds what it promised, and goes on."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from ledger import independent_verifier
from ledger.lives import a_task, intent, ledger_at
from source_tree import REPOSITORY
from taskmint.failpoints import Failpoint
from taskmint.ledger.connection import connect_reader

CHILD = Path(__file__).parent / "writing_child.py"


def command(directory: Path, rows: int, at_once: int = 1) -> list[str]:
    """Return the command line of a writing process."""
    return [sys.executable, str(CHILD), str(directory), str(rows), str(at_once)]


def environment(**more: str) -> dict[str, str]:
    """Return its environment."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests"), **more}


def promised(output: str) -> int:
    """Return how many rows were promised durable."""
    return max((int(line) for line in output.split("\n") if line.isdigit()), default=0)


def stored(path: Path) -> int:
    """Count the rows with SQLite alone."""
    with closing(connect_reader(path)) as database:
        (count,) = database.execute("SELECT count(*) FROM entries").fetchone()
        return int(count)


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize(
    ("point", "durable"), [(Failpoint.LEDGER_BEFORE_COMMIT, 0), (Failpoint.LEDGER_AFTER_COMMIT, 1)]
)
async def test_kill_9_around_a_commit(
    tmp_path: Path, point: Failpoint, durable: int, nth: int
) -> None:
    """Before the n-th commit its row is not there; after it, it is, though nobody was told."""
    killed = await asyncio.to_thread(
        subprocess.run,
        command(tmp_path / "ledger", 5),
        env=environment(TASKMINT_FAILPOINT=f"{point}:{nth}:kill"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    path = tmp_path / "ledger" / "ledger.db"

    assert killed.returncode == -signal.SIGKILL
    assert promised(killed.stdout) == nth - 1
    assert independent_verifier.verify(path) == []
    async with ledger_at(tmp_path / "ledger") as ledger:
        assert ledger.head.position == nth - 1 + durable
        assert len((await ledger.unfinished()).tasks) == nth - 1 + durable
        await ledger.append(intent(a_task()))
    assert independent_verifier.verify(path) == []


@pytest.mark.parametrize("milliseconds", [1, 3, 7, 15, 40])
def test_kill_9_at_any_moment_of_a_busy_writer(tmp_path: Path, milliseconds: int) -> None:
    """Groups in flight are there wholly or not at all, and nothing that was promised is lost."""
    with subprocess.Popen(
        command(tmp_path / "ledger", 100_000, at_once=20),
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        said = child.stdout.readline()
        time.sleep(milliseconds / 1000)
        child.kill()
        said += child.stdout.read()
    path = tmp_path / "ledger" / "ledger.db"

    assert independent_verifier.verify(path) == []
    assert promised(said) <= stored(path) <= promised(said) + 20
