"""
The shape of the code (design.md's layers), held by a machine.

The picture is in docs and in the packages' docstrings; this file is what makes it true.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import pytest

from source_tree import Module, modules

ADAPTERS: Final = {"identity", "vault", "ledger", "telemetry"}
# From the bottom up: a module imports only from rows below its own; members of a row are strangers.
ROWS: Final = (
    {"model", "errors", "failpoints"},
    {"canonical", "strict_json", "yaml_document"},
    {"yaml_model"},
    {"config_values"},
    {"config_values"},
    {"policy", "config"},
    {"ports"},
    {*ADAPTERS, "clock"},
    {"tasks"},
    {"api"},
    {"daemon"},
    {"cli"},
    {"__main__"},
)
RANK: Final = {layer: rank for rank, row in enumerate(ROWS) for layer in row}
# Beside the rows: what they may know of us, and who may know them.
BESIDE: Final = {"client", "devstack"}
BESIDE_MAY_IMPORT: Final = {"model", "errors"}
MAY_IMPORT_ADAPTERS: Final = {"daemon", "cli"}

PURE: Final = {
    "model",
    "errors",
    "canonical",
    "strict_json",
    "yaml_document",
    "yaml_model",
    "policy",
    "ports",
}
IO: Final = {
    "aiohttp", "asyncio", "grpc", "http", "hvac", "io", "logging", "multiprocessing", "os",
    "pathlib", "random", "requests", "secrets", "select", "shutil", "signal", "socket", "spiffe",
    "sqlite3", "ssl", "structlog", "subprocess", "sys", "tempfile", "threading", "time", "urllib",
    "uvloop",
}  # fmt: skip
CLOCKS: Final = {"now", "utcnow", "today"}

ONE_HOME: Final = {"hvac": {"vault"}, "sqlite3": {"ledger"}}

# A failure that nobody foresaw may be caught here and nowhere else, each place with its reason.
CATCHES_ALL: Final[dict[str, str]] = {
    "api.gate": "the last place before a caller: a bug of ours is logged and answered by 500",
}

LONGEST_FUNCTION = 45  # lines, the docstring not counted
LONGER: Final = {
    "daemon.run._build": "every concrete thing in order: reading it is reading the boot",
}

EVERY_MODULE = pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def called(node: object) -> str:
    """Return the last name of what a call calls, or nothing."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""


@EVERY_MODULE
def test_imports_go_down_only(module: Module) -> None:
    """A module imports from rows below its own; client and devstack know nouns and errors only."""
    theirs = module.layers_imported()
    if module.layer in BESIDE:
        assert theirs <= BESIDE_MAY_IMPORT
        return
    if not module.name:
        assert not theirs
        return
    if module.layer in {"cli", "__main__"}:
        theirs -= BESIDE
    assert theirs <= RANK.keys()
    assert all(RANK[layer] < RANK[module.layer] for layer in theirs), theirs


@EVERY_MODULE
def test_adapters_are_known_only_to_who_builds_them(module: Module) -> None:
    """Tasks and the API speak to ports; the concrete things are plugged in by daemon and cli."""
    if module.layer not in MAY_IMPORT_ADAPTERS:
        assert not module.layers_imported() & ADAPTERS


@EVERY_MODULE
def test_pure_layers_do_no_io(module: Module) -> None:
    """What decides reads no file, no socket and no clock."""
    if module.layer not in PURE:
        return
    assert not {name.partition(".")[0] for name in module.imports()} & IO
    calls = {called(node) for node in ast.walk(module.tree)}
    assert not calls & (CLOCKS | {"open", "print", "input"})


@EVERY_MODULE
def test_only_identity_builds_a_caller(module: Module) -> None:
    """P2: a Caller exists only because the identity package proved it."""
    if module.layer != "identity":
        assert "Caller" not in {called(node) for node in ast.walk(module.tree)}


@EVERY_MODULE
def test_each_library_has_one_home(module: Module) -> None:
    """Hvac is vault's and sqlite3 is the ledger's."""
    for name in module.imports():
        homes = ONE_HOME.get(name.partition(".")[0])
        assert homes is None or module.layer in homes, name


def test_the_workload_api_stub_is_imported_once_per_side() -> None:
    """A second copy of workload.proto in a process is refused: one module per side imports it."""
    importers: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        if any(name.startswith("spiffe._proto") for name in module.imports()):
            importers[module.layer].add(module.name)
    assert importers.keys() <= {"identity", "client", "devstack"}
    assert all(len(names) == 1 for names in importers.values()), dict(importers)


@EVERY_MODULE
def test_no_broad_except(module: Module) -> None:
    """What is caught is named; a handler for everything re-raises as its last statement."""
    if module.name in CATCHES_ALL:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type):
            last = node.body[-1]
            assert isinstance(last, ast.Raise), f"line {node.lineno}"


def _is_broad(caught: ast.expr | None) -> bool:
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(
        name is None or (isinstance(name, ast.Name) and name.id in {"Exception", "BaseException"})
        for name in names
    )


@EVERY_MODULE
def test_packages_hold_a_docstring_only(module: Module) -> None:
    """An `__init__.py` imports nothing, so importing one module imports that module."""
    if module.path.name == "__init__.py":
        assert ast.get_docstring(module.tree)
        assert len(module.tree.body) == 1


@EVERY_MODULE
def test_modules_say_what_they_are(module: Module) -> None:
    """Every module opens with a docstring."""
    assert ast.get_docstring(module.tree)


MUTABLE_DISPLAYS: Final = (
    ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp,
)  # fmt: skip
MUTABLE_CALLS: Final = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter"}
MUTATORS: Final = {
    "append", "add", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault",
    "update", "discard",
}  # fmt: skip


@EVERY_MODULE
def test_no_mutable_module_state(module: Module) -> None:
    """A module-level table is Final and nobody writes to it; no function rebinds a global."""
    tables: set[str] = set()
    for node in module.tree.body:
        value = getattr(node, "value", None)
        if not isinstance(value, MUTABLE_DISPLAYS) and called(value) not in MUTABLE_CALLS:
            continue
        assert isinstance(node, ast.AnnAssign), f"line {node.lineno}: not Final"
        assert "Final" in ast.unparse(node.annotation), f"line {node.lineno}: not Final"
        tables.add(ast.unparse(node.target))
    for inner in ast.walk(module.tree):
        assert not isinstance(inner, ast.Global), f"line {inner.lineno}"
        assert _written(inner) not in tables


def _written(node: ast.AST) -> str:
    """Return the plain name that a node writes into, or nothing."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        return ast.unparse(node.value)
    if called(node) in MUTATORS and isinstance(node, ast.Call):
        return ast.unparse(node.func).rpartition(".")[0]
    return ""


@EVERY_MODULE
def test_functions_fit_on_a_screen(module: Module) -> None:
    """No function is longer than 45 lines."""
    for function in functions(module):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        lines = (function.end_lineno or 0) - body[0].lineno + 1 if body else 0
        if f"{module.name}.{function.name}" not in LONGER:
            assert lines <= LONGEST_FUNCTION, f"{function.name}: {lines} lines"
