"""The units load, harden what they promise to, and name what the daemon expects."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from source_tree import REPOSITORY

UNITS = sorted((REPOSITORY / "systemd").glob("taskmint*"))
SERVICE = REPOSITORY / "systemd" / "taskmint.service"
INTERPRETER = "/opt/taskmint/bin/python"
THRESHOLD = 13  # ten times the exposure level, reliability.md: at most 1.3

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze."""
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=30
    )


@needs_systemd
def test_the_units_verify(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing, given an interpreter's path that exists here."""
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8")
        (tmp_path / unit.name).write_text(text.replace(INTERPRETER, sys.executable))
    result = analyze("verify", *(str(tmp_path / unit.name) for unit in UNITS))

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@needs_systemd
def test_the_service_is_hardened() -> None:
    """The exposure that systemd computes stays at 1.3 or below."""
    result = analyze("security", "--offline=true", f"--threshold={THRESHOLD}", str(SERVICE))

    assert result.returncode == 0, result.stdout[-400:]


def test_the_sockets_are_those_the_daemon_looks_for() -> None:
    """Names of descriptors, paths and modes as in decisions.md; both belong to the service."""
    found = {}
    for unit in UNITS:
        if unit.suffix == ".socket":
            parser = configparser.ConfigParser()
            parser.read(unit, encoding="utf-8")
            section = parser["Socket"]
            assert section["Service"] == SERVICE.name
            found[section["FileDescriptorName"]] = (section["ListenStream"], section["SocketMode"])

    assert found == {
        "task": ("/run/taskmint/task.sock", "0660"),
        "admin": ("/run/taskmint/admin.sock", "0600"),
    }


def test_the_service_never_gives_up() -> None:
    """Revocation depends on the daemon: it is restarted without limit."""
    text = SERVICE.read_text(encoding="utf-8")

    assert "Restart=always" in text
    assert "StartLimitIntervalSec=0" in text
