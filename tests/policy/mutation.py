"""
What mutmut left behind in, whether the tests notice enough out: `make mutate` runs this.

Killed is what made a test fail. Everything else survived: also what ran out of time, what no test
calls, and what broke the run. At least ninety per cent must be killed, and each survivor must stand
in survivors.yaml with its reason. What stands there and was killed is told, so that it can go.

A mutant is known by its function and by the lines it changes, not by mutmut's number for it, which
moves with every edit.
"""

import ast
import difflib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import yaml

MUTANTS: Final = Path("mutants/src")
SURVIVORS: Final = Path(__file__).with_name("survivors.yaml")
NEEDED: Final = 0.9
_KILLED: Final = 1  # pytest's exit code for failed tests
_MARK: Final = "__mutmut_"


class Unfinished(Exception):
    """Raised when there is no result of a whole run."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one function; `exit_code` is that of the tests."""

    what: str
    exit_code: int

    @property
    def killed(self) -> bool:
        """Whether a test failed."""
        return self.exit_code == _KILLED


def mutants(directory: Path) -> Iterator[Mutant]:
    """Read every mutant's result. Raises Unfinished."""
    metas = sorted(directory.rglob("*.meta"))
    if not metas:
        raise Unfinished(f"there is no result in {directory}")
    for meta in metas:
        codes: Mapping[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
        if not codes:
            continue
        functions = _functions(meta.with_suffix("").read_text())
        for name, code in codes.items():
            if code is None:
                raise Unfinished(f"{name} was not tried")
            module, _, mangled = name.rpartition(".")
            original = f"{mangled.rpartition(_MARK)[0]}{_MARK}orig"
            change = _change(functions[original], functions[mangled])
            yield Mutant(f"{module}.{_plain(mangled)}: {change}", code)


def _functions(source: str) -> dict[str, list[str]]:
    """Find every function's lines by its name, without indentation and without the name."""
    lines = source.splitlines()
    found: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and _MARK in node.name:
            own = lines[node.lineno - 1 : node.end_lineno]
            found[node.name] = [line.strip().replace(node.name, "") for line in own]
    return found


def _change(old: list[str], new: list[str]) -> str:
    told = [line for line in difflib.ndiff(old, new) if line.startswith(("- ", "+ "))]
    return " ".join(told)


def _plain(mangled: str) -> str:
    """Undo mutmut's mangling: x_name, or xǁClassǁname."""
    return mangled.rpartition(_MARK)[0].removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")


def reasons(file: Path) -> dict[str, str]:
    """Read why each known survivor may live. Raises ValueError for one without a reason."""
    known: dict[str, str] = {}
    for group in yaml.safe_load(file.read_text()):
        for what in group["mutants"]:
            if not group["reason"].strip() or what in known:
                raise ValueError(f"{what}: stands there twice, or without a reason")
            known[what] = group["reason"]
    return known


def main(directory: Path = MUTANTS, survivors: Path = SURVIVORS) -> int:
    """Print the verdict; 0 when the tests notice enough, 1 when not, 2 without a whole run."""
    try:
        tried = list(mutants(directory))
    except Unfinished as error:
        click.echo(f"mutation: {error}")
        return 2
    known = reasons(survivors)
    alive = {mutant.what for mutant in tried if not mutant.killed}
    killed = sum(mutant.killed for mutant in tried)
    for what in sorted(alive - known.keys()):
        click.echo(f"survived, and survivors.yaml does not say why: {what}")
    for what in sorted(known.keys() - alive):
        click.echo(f"in survivors.yaml, and killed or gone: {what}")
    share = killed / len(tried)
    click.echo(f"{killed} of {len(tried)} mutants killed, {share:.1%}; {NEEDED:.0%} are needed")
    return int(share < NEEDED or not alive <= known.keys())


if __name__ == "__main__":
    sys.exit(main())
