"""
YAML bytes in, a tree out whose every node knows its line and column. Opens no file.

YAML's own ideas stop here: a scalar stays text (the schema types it), and what makes YAML
surprising is refused: repeated keys, anchors, aliases, tags, merge keys, several documents,
invisible characters. Everything that is wrong is reported at once, as far as the text parses.

It works on the parser's events, one at a time, so a bomb under the size cap is met by our own
caps on depth and nodes before anything recurses or grows.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import yaml

from .errors import Finding

MAX_BYTES: Final = 4 * 1024 * 1024  # decisions.md: 4 MiB each
MAX_DEPTH: Final = 24  # the policy schema needs 10
MAX_NODES: Final = 300_000  # a policy of 4 MiB has about 200,000
MAX_FINDINGS: Final = 100

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Control characters, a carriage return that ends no line (some show it as one, YAML does), what
# Unicode calls default ignorable, every white space but space and tab, the blank of braille.
_INVISIBLE = re.compile(
    "\r(?!\n)|"
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\xa0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5"
    "\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufffb\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_NOT_YAML: Final = "look at the indentation and the quotes, here and in the line above"
_WORD = re.compile(r"[A-Za-z0-9_-]{1,60}", re.ASCII)
_YAML_1_2_NUMBER = re.compile(r"0o[0-7]+|[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)(?:[eE][-+]?[0-9]+)")
_GUESSES: Final = {
    "tag:yaml.org,2002:bool": "true or false",
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "a date",
    "tag:yaml.org,2002:merge": "a merge key",
    "tag:yaml.org,2002:value": "a default value",
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text as written; `plain` means without quotes, where YAML would have guessed a type."""

    text: str
    plain: bool
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple["Node", ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping from text; `keys` holds where each key stands."""

    entries: dict[str, "Node"]
    keys: dict[str, tuple[int, int]]
    line: int
    column: int


Node: TypeAlias = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Document:
    """What could be read of a file, and everything that is wrong with it as YAML."""

    file: str
    root: Node | None
    findings: tuple[Finding, ...]


def quoted(text: str, *, limit: int = 60) -> str:
    """Return text fit for a sentence: double quotes, escapes, an ellipsis beyond `limit`."""
    shown = text if len(text) <= limit else text[:limit] + "…"
    escaped = shown.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'


def key_path(steps: Iterable[str | int]) -> str:
    """Join keys and indexes as they are read aloud: `tasks.report.who[0]`."""
    path = ""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            name = step if _WORD.fullmatch(step) else quoted(step)
            path += f".{name}" if path else name
    return path


def yaml_guess(text: str) -> str | None:
    """Say what YAML 1.1 or 1.2 makes of an unquoted scalar, or None when it stays text."""
    resolvers = yaml.resolver.Resolver.yaml_implicit_resolvers
    for tag, pattern in resolvers.get(text[:1], ()):
        if pattern.match(text):
            return _GUESSES[tag]
    return "a number" if _YAML_1_2_NUMBER.fullmatch(text) else None


def parse_document(file: str, content: bytes) -> Document:
    """Read one YAML document; never raises for what the bytes hold."""
    if len(content) > MAX_BYTES:
        return _unreadable(file, f"has more than {MAX_BYTES} bytes", "split it into several files")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return _unreadable(file, "is not UTF-8", "save it as UTF-8", line=line)
    if hidden := _INVISIBLE.search(text):
        line = text.count("\n", 0, hidden.start()) + 1
        column = hidden.start() - text.rfind("\n", 0, hidden.start())
        problem = f"holds the invisible character U+{ord(hidden[0]):04X}"
        return _unreadable(file, problem, "remove it", line=line, column=column)
    return _Builder(file).build(text)


def _unreadable(file: str, problem: str, fix: str, *, line: int = 1, column: int = 1) -> Document:
    return Document(file, None, (Finding(file, line, column, "", problem, fix),))


@dataclass(slots=True)
class _Frame:
    """A collection that is still open; `key` is a mapping's key that waits for its value."""

    start: yaml.events.CollectionStartEvent
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    key: str | None = None
    skip: int = 0  # nodes still to read and drop: a refused key, its value

    @property
    def awaits_key(self) -> bool:
        mapping = isinstance(self.start, yaml.MappingStartEvent)
        return mapping and self.key is None and not self.skip


class _TooMuch(Exception):
    """Raised inside this module when a cap is reached."""


class _Builder:
    """Builds the tree from events, without recursion."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._findings: list[Finding] = []
        self._open: list[_Frame] = []
        self._root: Node | None = None
        self._documents = 0
        self._nodes = 0

    def build(self, text: str) -> Document:
        """Read all events; what stops the parser is the last finding."""
        try:
            for event in self._events(text):
                self._take(event)
            if self._root is None and not self._findings:
                self._find(1, 1, "is empty", "write a mapping")
        except _TooMuch:
            self._root = None
        return Document(self._file, self._root, tuple(self._findings))

    def _events(self, text: str) -> Iterator[yaml.events.Event]:
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            self._find(line, column, f"is not YAML: {error.problem or error.context}", _NOT_YAML)
            self._root = None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self._find(line, 1, f"is not YAML: {error.reason}", _NOT_YAML)
            self._root = None

    def _take(self, event: yaml.events.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._refuse(event, "a file holds one document", "move it into a file of its own")
                raise _TooMuch
        elif isinstance(event, yaml.NodeEvent):
            self._count(event)
            self._take_node(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()

    def _count(self, event: yaml.events.Event) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse(event, f"a file holds at most {MAX_NODES} values", "split the file")
            raise _TooMuch
        if len(self._open) >= MAX_DEPTH:
            self._refuse(event, f"nesting is deeper than {MAX_DEPTH}", "flatten it")
            raise _TooMuch

    def _take_node(self, event: yaml.events.NodeEvent) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, "aliases are not allowed", "write the value out")
        elif event.anchor is not None:
            self._refuse(event, "anchors are not allowed", f"remove &{event.anchor[:40]}")
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)) and event.tag:
            self._refuse(event, "tags are not allowed", f"remove {quoted(event.tag)}")
        if self._open and self._open[-1].awaits_key:
            self._take_key(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open.append(_Frame(event))
        else:
            self._store(self._scalar(event))

    def _take_key(self, event: yaml.events.NodeEvent) -> None:
        frame = self._open[-1]
        if isinstance(event, yaml.CollectionStartEvent):
            self._refuse(event, "a key is a plain word", "write text as the key")
            frame.skip = 2
            self._open.append(_Frame(event))
            return
        if isinstance(event, yaml.AliasEvent):
            frame.skip = 1
            return
        scalar = self._scalar(event)
        guess = yaml_guess(scalar.text) if scalar.plain else None
        if scalar.plain and scalar.text == "<<":
            self._refuse(event, "merge keys are not allowed", "write the keys out")
        elif guess:
            self._refuse(event, f"YAML reads this key as {guess}", f"write {quoted(scalar.text)}")
        elif scalar.text in frame.keys:
            line, column = frame.keys[scalar.text]
            problem = f"the key {quoted(scalar.text)} stands here twice"
            self._refuse(event, problem, f"the first is at {line}:{column}")
            frame.skip = 1
            return
        frame.key = scalar.text
        frame.keys[scalar.text] = (scalar.line, scalar.column)

    def _close(self) -> None:
        frame = self._open.pop()
        line, column = _position(frame.start)
        if isinstance(frame.start, yaml.MappingStartEvent):
            self._store(Mapping(frame.entries, frame.keys, line, column))
        else:
            self._store(Sequence(tuple(frame.items), line, column))

    def _store(self, node: Node) -> None:
        if not self._open:
            self._root = node
            return
        frame = self._open[-1]
        if isinstance(frame.start, yaml.SequenceStartEvent):
            frame.items.append(node)
        elif frame.key is not None:
            frame.entries[frame.key] = node
            frame.key = None
        else:
            frame.skip -= 1

    def _scalar(self, event: yaml.events.NodeEvent) -> Scalar:
        line, column = _position(event)
        if not isinstance(event, yaml.ScalarEvent):
            return Scalar("", True, line, column)  # an alias, refused above
        if event.style == '"' and (hidden := _INVISIBLE.search(event.value)):
            problem = f"holds the invisible character U+{ord(hidden[0]):04X}"
            self._refuse(event, problem, "remove its escape")
        return Scalar(event.value, not event.style, line, column)

    def _refuse(self, event: yaml.events.Event, problem: str, fix: str) -> None:
        line, column = _position(event)
        self._find(line, column, problem, fix)

    def _find(self, line: int, column: int, problem: str, fix: str) -> None:
        key = key_path(frame.key for frame in self._open if frame.key is not None)
        self._findings.append(Finding(self._file, line, column, key, problem, fix))
        if len(self._findings) >= MAX_FINDINGS:
            raise _TooMuch


def _position(event: yaml.events.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
