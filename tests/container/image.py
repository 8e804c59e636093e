"""
The image, built for real where no container engine runs: buildah, on a base that debootstrap makes.

Isolation is a chroot and the storage a directory of ours, so nothing of this machine's own engine
is touched. `running` starts what the image says in a mount namespace whose root is read-only.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from source_tree import REPOSITORY

NEEDED = ("buildah", "debootstrap", "unshare", "tar")
BASE = "localhost/base"
IMAGE = "localhost/taskmint"
SUITE = "bookworm"
# Kept between runs of this checkout: a base is a minute's work, and what it holds is Debian's.
KEPT_BASE = REPOSITORY / ".cache" / f"container-base-{SUITE}.tar"
_PIP_AS_IN_PYTHONS_IMAGES = """
python3 -m venv /tmp/with-pip
/tmp/with-pip/bin/pip --python /usr/bin/python3 install --no-index --break-system-packages \\
    /usr/share/python-wheels/pip-*.whl
rm -r /tmp/with-pip
/usr/local/bin/pip --version
"""
_OFFLINE = "[global]\nno-index = true\nfind-links = /wheels\n"
# As `docker run --read-only --tmpfs /tmp` with volumes: nothing of the image can be written.
_CONFINED = """
root=$1; shift
mount --bind "$root" "$root"
for volume; do
    shift
    [ "$volume" = -- ] && break
    mount --bind "${volume%%:*}" "$root${volume#*:}"
done
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$USERSPEC" --groups= "$root" env -i "$@"
"""
_NAMESPACE = ("unshare", "--mount", "--propagation=private", "sh", "-euc", _CONFINED, "sh")


class CannotBuild(Exception):
    """Raised when the base cannot be made here."""


def why_not() -> str | None:
    """None when an image can be built here, else what is missing."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    return f"{', '.join(missing)} not installed" if missing else None


class Buildah:
    """buildah with its storage in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        places = ("--root", str(directory / "root"), "--runroot", str(directory / "run"))
        self._command = ("buildah", *places, "--storage-driver", "vfs")

    def __call__(self, *words: str | Path, timeout: float = 60) -> str:
        """Run one command; what it printed."""
        done = subprocess.run(
            [*self._command, *map(str, words)],
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"buildah {' '.join(map(str, words))}:\n{done.stderr[-3000:]}")
        return done.stdout.strip()

    def make_base(self) -> None:
        """
        Commit a Debian with python3, and pip beside it as python's own images have it.

        Nothing else is in it that is not essential.
        """
        if not KEPT_BASE.exists():
            _debootstrap(self._directory / "base")
        container = self("from", "scratch")
        self("add", "--quiet", container, KEPT_BASE, "/", timeout=120)
        self("run", container, "sh", "-euc", _PIP_AS_IN_PYTHONS_IMAGES, timeout=120)
        self("commit", "--quiet", container, BASE, timeout=120)
        self("rm", container)

    def build(self, context: Path, wheels: Path) -> "Image":
        """Build the Dockerfile, pip taking its pinned wheels from a directory."""
        pip = self._directory / "pip.conf"
        pip.write_text(_OFFLINE)
        volumes = (f"--volume={wheels}:/wheels:ro", f"--volume={pip}:/etc/pip.conf:ro")
        options = ("--pull-never", "--format=docker", f"--build-arg=BASE={BASE}")
        self("build", *options, *volumes, f"--tag={IMAGE}", context, timeout=300)
        container = self("from", "--pull-never", IMAGE)
        found = json.loads(self("inspect", "--type=image", IMAGE))
        (size,) = re.findall(r'"size": "([^"]+)"', self("images", "--json", IMAGE))
        return Image(Path(self("mount", container)), found["Docker"]["config"], size)


@dataclass(frozen=True)
class Image:
    """A container of the image, mounted: `root` is its file tree, `config` what it says."""

    root: Path
    config: Mapping[str, Any]
    size: str

    @contextmanager
    def running(
        self, command: Sequence[str], volumes: Mapping[Path, str], log: Path
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command as the image's user, its root read-only; killed after the context."""
        for place in volumes.values():
            (self.root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        mounted = [f"{ours}:{theirs}" for ours, theirs in volumes.items()]
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*_NAMESPACE, str(self.root), *mounted, "--", *self.config["Env"], *command],
                env={"USERSPEC": self.config["User"], "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()


def _debootstrap(directory: Path) -> None:
    """Make the base's files, and keep them as an archive."""
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=python3,python3-venv", SUITE, directory],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    if done.returncode:
        raise CannotBuild(f"debootstrap: {(done.stderr or done.stdout)[-300:]}")
    KEPT_BASE.parent.mkdir(exist_ok=True)
    unfinished = KEPT_BASE.with_suffix(f".{os.getpid()}")
    without = ("--exclude=./var/cache/apt/archives/*", "--exclude=./var/lib/apt/lists/*")
    tar = ("tar", "--create", f"--directory={directory}", *without, f"--file={unfinished}", ".")
    subprocess.run(tar, check=True)
    unfinished.replace(KEPT_BASE)
    shutil.rmtree(directory)
