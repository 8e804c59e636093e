"""
Text with `{name}` placeholders in, text that cannot leave its place out.

Each context has an allow-list for what the policy itself writes there. What a value may bring is
the same everywhere and checked again when it is put in: one word of letters, digits, dash and
underscore, so no slash, dot, quote, brace, white space or control character.
"""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from taskmint.model.scope import Json, ParameterValue
from taskmint.yaml_document import quoted

Values: TypeAlias = Mapping[str, ParameterValue]

_OWN_OF_VAULT: Final = frozenset({"auth", "cubbyhole", "identity", "sys"})
_KV_NAMES: Final = frozenset({"data", "metadata"})
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9_./-]*", re.ASCII)
_BODY = re.compile(r"[^{}]*")
# Vault's own placeholders in statements, and ours.
_STATEMENT_PLACEHOLDER = re.compile(
    r"(\{\{(?:name|username|password|expiration)\}\})|\{([a-z][a-z0-9_]{0,31})\}", re.ASCII
)

ANY_SEGMENT: Final = "+"  # Vault's wildcard for one path segment
ANY_TEXT: Final = "*"  # Vault's wildcard at the end of a parameter's value


class Misplaced(Exception):
    """Raised when a value may not stand in a template: a bug of ours. Holds no value."""


@dataclass(frozen=True, slots=True)
class Template:
    """`literals[0] names[0] literals[1] … names[n-1] literals[n]`."""

    literals: tuple[str, ...]
    names: tuple[str, ...]

    def render(self, values: Values) -> str:
        """Put values in. Raises Misplaced for a value that is no word; every name has a value."""
        if not self.names:
            return self.literals[0]
        parts = [self.literals[0]]
        for name, literal in zip(self.names, self.literals[1:], strict=True):
            parts += (word(values[name]), literal)
        return "".join(parts)

    def written(self, values: Values) -> str:
        """Put in what is known, for people and for comparing; the rest stays `{name}`."""
        text = self.literals[0]
        for name, literal in zip(self.names, self.literals[1:], strict=True):
            text += f"{values.get(name, f'{{{name}}}')}{literal}"
        return text

    def __str__(self) -> str:
        return self.written({})


def word(value: ParameterValue) -> str:
    """Write a value as one word. Raises Misplaced."""
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    if not _VALUE.fullmatch(text):
        raise Misplaced("a value is one word of at most 64 letters, digits, dash, underscore")
    return text


def _split(text: str, allowed: re.Pattern[str], advice: str) -> Template:
    pieces = _PLACEHOLDER.split(text)
    literals, names = tuple(pieces[0::2]), tuple(pieces[1::2])
    for literal in literals:
        if "{" in literal or "}" in literal:
            raise ValueError(f"{quoted(text)} has a brace outside a placeholder like {{name}}")
        if not allowed.fullmatch(literal):
            raise ValueError(f"{quoted(text)} will not do here: {advice}")
    return Template(literals, names)


def parse_path(text: str) -> Template:
    """
    Read a path below a mount. Raises ValueError.

    A dot may stand in a literal but `.` and `..` are no segments, whatever a placeholder brings:
    values hold no dots and are never empty.
    """
    template = _split(text, _PATH, "a path is letters, digits and . _ - between slashes")
    for segment in text.split("/"):
        if segment in {"", ".", ".."}:
            raise ValueError(f"{quoted(text)} has an empty segment, a . or a ..")
    return template


def is_own_of_vault(path: str) -> bool:
    """
    Whether a path, mount included, is Vault's own: with it a task could give itself rights.

    The prefix may be a child namespace, so any segment counts. Behind `data` or `metadata` stand
    the names of a KV engine, which may be any.
    """
    mount, *inner = path.split("/")
    names = itertools.takewhile(lambda segment: segment not in _KV_NAMES, inner)
    return not _OWN_OF_VAULT.isdisjoint({mount, *names})


