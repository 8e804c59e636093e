"""A page of metrics read as Prometheus reads it, and PromQL asked of two of them."""

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import promql_parser

LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')
SAMPLE: Final = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)"
)

Labels = tuple[tuple[str, str], ...]
Vector = dict[Labels, float]

_COMPARES: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt, "<": operator.lt, "==": operator.eq,
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One line."""

    name: str
    labels: dict[str, str]
    value: float


def read(text: str) -> list[Sample]:
    """Every sample of a page."""
    return [
        Sample(found["name"], dict(LABEL.findall(found["labels"] or "")), float(found["value"]))
        for line in text.splitlines()
        if line[:1] != "#" and (found := SAMPLE.fullmatch(line))
    ]


def nodes(node: Any) -> Iterator[Any]:
    """An expression and everything in it."""
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        if (inner := getattr(node, name, None)) is not None:
            yield from nodes(inner)
    for inner in getattr(node, "args", ()):
        yield from nodes(inner)


def selectors(expression: str) -> Iterator[Any]:
    """The vector selectors of an expression. Raises ValueError when it does not parse."""
    for node in nodes(promql_parser.parse(expression)):
        if isinstance(node, promql_parser.VectorSelector):
            yield node


def grouped_by(expression: str) -> Iterator[tuple[str, list[str]]]:
    """Each metric that is aggregated, with the labels it is aggregated by."""
    for node in nodes(promql_parser.parse(expression)):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            for inner in nodes(node.expr):
                if isinstance(inner, promql_parser.VectorSelector):
                    yield str(inner.name), list(node.modifier.labels)


def ask(expression: str, before: list[Sample], after: list[Sample]) -> Vector:
    """
    Evaluate what our alert rules are made of, over two scrapes; a range is from one to the other.

    Quantiles and aggregations are left out: nothing is said of them, by NotImplementedError.
    """
    return _vector(promql_parser.parse(expression), before, after)


def _vector(node: Any, before: list[Sample], after: list[Sample]) -> Vector:
    match node:
        case promql_parser.VectorSelector():
            return _selected(node, after)
        case promql_parser.NumberLiteral():
            return {(): node.val}
        case promql_parser.BinaryExpr():
            return _binary(node, before, after)
        case promql_parser.Call() if node.func.name == "absent":
            return {} if _vector(node.args[0], before, after) else {(): 1.0}
        case promql_parser.Call() if node.func.name in {"increase", "changes"}:
            selector = node.args[0].vector_selector
            old, new = _selected(selector, before), _selected(selector, after)
            grown = {labels: value - old.get(labels, 0.0) for labels, value in new.items()}
            if node.func.name == "changes":
                return {labels: float(value != 0) for labels, value in grown.items()}
            return grown
    raise NotImplementedError(type(node).__name__)


def _binary(node: Any, before: list[Sample], after: list[Sample]) -> Vector:
    left, right = (_vector(side, before, after) for side in (node.lhs, node.rhs))
    word = str(node.op)
    if word == "or":
        return right | left
    if word == "/":
        return {key: left[key] / right[key] for key in left.keys() & right.keys()}
    (bound,) = right.values()
    return {key: value for key, value in left.items() if _COMPARES[word](value, bound)}


def _selected(selector: Any, page: list[Sample]) -> Vector:
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for sample in page
        if sample.name == selector.name and _matches(selector, sample.labels)
    }


def _matches(selector: Any, labels: Mapping[str, str]) -> bool:
    for matcher in selector.matchers.matchers:
        value = labels.get(matcher.name, "")
        word = str(matcher.op).removeprefix("MatchOp.")
        if word in {"Equal", "NotEqual"}:
            equal = value == matcher.value
        else:
            equal = re.fullmatch(matcher.value, value) is not None
        if equal == word.startswith("Not"):
            return False
    return True


def fires(vector: Vector) -> bool:
    """Whether an alert with this result would fire."""
    return any(not math.isnan(value) for value in vector.values())
