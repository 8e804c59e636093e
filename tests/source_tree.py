"""The source of taskmint as parsed modules, for the tests that judge its shape."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "src" / "taskmint"


@dataclass(frozen=True)
class Module:
    """One file under src/taskmint; `name` is dotted, without the leading `taskmint.`."""

    path: Path
    root: Path = PACKAGE

    @property
    def name(self) -> str:
        """For example `policy.load`; a package's own file is the package."""
        parts = self.path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def layer(self) -> str:
        """The package below taskmint, or the module itself where it stands alone."""
        return self.name.partition(".")[0]

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.path.read_text(encoding="utf-8"), str(self.path))

    def imports(self) -> Iterator[str]:
        """Every module imported anywhere in the file, absolute, submodules spelled out."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = ["taskmint", *self.path.relative_to(self.root).parts[:-1]]
        above = package[: len(package) - node.level + 1]
        return ".".join([*above, *([node.module] if node.module else [])])

    def layers_imported(self) -> set[str]:
        """The layers of taskmint this module imports, its own left out."""
        ours = {name.split(".")[1] for name in self.imports() if name.startswith("taskmint.")}
        return ours - {self.layer}


def modules() -> list[Module]:
    """Every module of taskmint, sorted by name."""
    return sorted(map(Module, PACKAGE.rglob("*.py")), key=lambda module: module.name)
