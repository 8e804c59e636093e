"""
What a task may be asked with: typed parameters, each value one word wherever it goes.

`accept` takes a claimed value and returns the value to use, or the sentence that refuses it.
The texts "5" and "true" are accepted for integers and booleans, in that spelling alone, because
a command line has nothing but text.
"""

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from taskmint.model.scope import ParameterValue
from taskmint.yaml_model import parse_integer

MAX_LENGTH: Final = 64

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SHOWN: Final = 20  # choices named in a refusal


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a claimed value will not do; safe to show to the caller."""

    reason: str


@dataclass(frozen=True, slots=True)
class EnumParameter:
    """One of the listed words. The only kind that the Vault plan writes out."""

    name: str
    values: tuple[str, ...]

    def accept(self, claimed: ParameterValue) -> ParameterValue | Refused:
        """Accept a listed word."""
        if isinstance(claimed, str) and claimed in self.values:
            return claimed
        return Refused(f"must be {self}")

    def __str__(self) -> str:
        shown = ", ".join(self.values[:_SHOWN])
        return f"one of: {shown}{', …' if len(self.values) > _SHOWN else ''}"


@dataclass(frozen=True, slots=True)
class SegmentParameter:
    """A word of letters, digits, dash and underscore; so a captured SPIFFE ID segment, too."""

    name: str
    max_length: int = MAX_LENGTH

    def accept(self, claimed: ParameterValue) -> ParameterValue | Refused:
        """Accept a word that is not too long."""
        if (
            isinstance(claimed, str)
            and len(claimed) <= self.max_length
            and _SEGMENT.fullmatch(claimed)
        ):
            return claimed
        return Refused(f"must be {self}")

    def __str__(self) -> str:
        return f"1 to {self.max_length} letters, digits, dashes or underscores"


@dataclass(frozen=True, slots=True)
class IntegerParameter:
    """A whole number within bounds, both included."""

    name: str
    min: int
    max: int

    def accept(self, claimed: ParameterValue) -> ParameterValue | Refused:
        """Accept a number, or its decimal text, within the bounds."""
        number = parse_integer(claimed) if isinstance(claimed, str) else claimed
        if number is not None and not isinstance(number, bool) and self.min <= number <= self.max:
            return number
        return Refused(f"must be {self}")

    def __str__(self) -> str:
        return f"a whole number from {self.min} to {self.max}"


@dataclass(frozen=True, slots=True)
class BooleanParameter:
    """True or false."""

    name: str

    def accept(self, claimed: ParameterValue) -> ParameterValue | Refused:
        """Accept a boolean, or the text true or false."""
        if isinstance(claimed, bool):
            return claimed
        if claimed == "true":
            return True
        return False if claimed == "false" else Refused(f"must be {self}")

    def __str__(self) -> str:
        return "true or false"


Parameter: TypeAlias = EnumParameter | SegmentParameter | IntegerParameter | BooleanParameter
