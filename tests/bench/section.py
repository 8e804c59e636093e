"""
What is measured besides whole tasks against their peers: one section for each subject.

A section is an async function of the sizes that returns figures and what they are held to. Listed
in command.SECTIONS, it is run, printed, written to bench.json and judged like the rest.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .judge import Verdict
from .sizes import Sizes


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; the unit is "x" for a ratio."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Section:
    """Figures of one subject, and those of them that have a bound."""

    figures: Sequence[Figure]
    verdicts: Sequence[Verdict] = ()

    def lines(self) -> Iterator[str]:
        """Print the figures, aligned."""
        width = max(len(figure.name) for figure in self.figures)
        for figure in self.figures:
            yield f"  {figure.name:<{width}} {figure.value:>10.3f} {figure.unit}"

    def as_json(self) -> dict[str, Any]:
        """The same for bench.json."""
        return {
            figure.name: {"value": figure.value, "unit": figure.unit} for figure in self.figures
        }


Measure: TypeAlias = Callable[[Sizes], Awaitable[Section]]
