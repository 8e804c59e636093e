"""Where a definition stands while it is compiled, what helps, and what was found wrong so far."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from taskmint.errors import Finding
from taskmint.model.clocks import ClassClocks
from taskmint.yaml_document import MAX_FINDINGS, Node, key_path
from taskmint.yaml_model import place

from .condition import Compiler

T = TypeVar("T", bound=Hashable)


class Commons:
    """
    Equal parts of definitions, kept once for a load.

    Most definitions agree in most of their terms: what they share stays in the processor's cache,
    so that one of many is decided nearly as fast as one of few.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def one(self, part: T) -> T:
        """Return the first part that was equal to this one; parts must never change."""
        known: T = self._known.setdefault(part, part)
        return known


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every definition of a load is compiled with."""

    classes: Mapping[str, ClassClocks]
    host_labels: frozenset[str]
    conditions: Compiler
    commons: Commons = field(default_factory=Commons)


@dataclass(slots=True)
class Workbench:
    """One definition's place in its file, and its findings."""

    file: str
    node: Node
    steps: tuple[str | int, ...]
    line: int
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether nobody would read one finding more."""
        return len(self.findings) >= MAX_FINDINGS

    def find(self, where: tuple[str | int, ...], problem: str, fix: str) -> None:
        """Note one thing that is wrong at `where` inside the definition."""
        self.findings.append(self.finding(where, problem, fix))

    def finding(self, where: tuple[str | int, ...], problem: str, fix: str) -> Finding:
        """Build a finding at `where` inside the definition."""
        line, column = place(self.node, where)
        return Finding(self.file, line, column, key_path(self.steps + where), problem, fix)
