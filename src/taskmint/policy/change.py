"""One difference between two policies: what it does to what is possible, and how it is said."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TypeAlias

from taskmint.yaml_model import duration_text


class Direction(StrEnum):
    """What a change does to what is possible."""

    WIDENED = "widened"
    NARROWED = "narrowed"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference, as a sentence."""

    direction: Direction
    task: str
    sentence: str


Parts: TypeAlias = Iterator[tuple[Direction, str]]


def longer(what: str, old: timedelta | None, new: timedelta | None) -> Parts:
    """Longer is wider; None is for ever."""
    if old == new:
        return
    more = new is None or (old is not None and new > old)
    after, before = (
        "without limit" if each is None else f"for {duration_text(each)}" for each in (new, old)
    )
    yield (Direction.WIDENED if more else Direction.NARROWED), f"{what} {after}, was {before}"
