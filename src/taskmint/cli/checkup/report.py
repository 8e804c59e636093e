"""What was found, how bad it is, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from taskmint.errors import ConfigError, TaskmintError


class Severity(StrEnum):
    """How bad: an error keeps something from working, a warning will, a note only says so."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked at. `area` says which part of the daemon's world it is of."""

    area: str
    severity: Severity
    what: str
    fix: str = ""


def fine(area: str, what: str) -> Diagnosis:
    """Nothing is wrong here."""
    return Diagnosis(area, Severity.OK, what)


def note(area: str, what: str, fix: str = "") -> Diagnosis:
    """Something to know."""
    return Diagnosis(area, Severity.NOTE, what, fix)


def warning(area: str, what: str, fix: str) -> Diagnosis:
    """Something that will hurt."""
    return Diagnosis(area, Severity.WARNING, what, fix)


def failure(area: str, what: str, fix: str) -> Diagnosis:
    """Something that hurts."""
    return Diagnosis(area, Severity.ERROR, what, fix)


def of_error(area: str, error: TaskmintError) -> Iterable[Diagnosis]:
    """One for an error of ours, or one for each finding in a file."""
    if isinstance(error, ConfigError):
        for found in sorted(error.findings):
            key = f"{found.key}: " if found.key else ""
            where = f"{found.file}:{found.line}:{found.column}"
            yield failure(area, f"{where}: {key}{found.problem}", found.fix)
    else:
        yield failure(area, error.detail, error.fix)
