"""The Dockerfile passes its linter and is what the README says of it."""

import re
import subprocess
import sys
from pathlib import Path

from source_tree import REPOSITORY

DOCKERFILE = REPOSITORY / "Dockerfile"


def instructions() -> list[str]:
    """The instructions, continued lines joined, comments left out."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text(encoding="utf-8"))
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_hadolint_finds_nothing() -> None:
    """The linter that comes as a wheel, with all its rules."""
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_image_serves_as_an_ordinary_user() -> None:
    """Two stages on one base that is an argument; the last one has no root and no shell form."""
    lines = instructions()
    last = lines[max(at for at, line in enumerate(lines) if line.startswith("FROM ")) :]

    assert [line for line in lines if line.startswith("FROM ")] == [
        "FROM ${BASE} AS build",
        "FROM ${BASE}",
    ]
    assert "USER 10001:10001" in last
    assert 'ENTRYPOINT ["/opt/taskmint/bin/python", "-I", "-m", "taskmint"]' in last
    assert 'CMD ["serve", "--config", "/etc/taskmint/taskmint.yaml"]' in last


def test_everything_installed_is_pinned() -> None:
    """pip installs by hash, or our own wheel without looking for more."""
    for line in instructions():
        for command in line.split("&&"):
            if "pip install" in command or "pip wheel" in command:
                assert "--require-hashes" in command or "--no-deps" in command
