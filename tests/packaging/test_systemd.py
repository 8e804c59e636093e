"""The units load, harden what they promise to, and name what the daemon expects."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from source_tree import REPOSITORY
from taskmint.config import LimitSettings

UNITS = sorted((REPOSITORY / "systemd").glob("taskmint*"))
SERVICE = REPOSITORY / "systemd" / "taskmint.service"
INTERPRETER = "/opt/taskmint/bin/python"
DROP_INS = REPOSITORY / "systemd" / "drop-ins"
NOTIFY_RELOAD_SINCE = 253
RESERVE = 2048  # descriptors for Vault, the ledger, revoking, and what libraries open
THRESHOLD = 13  # ten times the exposure level, reliability.md: at most 1.3

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze."""
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=30
    )


def laid_out(place: Path, *drop_ins: str) -> list[str]:
    """Copies of the units, given an interpreter's path that exists here, and drop-ins beside."""
    (place / f"{SERVICE.name}.d").mkdir(exist_ok=True)
    for path in UNITS:
        text = path.read_text(encoding="utf-8")
        (place / path.name).write_text(text.replace(INTERPRETER, sys.executable))
    for name in drop_ins:
        shutil.copy(DROP_INS / name, place / f"{SERVICE.name}.d")
    return [str(place / path.name) for path in UNITS]


def version() -> int:
    """Which systemd this is."""
    found = re.search(r"systemd (\d+)", analyze("--version").stdout)
    assert found is not None
    return int(found[1])


@needs_systemd
def test_the_units_verify(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing."""
    result = analyze("verify", *laid_out(tmp_path))

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("name", sorted(path.name for path in DROP_INS.iterdir()))
def test_the_drop_ins_verify(name: str, tmp_path: Path) -> None:
    """Each with the units; a type that this systemd does not know yet is said to be unknown."""
    result = analyze("verify", *laid_out(tmp_path, name))
    known = name != "notify-reload.conf" or version() >= NOTIFY_RELOAD_SINCE

    assert (result.stderr == "") is known, result.stderr
    assert known or "Failed to parse service type" in result.stderr


@needs_systemd
def test_a_remote_vault_costs_no_more_exposure_than_it_must(tmp_path: Path) -> None:
    """With the drop-in for a Vault elsewhere the exposure stays below the threshold, too."""
    laid_out(tmp_path, "remote-vault.conf")
    merged = tmp_path / SERVICE.name
    merged.write_text(merged.read_text() + (DROP_INS / "remote-vault.conf").read_text())
    result = analyze("security", "--offline=true", f"--threshold={THRESHOLD}", str(merged))

    assert result.returncode == 0, result.stdout[-400:]


@needs_systemd
def test_the_service_is_hardened() -> None:
    """The exposure that systemd computes stays at 1.3 or below; it is printed."""
    result = analyze("security", "--offline=true", f"--threshold={THRESHOLD}", str(SERVICE))
    sys.stdout.write(result.stdout[-120:])

    assert result.returncode == 0, result.stdout[-400:]


def unit(path: Path) -> configparser.RawConfigParser:
    """A unit's sections; of a key that stands twice, the last; keys in any case."""
    parser = configparser.RawConfigParser(strict=False)
    parser.read(path, encoding="utf-8")
    return parser


def test_the_descriptors_are_enough_for_the_limits() -> None:
    """One for each task, two for each connection, and a reserve, by the config's own defaults."""
    limits = LimitSettings()
    needed = limits.tasks + 2 * limits.connections + RESERVE

    assert int(unit(SERVICE)["Service"]["LimitNOFILE"]) >= needed


def test_no_socket_is_open_wider_than_its_door_is_meant_to_be() -> None:
    """Unix sockets, in a directory of root's; the task socket for a group, the rest for root."""
    for path in UNITS:
        if path.suffix == ".socket":
            socket = unit(path)["Socket"]
            group = socket.get("SocketGroup", "root")
            assert socket["ListenStream"].startswith("/run/taskmint/")
            assert socket["SocketUser"] == "root"
            assert socket["DirectoryMode"] == "0755"
            assert (socket["SocketMode"], group) in {("0660", "taskmint"), ("0600", "root")}
            assert {key for key in socket if key.startswith("listen")} == {"listenstream"}


def test_the_daemons_user_is_made_without_a_shell() -> None:
    """systemd-sysusers makes user and group; nobody logs in as the daemon."""
    text = (REPOSITORY / "systemd" / "sysusers.d" / "taskmint.conf").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line[:1] != "#"]

    assert line.split() == [
        "u",
        "taskmint",
        "-",
        '"taskmint',
        'daemon"',
        "/nonexistent",
        "/usr/sbin/nologin",
    ]


