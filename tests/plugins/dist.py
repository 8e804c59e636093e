"""The wheel and the source distribution, built once per session, as `make dist` builds them."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from source_tree import REPOSITORY

from plugins.canaries import Canaries

DEBIAN = Path("/usr/bin/python3")  # others may run it, unlike one under root's home
NO_DEBIAN = f"{DEBIAN} is no Python 3.11 with venv and ensurepip"


def has_debian() -> bool:
    """Whether the distribution's Python can make an environment for taskmint."""
    probe = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
    return DEBIAN.exists() and not subprocess.run([DEBIAN, "-c", probe], check=False).returncode


@dataclass(frozen=True)
class Dist:
    """The two files, alone in their directory."""

    wheel: Path
    sdist: Path

    @property
    def directory(self) -> Path:
        """Where both are."""
        return self.wheel.parent


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> Path:
    """A copy of what git tracks or would track, as it is now: what `git clone` would give."""
    directory = tmp_path_factory.mktemp("checkout") / "taskmint"
    canaries.allow(directory)  # tests that plant a constant have it in their own text
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if (REPOSITORY / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, directory / name)
    return directory


@pytest.fixture(scope="session")
def dist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Dist:
    """Build both from the working tree with the pinned tools, without a network."""
    directory = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(directory)]
    subprocess.run(build, cwd=checkout, check=True, capture_output=True, timeout=60)
    (wheel,) = directory.glob("*.whl")
    (sdist,) = directory.glob("*.tar.gz")
    return Dist(wheel, sdist)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every pinned wheel that building, running and trying taskmint needs, for /usr/bin/python3."""
    if not has_debian():
        pytest.skip(NO_DEBIAN)
    version = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    asked = subprocess.run([DEBIAN, "-c", version], capture_output=True, text=True, check=True)
    pinned = (REPOSITORY / "requirements" / f"{name}.txt" for name in ("build", "demo"))
    directory = tmp_path_factory.mktemp("wheels")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary=:all:", f"--python-version={asked.stdout.strip()}", "--require-hashes"),
        *(word for file in pinned for word in ("-r", str(file))),
        f"--dest={directory}",
    ]
    subprocess.run(command, check=True, timeout=300)
    return directory
