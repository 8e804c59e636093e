"""The wheel holds the whole program and nothing else, and works where the checkout is not."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from source_tree import PACKAGE, REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as the Makefile and the Dockerfile build it: from pinned tools."""
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", directory, REPOSITORY], check=True, timeout=50)
    (built,) = directory.iterdir()
    return built


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    """Modules, the typed marker, SQL; no test, no config, no cache."""
    expected = {
        str(Path("taskmint") / path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert held == expected
    assert "taskmint/py.typed" in held


def test_the_wheel_works_on_its_own(wheel: Path, tmp_path: Path) -> None:
    """Installed elsewhere, the command starts from there and shows its commands."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--target", str(tmp_path), str(wheel)], check=True, timeout=50)
    unmeasured = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    code = "import taskmint, taskmint.cli.entry as entry; print(taskmint.__path__); entry.main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        env={**unmeasured, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert result.returncode == 0, result.stderr
    assert str(tmp_path) in result.stdout
    assert "Run a command inside a task." in result.stdout
