"""One machine for these tests: installed, and its first task run, by the blocks of the docs."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from boot.machine import CannotBoot, Machine, booted, why_not
from fenced import BOOTED, blocks
from plugins.canaries import Canaries
from plugins.dist import Dist

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/srv/wheels", "PIP_ROOT_USER_ACTION": "ignore"}
# A file system of its own, small enough to be filled at once and as large as doctor wants it.
LEDGERS_DISK = "mkdir -p /var/lib/taskmint; mount -t tmpfs -o size=80m tmpfs /var/lib/taskmint"


@dataclass(frozen=True)
class Step:
    """A block of the page, what it printed, and how long it took."""

    where: str
    output: str
    seconds: float


@dataclass(frozen=True)
class Node:
    """The machine, and what following the page did to it."""

    machine: Machine
    steps: tuple[Step, ...]

    def said(self, text: str) -> str:
        """What the one block printed that contains this text."""
        found = {block.where for block in blocks(BOOTED) if text in block.text}
        (output,) = (step.output for step in self.steps if step.where in found)
        return output


def root_blocks() -> list[tuple[str, str]]:
    """The blocks for root, in the page's order: where each stands, and its text."""
    return [(block.where, block.text) for block in blocks(BOOTED) if block.info == "sh root"]


@pytest.fixture(scope="session")
def node(
    checkout: Path,
    dist: Dist,
    wheels: Path,
    tmp_path_factory: pytest.TempPathFactory,
    canaries: Canaries,
) -> Iterator[Node]:
    """Boot, and follow docs/operate.md from its first block to its last."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("boot")
    (checkout / "dist").mkdir(exist_ok=True)
    binds = {
        checkout: "/srv/taskmint",
        dist.directory: "/srv/taskmint/dist",
        wheels: "/srv/wheels",
    }
    try:
        with booted(place / "console.log", binds) as machine:
            machine.run(LEDGERS_DISK)
            yield Node(machine, tuple(follow(machine, canaries)))
    except CannotBoot as error:
        pytest.skip(str(error))


def follow(machine: Machine, canaries: Canaries) -> Iterator[Step]:
    """Run every block as root in the checkout; what Vault's root token is, is hunted from then."""
    for where, text in root_blocks():
        began = time.monotonic()
        done = machine.run(f"cd /srv/taskmint\n{text}", env=OFFLINE, timeout=300)
        yield Step(where, done.stdout, time.monotonic() - began)
        exported = machine.run("cat /run/taskmint-dev.env", check=False).stdout
        if found := re.search(r"ROOT_TOKEN_FILE=(\S+)", exported):
            token = machine.run(f"cat {found[1]}").stdout.strip()
            canaries.plant(token, "the machine's root token")
