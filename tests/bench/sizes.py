"""How much is measured: the full benchmark, and a quick one that only shows that all of it runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Sizes:
    """`tasks` maps each concurrency to the number of tasks in a cell; `idle` is in seconds."""

    name: str
    rounds: int
    tasks: Mapping[int, int]
    live: int
    idle: float
    wrapped: int
    definitions: int


FULL: Final = Sizes(
    name="full",
    rounds=7,
    tasks={1: 20, 8: 80, 32: 160},
    live=1000,
    idle=30.0,
    wrapped=9,
    definitions=100_000,
)
QUICK: Final = Sizes(
    name="quick",
    rounds=2,
    tasks={1: 2, 8: 8, 32: 32},
    live=50,
    idle=2.0,
    wrapped=3,
    definitions=2_000,
)
