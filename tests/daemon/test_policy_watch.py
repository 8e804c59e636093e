"""The policy files, looked at: what is a change, and that a flurry of changes is one reload."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from taskmint.daemon.policy_watch import Fingerprint, fingerprint, watch

BRIEF = 0.01


def write(path: Path, text: str) -> None:
    """Write a file as an admin does."""
    path.write_text(text)


def replace(directory: Path) -> None:
    """Put another file in the place of one, as configuration managers do."""
    write(directory / "new", "version: 1")
    (directory / "new").replace(directory / "a.yaml")


@pytest.mark.parametrize(
    "change",
    [
        lambda directory: write(directory / "a.yaml", "version: 2"),
        lambda directory: write(directory / "b.yaml", "version: 1"),
        lambda directory: (directory / "a.yaml").unlink(),
        lambda directory: (directory / "a.yaml").chmod(0o666),
        lambda directory: os.utime(directory / "a.yaml", ns=(1, 1)),
        replace,
    ],
)
def test_every_change_of_a_policy_file_shows(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """Written, added, removed, opened to others, replaced."""
    write(tmp_path / "a.yaml", "version: 1")
    before = fingerprint([str(tmp_path)])
    change(tmp_path)

    assert fingerprint([str(tmp_path)]) != before


def test_what_is_no_policy_file_does_not_show(tmp_path: Path) -> None:
    """An editor's swap file beside it, and looking again."""
    write(tmp_path / "a.yaml", "version: 1")
    before = fingerprint([str(tmp_path), str(tmp_path / "a.yaml")])
    write(tmp_path / ".a.yaml.swp", "")
    write(tmp_path / "a.yaml~", "")

    assert fingerprint([str(tmp_path), str(tmp_path / "a.yaml")]) == before


def test_a_file_that_comes_and_goes_shows(tmp_path: Path) -> None:
    """Also one that is named and not there."""
    place = tmp_path / "a.yaml"
    absent = fingerprint([str(place)])
    write(place, "version: 1")

    assert fingerprint([str(place)]) != absent


@dataclass
class Disk:
    """Files that a test changes by hand, and how often they were read."""

    state: int = 0
    read: int = 0
    reloads: list[int] = field(default_factory=list)
    looks: int = 0
    changing: int = 0

    def now(self) -> Fingerprint:
        """Look; while they are being changed, each look sees something else."""
        self.looks += 1
        if self.changing:
            self.changing -= 1
            self.state += 1
        return ((self.state,),)

    def last_read(self) -> Fingerprint:
        """What the last reload read."""
        return ((self.read,),)

    async def reload(self) -> None:
        """Read, whether or not it is a policy."""
        self.read = self.state
        self.reloads.append(self.state)

    async def watched(self, looks: int) -> None:
        """Watch for so many looks."""
        watching = asyncio.create_task(watch(self.now, self.last_read, self.reload, BRIEF / 10))
        async with asyncio.timeout(20):
            while self.looks < looks:
                await asyncio.sleep(BRIEF / 10)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def test_files_that_stay_as_they_are_are_not_read_again() -> None:
    """Nothing is reloaded without a reason."""
    disk = Disk()
    await disk.watched(5)

    assert disk.reloads == []


async def test_a_flurry_of_changes_is_one_reload() -> None:
    """What is still being written is left alone; then the last state is read, once."""
    disk = Disk(changing=4)
    await disk.watched(12)

    assert disk.reloads == [4]


async def test_a_change_that_somebody_else_read_is_not_read_again() -> None:
    """SIGHUP was faster."""
    disk = Disk(state=3, read=3)
    await disk.watched(5)

    assert disk.reloads == []
