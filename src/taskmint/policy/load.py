"""
Policy files in, one Policy out, or every finding of every file at once: never a part of one.

The caller opens the files; what is parsed here are the bytes it read, once.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from taskmint import yaml_document
from taskmint.canonical import digest
from taskmint.errors import Code, ConfigError, Finding
from taskmint.model.clocks import ClassClocks
from taskmint.model.scope import Json
from taskmint.yaml_document import MAX_FINDINGS, Document, Node, parse_document
from taskmint.yaml_model import duration_text, read_model

from .compile import compile_definition
from .condition import Compiler
from .definition import Definition, Policy
from .describe import describe
from .enumerate import combinations
from .schema import DefinitionSchema, PolicyFileSchema
from .sharing import disagreements
from .workbench import Surroundings, Workbench

__all__ = ("Policy", "load_policy")

SHADOW: Final = ".shadow"
MAX_SPANNED: Final = 500_000  # requests of all combinations of all definitions


def load_policy(files: Sequence[tuple[str, bytes]], classes: Mapping[str, ClassClocks]) -> Policy:
    """
    Read and merge policy files; `classes` are the config's clocks.

    Raises ConfigError(policy_invalid) with everything that is wrong.
    """
    loading = _Loading()
    documents = [parse_document(file, content) for file, content in files]
    for document in documents:
        loading.take_head(document)
    around = Surroundings(classes, frozenset(loading.host_labels), Compiler())
    for document in documents:
        loading.take_tasks(document, around)
    if not files:
        loading.find("(policy)", (1, 1), "", "no policy file was given", "name one in policy.files")
    return loading.finish()


class _Loading:
    """Definitions and findings so far."""

    def __init__(self) -> None:
        self.host_labels: set[str] = set()
        self._owners: set[str] = set()
        self._definitions: dict[str, Definition] = {}
        self._shadows: dict[str, Definition] = {}
        self._places: dict[str, str] = {}
        self._benches: dict[str, Workbench] = {}
        self._findings: dict[Finding, None] = {}

    def find(self, file: str, at: tuple[int, int], key: str, problem: str, fix: str) -> None:
        """Note one finding; the same one twice is one."""
        self._findings[Finding(file, *at, key, problem, fix)] = None

    def take_head(self, document: Document) -> None:
        """Read what a file says beside its tasks, for all files."""
        read = read_model(PolicyFileSchema, document)
        self._findings.update(dict.fromkeys(read.findings))
        # From the tree, so that a mistake elsewhere does not make every host label unknown.
        self.host_labels.update(_texts(document.root, "host_labels"))
        self._owners.update(_texts(document.root, "owners"))

    def take_tasks(self, document: Document, around: Surroundings) -> None:
        """Read one file's definitions, each by itself."""
        root = document.root
        tasks = root.entries.get("tasks") if isinstance(root, yaml_document.Mapping) else None
        if not isinstance(tasks, yaml_document.Mapping):
            return
        for key, node in tasks.entries.items():
            if len(self._findings) >= MAX_FINDINGS:
                return  # a file of nothing but mistakes costs no more than one of a hundred
            self._take_definition(document, key, tasks.keys[key], node, around)

    def _take_definition(
        self,
        document: Document,
        key: str,
        at: tuple[int, int],
        node: Node,
        around: Surroundings,
    ) -> None:
        here = f"{document.file}:{at[0]}:{at[1]}"
        held = self._places.setdefault(key, here)
        if held != here:
            fix = f"the first is at {held}"
            self.find(document.file, at, f"tasks.{key}", "is defined twice", fix)
        steps = ("tasks", key)
        read = read_model(DefinitionSchema, document, steps, node)
        self._findings.update(dict.fromkeys(read.findings))
        if read.value is None:
            return
        bench = Workbench(document.file, node, steps, at[0])
        name = key.removesuffix(SHADOW)
        if read.value.shadow != key.endswith(SHADOW):
            fix = f"write {name}{SHADOW} with shadow: true, or neither"
            bench.find((), "a shadow has both its key and its mark", fix)
        compiled = compile_definition(name, read.value, around, bench)
        self._findings.update(dict.fromkeys(bench.findings))
        if compiled is not None and read.value.shadow:
            self._shadows[name] = compiled
        elif compiled is not None:
            self._definitions[name] = compiled
            self._benches[name] = bench

    def finish(self) -> Policy:
        """Return the policy. Raises ConfigError(policy_invalid)."""
        spanned = sum(
            combinations(each) * len(each.entitlements) for each in self._definitions.values()
        )
        if spanned > MAX_SPANNED:
            problem = f"all definitions together span {spanned} requests of enum values"
            self.find("(policy)", (1, 1), "", problem, f"keep to {MAX_SPANNED}")
        else:
            for finding in _shared_roles(self._definitions, self._benches):
                self._findings[finding] = None
        if self._findings:
            raise ConfigError(Code.POLICY_INVALID, tuple(sorted(self._findings)))
        return Policy(
            digest=digest(_describe_all(self._definitions, self._shadows)),
            definitions=MappingProxyType(self._definitions),
            shadows=MappingProxyType(self._shadows),
            owners=frozenset(self._owners),
        )


def _texts(root: Node | None, key: str) -> Iterator[str]:
    held = root.entries.get(key) if isinstance(root, yaml_document.Mapping) else None
    if isinstance(held, yaml_document.Sequence):
        yield from (item.text for item in held.items if isinstance(item, yaml_document.Scalar))


def _describe_all(definitions: Mapping[str, Definition], shadows: Mapping[str, Definition]) -> Json:
    return {
        "version": 1,
        "tasks": {name: describe(definition) for name, definition in definitions.items()},
        "shadows": {name: describe(definition) for name, definition in shadows.items()},
    }


def _shared_roles(
    definitions: Mapping[str, Definition], benches: Mapping[str, Workbench]
) -> Iterator[Finding]:
    for clash in disagreements(definitions.values()):
        here, other = clash.here.definition, clash.other
        bench = benches[here.name]
        problem = (
            f"reaches {clash.here.path} with a dead-man interval of "
            f"{duration_text(here.dead_man)}, and {other.name} ({other.file}:{other.line}) with "
            f"{duration_text(other.dead_man)}; a Vault role has one default_ttl"
        )
        where = ("scope", clash.here.entitlement)
        yield bench.finding(where, problem, "give both the same dead_man, or separate roles")
