"""Where a definition stands while it is compiled, what helps, and what was found wrong so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from taskmint.errors import Finding
from taskmint.model.clocks import ClassClocks
from taskmint.yaml_document import Node, key_path
from taskmint.yaml_model import place

from .condition import Compiler


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every definition of a load is compiled with."""

    classes: Mapping[str, ClassClocks]
    host_labels: frozenset[str]
    conditions: Compiler


@dataclass(slots=True)
class Workbench:
    """One definition's place in its file, and its findings."""

    file: str
    node: Node
    steps: tuple[str | int, ...]
    line: int
    findings: list[Finding] = field(default_factory=list)

    def find(self, where: tuple[str | int, ...], problem: str, fix: str) -> None:
        """Note one thing that is wrong at `where` inside the definition."""
        self.findings.append(self.finding(where, problem, fix))

    def finding(self, where: tuple[str | int, ...], problem: str, fix: str) -> Finding:
        """Build a finding at `where` inside the definition."""
        line, column = place(self.node, where)
        return Finding(self.file, line, column, key_path(self.steps + where), problem, fix)