def test_the_sockets_are_those_the_daemon_looks_for() -> None:
    """Names of descriptors, paths and modes as in decisions.md; both belong to the service."""
    found = {}
    for path in UNITS:
        if path.suffix == ".socket":
            section = unit(path)["Socket"]
            assert section["Service"] == SERVICE.name
            found[section["FileDescriptorName"]] = (section["ListenStream"], section["SocketMode"])

    assert found == {
        "task": ("/run/taskmint/task.sock", "0660"),
        "admin": ("/run/taskmint/admin.sock", "0600"),
    }


def test_the_service_never_gives_up() -> None:
    """Revocation depends on the daemon: it is restarted without limit."""
    service = unit(SERVICE)

    assert service["Service"]["Restart"] == "always"
    assert service["Service"]["WatchdogSec"] == "30"
    assert service["Service"]["TimeoutStartSec"] == "infinity"
    assert service["Unit"]["StartLimitIntervalSec"] == "0"
    for path in UNITS:
        if path.suffix == ".socket":
            assert unit(path)["Socket"]["TriggerLimitIntervalSec"] == "0"


EMERGENCY = REPOSITORY / "systemd" / "break-glass"


@needs_systemd
def test_the_emergency_doors_units_verify(tmp_path: Path) -> None:
    """A service and two sockets of its own; `systemd-analyze verify` finds nothing."""
    for path in EMERGENCY.iterdir():
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text.replace(INTERPRETER, sys.executable))
    result = analyze("verify", *map(str, sorted(tmp_path.iterdir())))

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def settings(path: Path) -> list[str]:
    """A unit's lines in order, without comments and empty ones."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_emergency_door_is_hardened_as_the_service_is() -> None:
    """
    The same line by line but for names: user, state, config, sockets, what it is.

    Two whole units rather than one drop-in for both: a drop-in that somebody forgets to install
    leaves a daemon that runs as well, and is not hardened; and `systemd-analyze security` judges
    whole units. So this test is what keeps them alike.
    """
    own = EMERGENCY / "taskmint-breakglass.service"
    pairs = list(zip(settings(SERVICE), settings(own), strict=True))
    differ = {line.partition("=")[0]: (line, other) for line, other in pairs if line != other}

    assert differ.pop("Description")
    for line, other in differ.values():
        named = other.replace("taskmint-breakglass", "taskmint")
        assert named.replace("/breakglass.yaml", "/taskmint.yaml") == line
    assert set(differ) == {
        *("Requires", "ExecStart", "Sockets", "User", "Group", "StateDirectory", "Also"),
    }


def test_the_emergency_door_has_sockets_of_its_own() -> None:
    """Named as the daemon looks for them; a group of its own may knock."""
    own = unit(EMERGENCY / "taskmint-breakglass.service")
    assert own["Service"]["User"] == own["Service"]["Group"] == "taskmint-breakglass"
    door = unit(EMERGENCY / "taskmint-breakglass.socket")["Socket"]
    assert door["FileDescriptorName"] == "breakglass"
    assert (door["SocketMode"], door["SocketGroup"]) == ("0660", "taskmint-breakglass")
    admin = unit(EMERGENCY / "taskmint-breakglass-admin.socket")["Socket"]
    assert (admin["FileDescriptorName"], admin["SocketMode"]) == ("admin", "0600")
