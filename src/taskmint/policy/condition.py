"""
A CEL expression in, a condition that holds or does not out (https://cel.dev).

The library returns errors as values that Python takes for true (decisions.md, trap 11). So a
condition holds only when the result's type is BOOL and its value is True; everything else, an
exception included, is an error, and an error never holds.

The library is 14 MB and is loaded with the first condition of a policy, not before.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final, Protocol

from taskmint.yaml_model import closest

from .parameter import BooleanParameter, IntegerParameter, Parameter

MAX_TEXT: Final = 2000
MAX_ENVIRONMENTS: Final = 500  # each takes about 50 KiB
MAX_MACROS: Final = 3  # the library counts steps and no bytes; each macro may multiply what is held

_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MACRO: Final = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|filter|map)\s*\(", re.ASCII)
_STRING: Final = re.compile(
    r'[bBrR]{0,2}(?:"""(?s:.*?)"""|\'\'\'(?s:.*?)\'\'\'|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\')'
    r"|//[^\n]*"
)

# What every condition can see, and its CEL type. What is not `request` is proven or configured.
FIXED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "caller.spiffe_id": "STRING",
        "caller.trust_domain": "STRING",
        "caller.path": "STRING",
        "caller.uid": "INT",
        "caller.method": "STRING",
        "now": "TIMESTAMP",
        "history.grants": "INT",
        "history.denials": "INT",
        "history.processes": "INT",
        "request.purpose": "STRING",
        "request.ticket": "STRING",
        "request.context": "CONTEXT",
        "request.lifetime": "DURATION",
    }
)
CLAIMED: Final = "request."


class Outcome(Enum):
    """What became of a condition; only HOLDS grants."""

    HOLDS = "true"
    FAILS = "false"
    ERROR = "error"


class _Value(Protocol):
    def type(self) -> object: ...

    def value(self) -> object: ...


class _Expression(Protocol):
    def eval(self, *, data: Mapping[str, object]) -> _Value: ...

    def return_type(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Condition:
    """
    A compiled expression. `names` are the variables it may read: no other fact is handed to it.

    Equal texts over equal variables are one compiled expression, so conditions compare by text.
    """

    text: str
    names: tuple[str, ...]
    _expression: _Expression = field(repr=False, compare=False)
    _bool: object = field(repr=False, compare=False)

    def outcome(self, facts: Mapping[str, object]) -> Outcome:
        """Evaluate; a fact that is not there is an error when it decides."""
        known = {name: facts[name] for name in self.names if name in facts}
        try:
            result = self._expression.eval(data=known)
        # A budget, text that UTF-8 cannot hold, or more text than there is memory.
        except (RuntimeError, TypeError, ValueError, MemoryError):
            return Outcome.ERROR
        if result.type() != self._bool:
            return Outcome.ERROR
        return Outcome.HOLDS if result.value() is True else Outcome.FAILS

    @property
    def rests_on_claims(self) -> bool:
        """Whether everything it reads is the caller's own claim."""
        return all(name.startswith(CLAIMED) for name in self.names)


class BadCondition(ValueError):
    """Raised for a text that is no condition; says where in it, and what to write."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix


def variables(
    parameters: tuple[Parameter, ...], captures: frozenset[str], host_labels: frozenset[str]
) -> Mapping[str, str]:
    """Name every variable that a definition's conditions can read, with its CEL type."""
    named = {f"request.parameters.{each.name}": _type_of(each) for each in parameters}
    captured = {f"caller.captures.{name}": "STRING" for name in sorted(captures)}
    labels = {f"host.{name}": "STRING" for name in sorted(host_labels)}
    return {**FIXED, **named, **captured, **labels}


def _type_of(parameter: Parameter) -> str:
    if isinstance(parameter, BooleanParameter):
        return "BOOL"
    return "INT" if isinstance(parameter, IntegerParameter) else "STRING"


class Compiler:
    """Compiles conditions for one load; identical texts over identical variables once."""

    def __init__(self) -> None:
        self._environments: dict[tuple[tuple[str, str], ...], Any] = {}
        self._compiled: dict[tuple[str, tuple[tuple[str, str], ...]], Condition] = {}

    def compile(self, text: str, types: Mapping[str, str]) -> Condition:
        """Compile and type-check. Raises BadCondition."""
        if len(text) > MAX_TEXT:
            raise BadCondition(f"has more than {MAX_TEXT} characters", "write several conditions")
        if len(_MACRO.findall(_spoken(text))) > MAX_MACROS:
            problem = f"goes over lists more than {MAX_MACROS} times"
            raise BadCondition(problem, "write several conditions")
        # Only what the text may mean of a definition's own names: so most share one environment.
        own = [name for name in _mentioned(text, types) if name not in FIXED]
        signature = tuple((name, types[name]) for name in sorted(own))
        condition = self._compiled.get((text, signature))
        if condition is None:
            condition = self._compile(text, signature, types)
            self._compiled[text, signature] = condition
        return condition

    def _compile(
        self, text: str, signature: tuple[tuple[str, str], ...], types: Mapping[str, str]
    ) -> Condition:
        library = import_module("cel_expr_python.cel")
        try:
            expression = self._environment(library, signature).compile(text)
        except RuntimeError as error:
            raise _bad(str(error), types) from None
        if expression.return_type() != library.Type.BOOL:
            kind = expression.return_type().name().lower()
            raise BadCondition(f"is of type {kind}, not bool", "write a comparison")
        names = _mentioned(text, types)
        if not names:  # not evaluated to say which: it may ask for all the memory there is
            raise BadCondition("is always the same, whoever asks", "compare with a fact")
        return Condition(text, names, expression, library.Type.BOOL)

    def _environment(self, library: Any, signature: tuple[tuple[str, str], ...]) -> Any:
        known = self._environments.get(signature)
        if known is None:
            if len(self._environments) >= MAX_ENVIRONMENTS:
                problem = f"reads one more set of names of its own than {MAX_ENVIRONMENTS}"
                raise BadCondition(problem, "give parameters and captures common names")
            known = _environment(library, {**FIXED, **dict(signature)})
            self._environments[signature] = known
        return known


def _environment(library: Any, types: Mapping[str, str]) -> Any:
    text = library.Type.STRING
    known = {
        name: library.Type.Map(text, text) if kind == "CONTEXT" else getattr(library.Type, kind)
        for name, kind in types.items()
    }
    return library.NewEnv(variables=known)


def _mentioned(text: str, names: Iterable[str]) -> tuple[str, ...]:
    """Which variables may be meant: the last word of each stands somewhere outside strings."""
    words = frozenset(_WORD.findall(_spoken(text)))
    return tuple(name for name in names if name.rpartition(".")[2] in words)


def _spoken(text: str) -> str:
    """Blank out strings and comments: what stands in them is no name."""
    return _STRING.sub(" ", text)


def _bad(message: str, types: Mapping[str, str]) -> BadCondition:
    """Make a finding of the library's message: the first error, without its drawing."""
    match = _ERROR.search(message)
    if match is None:
        said = " ".join(message.split())[:120]
        return BadCondition(
            f"does not compile: {said}", "write it shorter, or as several conditions"
        )
    line, column, problem = match[1], match[2], match[3].removesuffix(" (in container '')")[:200]
    fix = "write an expression of CEL (cel.dev)"
    if undeclared := _UNDECLARED.search(problem):
        name = undeclared[1]
        if name.startswith("host."):
            fix = f"name {name.removeprefix('host.')} under host_labels, if nodes have it"
        else:
            fix = closest(name, types)
    return BadCondition(f"{problem}, at {line}:{column} of the expression", fix)
