"""A copied interpreter is another executable with the same abilities."""

import subprocess
from pathlib import Path

import pytest

import taskmint
from taskmint.devstack.executables import copied_interpreter

ASK = """
import os, sys
import taskmint.errors, grpc
print(os.readlink('/proc/self/exe'), taskmint.__file__, sys.prefix)
"""
DEBIAN = Path("/usr/bin/python3")


def test_a_copy_is_itself_and_finds_everything(tmp_path: Path) -> None:
    """The kernel shows the copy's path; our modules and our libraries are there."""
    python = copied_interpreter(tmp_path / "copy")

    told = subprocess.run(
        [python, "-c", ASK], env={}, capture_output=True, text=True, check=True
    ).stdout.split()

    assert told == [str(python), str(taskmint.__file__), str(tmp_path / "copy")]


def test_a_copy_of_a_copy_works(tmp_path: Path) -> None:
    """The daemon's interpreter can make one for a workload."""
    first = copied_interpreter(tmp_path / "first")
    make = (
        "import sys, pathlib; from taskmint.devstack.executables import copied_interpreter;"
        "copied_interpreter(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([first, "-c", make, tmp_path / "second"], env={}, check=True)

    second = tmp_path / "second" / "bin" / "python"
    told = subprocess.run(
        [second, "-c", ASK], env={}, capture_output=True, text=True, check=True
    ).stdout.split()

    assert told[0] == str(second)


@pytest.mark.skipif(not DEBIAN.exists(), reason="there is no interpreter of the distribution")
def test_the_distributions_interpreter_can_be_copied(tmp_path: Path) -> None:
    """Debian's python3 is linked statically and lives under /usr; it works alike."""
    make = (
        "import sys, pathlib; from taskmint.devstack.executables import copied_interpreter;"
        "copied_interpreter(pathlib.Path(sys.argv[1]))"
    )
    ours = str(Path(str(taskmint.__file__)).parents[1])
    subprocess.run([DEBIAN, "-c", make, tmp_path / "copy"], env={"PYTHONPATH": ours}, check=True)

    copy = tmp_path / "copy" / "bin" / "python"
    ask = "import os, taskmint.errors; print(os.readlink('/proc/self/exe'))"
    told = subprocess.run([copy, "-c", ask], env={}, capture_output=True, text=True, check=True)

    assert told.stdout.strip() == str(copy)
