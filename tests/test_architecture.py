"""
The shape of the code (design.md's layers), held by a machine.

The picture is in docs and in the packages' docstrings; this file is what makes it true.
"""

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
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

Rule = Callable[[Module], Iterator[str]]


def offences(rule: Rule) -> list[str]:
    """Everything in the whole of taskmint that breaks a rule."""
    return [f"{module.name}: {what}" for module in modules() for what in rule(module)]


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


def imports_upwards(module: Module) -> Iterator[str]:
    """A module imports from rows below its own; client and devstack know nouns and errors only."""
    theirs = module.layers_imported()
    if module.layer in BESIDE:
        yield from theirs - BESIDE_MAY_IMPORT
    elif not module.name:
        yield from theirs
    else:
        if module.layer in {"cli", "__main__"}:
            theirs -= BESIDE
        yield from theirs - RANK.keys()
        own = RANK[module.layer]
        yield from (layer for layer in theirs & RANK.keys() if RANK[layer] >= own)


def knows_adapters(module: Module) -> Iterator[str]:
    """Tasks and the API speak to ports; the concrete things are plugged in by daemon and cli."""
    if module.layer not in MAY_IMPORT_ADAPTERS:
        yield from module.layers_imported() & ADAPTERS


def does_io(module: Module) -> Iterator[str]:
    """What decides reads no file, no socket and no clock."""
    if module.layer in PURE:
        yield from {name.partition(".")[0] for name in module.imports()} & IO
        calls = {called(node) for node in ast.walk(module.tree)}
        yield from calls & (CLOCKS | {"open", "print", "input"})


def builds_a_caller(module: Module) -> Iterator[str]:
    """P2: a Caller or an Approver exists only because the identity package proved it."""
    if module.layer != "identity":
        yield from (
            f"line {node.lineno}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Call) and called(node) in {"Approver", "Caller", "Vouched"}
        )


def imports_from_another_home(module: Module) -> Iterator[str]:
    """Hvac is vault's and sqlite3 is the ledger's."""
    for name in module.imports():
        homes = ONE_HOME.get(name.partition(".")[0])
        if homes is not None and module.layer not in homes:
            yield name


def catches_all(module: Module) -> Iterator[str]:
    """What is caught is named; a handler for everything re-raises as its last statement."""
    handlers = (node for node in ast.walk(module.tree) if isinstance(node, ast.ExceptHandler))
    for handler in handlers if module.name not in CATCHES_ALL else ():
        if _is_broad(handler.type) and not isinstance(handler.body[-1], ast.Raise):
            yield f"line {handler.lineno}"


def _is_broad(caught: ast.expr | None) -> bool:
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(
        name is None or (isinstance(name, ast.Name) and name.id in {"Exception", "BaseException"})
        for name in names
    )


def is_undescribed(module: Module) -> Iterator[str]:
    """Every module opens with a docstring; a package's own file holds nothing else."""
    if not ast.get_docstring(module.tree):
        yield "no docstring"
    if module.path.name == "__init__.py" and len(module.tree.body) > 1:
        yield "more than a docstring"


MUTABLE_DISPLAYS: Final = (
    ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp,
)  # fmt: skip
MUTABLE_CALLS: Final = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter"}
MUTATORS: Final = {
    "append", "add", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault",
    "update", "discard",
}  # fmt: skip


def has_mutable_state(module: Module) -> Iterator[str]:
    """A module-level table is Final and nobody writes to it; no function rebinds a global."""
    tables: set[str] = set()
    for node in module.tree.body:
        value = getattr(node, "value", None)
        if isinstance(value, MUTABLE_DISPLAYS) or called(value) in MUTABLE_CALLS:
            if not isinstance(node, ast.AnnAssign) or "Final" not in ast.unparse(node.annotation):
                yield f"line {node.lineno}: not Final"
            else:
                tables.add(ast.unparse(node.target))
    for inner in ast.walk(module.tree):
        if isinstance(inner, ast.Global):
            yield f"line {inner.lineno}: global"
        elif _written(inner) in tables:
            yield f"{_written(inner)} is written to"