def path_pattern(path: Template, values: Values) -> str:
    """Render a path; each segment with a name that has no value becomes `+`."""
    segments = str(path).split("/")
    return "/".join(_segment_pattern(segment, values) for segment in segments)


def _segment_pattern(segment: str, values: Values) -> str:
    template = _split(segment, _PATH, "")
    if all(name in values for name in template.names):
        return template.render(values)
    return ANY_SEGMENT


BodyTemplate: TypeAlias = (
    "Template | int | bool | tuple[BodyTemplate, ...] | Mapping[str, BodyTemplate]"
)


def plain(text: str) -> Template:
    """Make a template of text that holds no placeholder, whatever stands in it."""
    return Template((text,), ())


def parse_text(text: str) -> Template:
    """
    Read a text that goes into a JSON body. Raises ValueError for a stray brace.

    A `*` at either end is refused: there the server's ACL would read it as a wildcard.
    """
    if text.startswith(ANY_TEXT) or text.endswith(ANY_TEXT):
        raise ValueError(f"{quoted(text)} begins or ends with *, which is a wildcard in an ACL")
    return _split(text, _BODY, "")


def parse_statement(text: str) -> Template:
    """
    Read a database statement: `{{name}}` and its kind are Vault's and stay, `{name}` is ours.

    Raises ValueError for any other brace, and for a `*` at the end: the server compares such a
    text with nothing. What is put in must be an enum: the compiler sees to it.
    """
    if text.endswith(ANY_TEXT):
        raise ValueError(f"{quoted(text)} ends with *, which is a wildcard in an ACL")
    literals, names = [""], []
    end = 0
    for match in _STATEMENT_PLACEHOLDER.finditer(text):
        literals[-1] += _no_brace(text, text[end : match.start()])
        end = match.end()
        if match[1]:
            literals[-1] += match[1]
        else:
            names.append(match[2])
            literals.append("")
    literals[-1] += _no_brace(text, text[end:])
    return Template(tuple(literals), tuple(names))


def _no_brace(text: str, literal: str) -> str:
    if "{" in literal or "}" in literal:
        raise ValueError(f"{quoted(text)} has a brace that is neither Vault's nor a placeholder's")
    return literal


def render_body(body: BodyTemplate, values: Values) -> Json:
    """Fill a body; a text that is one placeholder keeps its value's type. Raises Misplaced."""
    return _fill(body, lambda template: _text_value(template, values))


def body_pattern(body: BodyTemplate, values: Values) -> Json:
    """Fill a body; a text ends with `*` where the first name without a value stands."""
    return _fill(body, lambda template: _text_pattern(template, values))


def body_written(body: BodyTemplate, values: Values) -> Json:
    """Fill a body with what is known; every other name stays `{name}`."""
    return _fill(body, lambda template: template.written(values))


def _fill(body: BodyTemplate, text: Callable[[Template], Json]) -> Json:
    if isinstance(body, Template):
        return text(body)
    if isinstance(body, tuple):
        return [_fill(item, text) for item in body]
    if isinstance(body, Mapping):
        return {key: _fill(value, text) for key, value in body.items()}
    return body


def _text_value(template: Template, values: Values) -> Json:
    if len(template.names) == 1 and template.literals == ("", ""):
        value = values[template.names[0]]
        word(value)
        return value
    return template.render(values)


def _text_pattern(template: Template, values: Values) -> Json:
    known = 0
    while known < len(template.names) and template.names[known] in values:
        known += 1
    if known == len(template.names):
        return _text_value(template, values)
    head = Template(template.literals[: known + 1], template.names[:known])
    return head.render(values) + ANY_TEXT


def names_in(body: BodyTemplate) -> frozenset[str]:
    """Collect the placeholders of a body."""
    if isinstance(body, Template):
        return frozenset(body.names)
    inner = body if isinstance(body, tuple) else body.values() if isinstance(body, Mapping) else ()
    return frozenset[str]().union(*map(names_in, inner))
