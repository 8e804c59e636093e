"""
A machine that boots: systemd as PID 1 in a container, over an overlay of this machine's own root.

systemd-nspawn does it, in a mount namespace of its own, so that whatever ends us, no mount stays
behind; without a network, so that what runs in it needs nothing from outside. What is written in
it is kept in memory and gone with it. `why_not` says why it cannot be done here, if it cannot.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from plugins.dist import NO_DEBIAN, has_debian

NEEDED = ("systemd-nspawn", "unshare", "nsenter", "setpriv", "runuser", "useradd")
BOOT_SECONDS = 20.0
STOP_SECONDS = 15.0

# /run is where nspawn keeps its own state; ours is thrown away with the namespace.
_LAY = """
mount -t tmpfs tmpfs /run
mkdir /run/machine
mount -t tmpfs -o size=3g,mode=755 tmpfs /run/machine
mkdir /run/machine/upper /run/machine/work /run/machine/root
cd /run/machine
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
"""
_BOOT = """
rm -f root/etc/machine-id
touch root/etc/machine-id
exec systemd-nspawn --quiet --register=no --keep-unit --private-network --console=pipe \
    --machine=taskmint-test --directory=root "$@" --boot systemd.unit=basic.target
"""
_NAMESPACE = ("unshare", "--mount", "--propagation", "private", "--")


def why_not() -> str | None:
    """None when a machine can be booted here, else what is missing."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    if not has_debian():
        return NO_DEBIAN
    lay = subprocess.run(
        [*_NAMESPACE, "sh", "-euc", _LAY], capture_output=True, text=True, check=False
    )
    return f"no overlay of / here: {lay.stderr.strip()}" if lay.returncode else None


class CannotBoot(Exception):
    """Raised when the container does not come up as far as systemd."""


class Machine:
    """A running machine; `leader` is its PID 1 as we see it, `log` what its console said."""

    def __init__(self, container: subprocess.Popen[bytes], leader: int, log: Path) -> None:
        self._container = container
        self.leader = leader
        self.log = log

    def run(
        self,
        script: str,
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a bash script in it, as root or as another user; its output, both together."""
        result = subprocess.run(
            [*self._inside(user, env), "bash", "-euo", "pipefail", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and result.returncode:
            raise AssertionError(f"exit {result.returncode} of:\n{script}\n{result.stdout}")
        return result

    def start(self, script: str, *, user: str | None = None) -> subprocess.Popen[str]:
        """Start a bash script in it; the caller waits for it."""
        return subprocess.Popen(
            [*self._inside(user, None), "bash", "-euo", "pipefail", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, script: str, seconds: float) -> None:
        """Run a script again and again until it succeeds."""
        deadline = time.monotonic() + seconds
        while (last := self.run(script, check=False)).returncode:
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s:\n{script}\n{last.stdout}")
            time.sleep(0.1)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run(f"systemctl show --value --property={name} {unit}").stdout.strip()

    def power_off(self) -> None:
        """Shut it down in order; whatever does not follow is killed."""
        self.run("systemctl poweroff --force --no-wall", check=False, timeout=STOP_SECONDS)
        with suppress(subprocess.TimeoutExpired):
            self._container.wait(STOP_SECONDS)
        if self._container.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.leader, 9)  # PID 1 of the container: all in it end with it
            self._container.kill()
            self._container.wait()

    def _inside(self, user: str | None, env: Mapping[str, str] | None) -> list[str]:
        given = {
            "HOME": "/nonexistent" if user else "/root",
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            **(env or {}),
        }
        become = ["runuser", "-u", user, "--"] if user else []
        words = [f"{name}={value}" for name, value in given.items()]
        # All but the control groups: a process stays in ours, as a login's does in its own.
        enter = ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net"]
        return [*enter, "--pid", "--", "env", "-i", *words, *become]


@contextmanager
def booted(log: Path, binds: Mapping[Path, str]) -> Iterator[Machine]:
    """
    Boot a machine that sees directories of ours read-only, and power it off after the context.

    Raises CannotBoot when the container ends before its systemd answers.
    """
    shown = [f"--bind-ro={ours}:{theirs}" for ours, theirs in binds.items()]
    # If this very process is killed, nspawn gets SIGTERM, and powers the machine off.
    leash = ("setpriv", "--pdeathsig", "TERM")
    with log.open("wb") as console:
        container = subprocess.Popen(
            [*leash, *_NAMESPACE, "sh", "-euc", _LAY + _BOOT, "sh", *shown],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    machine = None
    try:
        machine = Machine(container, _leader(container, log), log)
        machine.until("systemctl is-system-running | grep -Eqx 'running|degraded'", BOOT_SECONDS)
        yield machine
    finally:
        if machine is not None:
            machine.power_off()
        elif container.poll() is None:
            container.terminate()
            container.wait(STOP_SECONDS)


def _leader(container: subprocess.Popen[bytes], log: Path) -> int:
    """Wait for the container's PID 1: the descendant of nspawn that is 1 to itself."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline and container.poll() is None:
        for pid in _descendants(container.pid):
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if re.search(r"^NSpid:.*\t1$", status, re.MULTILINE) and name == "systemd":
                    return pid
        time.sleep(0.05)
    raise CannotBoot(f"the container did not start systemd: {log.read_text()[-500:]}")


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, children.read_text().split())
    return found
