"""Wheel and sdist hold the whole program and nothing else, and install without the checkout."""

import configparser
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from source_tree import PACKAGE

from plugins.dist import DEBIAN, Dist

# What packaging tools find in the environment: pinned wheels, and no index.
SECONDS = 120


def offline(wheels: Path) -> dict[str, str]:
    """Let pip take its wheels from a directory alone; nothing of ours is on the path."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_NO_COMPILE": "1"}


def contents(wheel: Path) -> dict[str, str]:
    """Every file of a wheel with its digest; the record of digests itself left out."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if not name.endswith("/RECORD")
        }


def test_the_wheel_holds_every_file_of_the_package(dist: Dist) -> None:
    """Modules, the typed marker, SQL, and the man page; no test, no config, no cache."""
    expected = {
        str(Path("taskmint") / path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in contents(dist.wheel) if ".dist-info/" not in name}

    manual = {name for name in held if name.endswith(".data/data/share/man/man1/taskmint.1")}
    assert len(manual) == 1
    assert held - manual == expected
    assert "taskmint/py.typed" in held


def test_the_wheel_brings_one_command_and_says_what_it_needs(dist: Dist) -> None:
    """`taskmint`, nothing else on anybody's PATH; a Python and a licence are named."""
    with zipfile.ZipFile(dist.wheel) as archive:
        (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(f"{info}/entry_points.txt").decode())
        metadata = archive.read(f"{info}/METADATA").decode()

    assert {name: dict(scripts[name]) for name in scripts.sections()} == {
        "console_scripts": {"taskmint": "taskmint.cli.entry:main"}
    }
    assert "Requires-Python: >=3.11" in metadata
    assert "License-Expression: Apache-2.0" in metadata


def test_the_sdist_makes_the_same_wheel(dist: Dist, wheels: Path, tmp_path: Path) -> None:
    """Built again, in isolation, from the source distribution alone: the same files."""
    with tarfile.open(dist.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path))
    subprocess.run([*build, str(dist.sdist)], env=offline(wheels), check=True, timeout=SECONDS)
    (again,) = tmp_path.glob("*.whl")

    assert contents(again) == contents(dist.wheel)
    assert {"systemd/taskmint.service", "config/taskmint.yaml", "requirements/runtime.txt"} <= names


def test_it_installs_in_a_fresh_environment(dist: Dist, wheels: Path, tmp_path: Path) -> None:
    """With what it asks for and no more; the command and a typed import work from elsewhere."""
    venv = tmp_path / "venv"
    subprocess.run([DEBIAN, "-m", "venv", venv], check=True, timeout=SECONDS)
    python = str(venv / "bin" / "python")
    install = (python, "-m", "pip", "install", "--quiet", str(dist.wheel))
    subprocess.run(install, env=offline(wheels), check=True, timeout=SECONDS)
    subprocess.run([python, "-m", "pip", "check"], check=True, timeout=SECONDS)
    code = "import taskmint.client.client as c, pathlib; print(c.__file__)"
    shown = subprocess.run(
        [python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    helped = subprocess.run(
        [venv / "bin" / "taskmint", "--help"], capture_output=True, text=True, check=True
    )

    assert shown.stdout.startswith(str(venv))
    assert "Run a command inside a task." in helped.stdout


@pytest.mark.skipif(shutil.which("pipx") is None, reason="pipx is not installed")
def test_pipx_installs_it(dist: Dist, wheels: Path, tmp_path: Path) -> None:
    """One command on the PATH, in an environment that is pipx's own; it asks the index for pip."""
    env = {
        **{name: value for name, value in offline(wheels).items() if name != "PIP_NO_INDEX"},
        "PIPX_HOME": str(tmp_path / "home"),
        "PIPX_BIN_DIR": str(tmp_path / "bin"),
        "PIPX_MAN_DIR": str(tmp_path / "man"),
    }
    install = ("pipx", "install", "--python", str(DEBIAN), str(dist.wheel))
    done = subprocess.run(
        install, env=env, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    version = subprocess.run(
        [tmp_path / "bin" / "taskmint", "--help"], capture_output=True, text=True, check=True
    )

    assert "Usage: " in version.stdout
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["taskmint"]
