"""Fenced blocks of README and docs: where they stand, what language, what they say."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from source_tree import REPOSITORY

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "SECURITY.md",
    *sorted((REPOSITORY / "docs").glob("**/*.md")),
]
BOOTED = REPOSITORY / "docs" / "operate.md"  # whose blocks for root run in a machine that boots
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """`info` is what stands behind the three backticks: `sh`, `sh root`, `python`."""

    where: str
    info: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text[: found.start()].count("\n") + 1
        yield Block(f"{page.relative_to(REPOSITORY)}:{line}", found[1], found[2])
