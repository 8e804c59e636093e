"""P7 on a disk that is full, or that fails: refused with a reason, every promised row intact."""

import asyncio
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import IO

import pytest

from ledger import independent_verifier
from ledger.lives import a_task, life, written
from ledger.test_crash import command, environment, promised, stored

# A mount namespace of our own, with a user namespace where we are not root: nothing to clean up.
NAMESPACE = ["unshare", "--map-root-user", "--mount"]
VERIFIER = Path(independent_verifier.__file__)
SMALL_DISK = 'mount -t tmpfs -o size=600k,mode=700 none "$1"; fallocate -l 128k "$1/filler"; '


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """Return where a small tmpfs can be mounted, or skip saying why not."""
    probe = subprocess.run(
        [*NAMESPACE, "mount", "-t", "tmpfs", "none", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode:
        pytest.skip(f"no mount namespace here: {probe.stderr.strip()}")
    return tmp_path


@contextmanager
def on_small_disk(directory: Path) -> Iterator["Disk"]:
    """Run the writing process on a disk of 600 KiB with a 128 KiB file in the way."""
    writer = " ".join(f'"{word}"' for word in command(directory / "ledger", 2000))
    with subprocess.Popen(
        [*NAMESPACE, "sh", "-euc", SMALL_DISK + "exec " + writer, "sh", str(directory)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        yield Disk(child, child.stdin, child.stdout)
        child.stdin.close()
        child.wait()


class Disk:
    """The writing process and the disk that only it sees."""

    def __init__(self, child: subprocess.Popen[str], orders: IO[str], told: IO[str]) -> None:
        self._child = child
        self._orders = orders
        self._told = told

    def run(self, *words: str) -> str:
        """Run a command that sees the disk; return what it prints."""
        enter = ["nsenter", "--user", "--mount", "--preserve-credentials", f"-t{self._child.pid}"]
        return subprocess.run([*enter, *words], capture_output=True, text=True, check=True).stdout

    def until_refused(self) -> tuple[int, str]:
        """Return how many rows were promised before the next refusal, and its reason."""
        count = 0
        for line in self._told:
            if line.startswith("refused"):
                return count, line
            count = int(line)
        raise AssertionError("the writer ended without a refusal")

    def go_on(self) -> None:
        """Let it write again once the ledger is ready."""
        self._orders.write("again\n")
        self._orders.flush()


def test_a_full_disk_loses_nothing_and_heals(small_disk: Path) -> None:
    """Rows until the disk is full, a refusal, room again, more rows: one whole chain."""
    with on_small_disk(small_disk) as disk:
        path = small_disk / "ledger" / "ledger.db"
        before, reason = disk.until_refused()
        kept = int(disk.run(sys.executable, str(VERIFIER), str(path)))
        disk.run("rm", str(small_disk / "filler"))
        disk.go_on()
        after, again = disk.until_refused()
        kept_after = int(disk.run(sys.executable, str(VERIFIER), str(path)))

    assert "full" in reason
    assert "full" in again
    assert 0 < before <= kept
    assert kept < after <= kept_after


async def test_a_copy_on_a_medium_without_writes_is_read(
    small_disk: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A backup on read-only media is verified; one with a write-ahead log left says why not."""
    path = await written(tmp_path_factory.mktemp("source") / "ledger", *life(a_task()))
    script = """
        mount -t tmpfs none "$1"
        cp "$2" "$1/ledger.db"
        [ -z "$4" ] || touch "$1/ledger.db-wal"
        mount -o remount,ro "$1"
        exec "$3" -m taskmint audit verify --ledger "$1/ledger.db"
    """

    async def verified(wal: str) -> tuple[int | None, str, str]:
        words = ("sh", str(small_disk), str(path), sys.executable, wal)
        process = await asyncio.create_subprocess_exec(
            *NAMESPACE, "sh", "-euc", script, *words, stdout=PIPE, stderr=PIPE
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    code, out, _ = await verified("")
    assert (code, out[:14]) == (0, "intact: 5 rows")
    code, _, err = await verified("left behind")
    assert code == 3
    assert "cannot be read: SQLite says" in err


def test_a_failing_disk_is_a_lasting_fault(tmp_path: Path) -> None:
    """
    A write that fails otherwise stops appending for good; what was promised is intact.

    The kernel's file size limit makes write(2) fail with EFBIG, an I/O error to SQLite.
    """
    failed = subprocess.run(
        command(tmp_path / "ledger", 5000),
        env=environment(LONGEST_WAIT="2.5"),
        input="again\n",
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)),
    )
    path = tmp_path / "ledger" / "ledger.db"

    assert "refused SQLite says: disk I/O error" in failed.stdout
    assert "TimeoutError" in failed.stderr  # it was told to go on, and was never ready again
    assert 0 < promised(failed.stdout) <= stored(path)
    assert independent_verifier.verify(path) == []