def _written(node: ast.AST) -> str:
    """Return the plain name that a node writes into, or nothing."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        return ast.unparse(node.value)
    if called(node) in MUTATORS and isinstance(node, ast.Call):
        return ast.unparse(node.func).rpartition(".")[0]
    return ""


def is_long(module: Module) -> Iterator[str]:
    """No function is longer than 45 lines."""
    for function in functions(module):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        lines = (function.end_lineno or 0) - body[0].lineno + 1 if body else 0
        if lines > LONGEST_FUNCTION and f"{module.name}.{function.name}" not in LONGER:
            yield f"{function.name}: {lines} lines"


RULES: Final[tuple[Rule, ...]] = (
    imports_upwards,
    knows_adapters,
    does_io,
    builds_a_caller,
    imports_from_another_home,
    catches_all,
    is_undescribed,
    has_mutable_state,
    is_long,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_module(rule: Rule) -> None:
    """No module of taskmint breaks the rule."""
    assert offences(rule) == []


def test_the_workload_api_stub_is_imported_once_per_side() -> None:
    """A second copy of workload.proto in a process is refused: one module per side imports it."""
    importers: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        if any(name.startswith("spiffe._proto") for name in module.imports()):
            importers[module.layer].add(module.name)

    assert importers.keys() <= {"identity", "devstack"}
    assert all(len(names) == 1 for names in importers.values()), dict(importers)


@pytest.mark.parametrize(
    ("rule", "name", "code"),
    [
        (imports_upwards, "policy/x", "from taskmint.tasks.service import TaskService"),
        (imports_upwards, "vault/x", "from taskmint.ledger.rows import Row"),
        (imports_upwards, "vault/x", "def f():\n    from ..identity import prover"),
        (imports_upwards, "client/x", "import taskmint.policy.decide"),
        (imports_upwards, "devstack/x", "from taskmint import vault"),
        (imports_upwards, "tasks/x", "import taskmint.client.client"),
        (imports_upwards, "cli/x", "import taskmint.newcomer"),
        (knows_adapters, "tasks/x", "from taskmint.vault.client import VaultClient"),
        (does_io, "policy/x", "import os.path"),
        (does_io, "policy/x", "now = datetime.now()"),
        (does_io, "model/x", "open('x')"),
        (builds_a_caller, "api/x", "c = caller.Caller(1)"),
        (builds_a_caller, "tasks/x", "a = Approver('ann')"),
        (builds_a_caller, "api/x", "v = Vouched(statement, approver, 'key')"),
        (imports_from_another_home, "tasks/x", "import sqlite3"),
        (imports_from_another_home, "devstack/x", "from hvac.api import auth"),
        (catches_all, "api/x", "try: f()\nexcept Exception: log()"),
        (catches_all, "api/x", "try: f()\nexcept (ValueError, BaseException) as e: log(e)"),
        (catches_all, "api/x", "try: f()\nexcept: pass"),
        (is_undescribed, "api/x", "import os"),
        (is_undescribed, "api/__init__", "'Words.'\nfrom .x import y"),
        (has_mutable_state, "api/x", "CACHE = {}"),
        (has_mutable_state, "api/x", "SEEN: set[str] = set()"),
        (has_mutable_state, "api/x", "A: Final = {}\ndef f(): A['x'] = 1"),
        (has_mutable_state, "api/x", "A: Final = []\ndef f(): A.append(1)"),
        (has_mutable_state, "api/x", "a = 1\ndef f():\n    global a\n    a = 2"),
        (is_long, "api/x", "def f():\n" + "    g()\n" * 46),
    ],
)
def test_each_rule_notices(tmp_path: Path, rule: Rule, name: str, code: str) -> None:
    """A rule that notices nothing protects nothing."""
    path = tmp_path / f"{name}.py"
    path.parent.mkdir()
    path.write_text(code)

    assert list(rule(Module(path, tmp_path)))


def test_what_is_allowed_stays_allowed(tmp_path: Path) -> None:
    """Downwards, re-raised, Final and never written, short: no rule objects."""
    path = tmp_path / "tasks" / "x.py"
    path.parent.mkdir()
    path.write_text(
        "'Words.'\n"
        "from taskmint.model.state import TaskState\n"
        "from taskmint.ports import Clock\n"
        "TABLE: Final = {1: 2}\n"
        "def f():\n"
        "    try: g()\n"
        "    except BaseException:\n"
        "        undo()\n"
        "        raise\n"
    )
    module = Module(path, tmp_path)

    assert [what for rule in RULES for what in rule(module)] == []
