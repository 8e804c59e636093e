"""Failpoints, as the source has them: where they are reached, and which of them a run has hit."""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from source_tree import REPOSITORY
from taskmint.failpoints import Failpoint

NTH_STEP = 3
NTH_COMMIT = 12  # a daemon's first commits are its own start, then every durable step of all


def reached_in_source() -> dict[str, set[str]]:
    """Find every `reach(Failpoint.NAME)` below src: the file names, by failpoint."""
    found: dict[str, set[str]] = {}
    for path in (REPOSITORY / "src").rglob("*.py"):
        for name in _reached(path):
            found.setdefault(name, set()).add(path.name)
    return found


def _reached(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("reach"):
            point = ast.unparse(node.args[0]) if node.args else ""
            if point.startswith("Failpoint."):
                yield point.removeprefix("Failpoint.")


@dataclass(frozen=True, order=True)
class Shot:
    """Where a daemon is to die: the n-th arrival at a failpoint."""

    point: Failpoint
    nth: int

    def armed(self) -> str:
        """As TASKMINT_FAILPOINT wants it."""
        return f"{self.point}:{self.nth}:kill"

    def __str__(self) -> str:
        return f"{self.point}:{self.nth}"


def all_shots(*, quick: bool = False) -> list[Shot]:
    """List every failpoint at n = 1, 2, 3 ..., or at its first useful n alone."""
    shots = []
    for point in Failpoint:
        commits = point.startswith("ledger_")
        if quick:
            shots.append(Shot(point, 3 if commits else 1))
        else:
            shots += [Shot(point, n + 1) for n in range(NTH_COMMIT if commits else NTH_STEP)]
    return shots


@dataclass
class Hits:
    """What was shot at, and what was hit."""

    shots: list[Shot]
    tried: Counter[Shot] = field(default_factory=Counter)
    hit: Counter[Shot] = field(default_factory=Counter)

    def next(self) -> Shot:
        """Choose the one that was hit least, then tried least."""
        shot = min(self.shots, key=lambda one: (self.hit[one], self.tried[one], one))
        self.tried[shot] += 1
        return shot

    def missed(self) -> list[Shot]:
        """Name those that were never hit."""
        return [shot for shot in self.shots if not self.hit[shot]]
