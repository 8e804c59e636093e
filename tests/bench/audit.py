"""
OpenBao's audit log: what each arm really asked the server, counted by the server itself.

A call is compared by who made it, the operation, the path, the names of its fields and whether it
was refused; values are HMACs in the log and differ from task to task.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_TASK_POLICIES: Final = "taskmint-task-"
# What a holder of a standing token asks by the clock, however many tasks there are.
_UPKEEP: Final = re.compile(
    r"auth/token/(lookup|renew)-self|auth/token/roles/.*|auth/jwt/login|sys/policies/acl/.*"
)


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """One answered request; `by` is `task` when a task token made it, else `standing`."""

    by: str
    operation: str
    path: str
    fields: tuple[str, ...]
    refused: bool

    def __str__(self) -> str:
        fields = f" {{{', '.join(self.fields)}}}" if self.fields else ""
        return f"{self.by}: {self.operation} {self.path}{fields}{' (refused)' * self.refused}"


class AuditTail:
    """Reads what was appended since it last read; a device writes before the server answers."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = log.stat().st_size

    def calls(self) -> list[Call]:
        """Return the calls answered since the last time, in their order, upkeep left out."""
        with self._log.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        entries = map(json.loads, data.splitlines())
        return [
            _call(entry)
            for entry in entries
            if entry["type"] == "response" and not _UPKEEP.fullmatch(entry["request"]["path"])
        ]


class ListsDiffer(Exception):
    """Raised when an arm did not ask the server what it had to."""


def per_task(calls: list[Call], tasks: int) -> Counter[Call]:
    """Divide what a cell asked by its number of tasks. Raises ListsDiffer for a remainder."""
    each: Counter[Call] = Counter()
    for call, count in Counter(calls).items():
        each[call], rest = divmod(count, tasks)
        if rest:
            raise ListsDiffer(f"{tasks} tasks made {count} calls {call}")
    return each


def difference(one: Counter[Call], other: Counter[Call]) -> str:
    """Name the calls that only one side made; empty when both made the same."""
    left, right = one - other, other - one
    return "; ".join(
        [f"only the first: {call}" for call in sorted(left.elements())]
        + [f"only the second: {call}" for call in sorted(right.elements())]
    )


def _call(entry: dict[str, Any]) -> Call:
    request = entry["request"]
    policies = (entry.get("auth") or {}).get("policies") or ()
    by_task = any(str(name).startswith(_TASK_POLICIES) for name in policies)
    return Call(
        by="task" if by_task else "standing",
        operation=request["operation"],
        path=request["path"],
        fields=tuple(sorted(request.get("data") or ())),
        refused=bool(
            entry.get("error") or (entry.get("response") or {}).get("data", {}).get("error")
        ),
    )
