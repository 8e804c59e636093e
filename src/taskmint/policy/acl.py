"""
Vault ACL rules: values in, the one canonical text of a policy out, and back again.

The form is the HCL that Vault and OpenBao document for policies, always written the same way, so
that equal rights have equal text and a live policy can be compared rule by rule. Nothing here
reads a policy written by hand beyond saying on which line it leaves the form.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from taskmint.model.scope import Json

Capability: TypeAlias = Literal["create", "read", "update", "delete", "list"]
Values: TypeAlias = tuple[Json, ...]

_PATH: Final = re.compile(r'path (".*") \{')
_WORDS: Final = re.compile(r"  (capabilities|required_parameters) = (\[.*\])")
_VALUES: Final = re.compile(r'    (".*") = (\[.*\])')
_STRING: Final = re.compile(r'("(?:[^"\\]|\\.)*")')
_NOTHING_ALLOWED: Final = '  denied_parameters = { "*" = [] }'


@dataclass(frozen=True, slots=True)
class Rule:
    """
    What a token may do at one path.

    A segment `+` in `path` is any one segment and a final `*` any ending. `parameters` maps each
    allowed body field to its allowed values: none listed means any value, a string may begin or
    end with `*`. An empty mapping allows no field at all. `required` fields must be there.
    """

    path: str
    capabilities: tuple[Capability, ...]
    parameters: Mapping[str, Values]
    required: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveRule:
    """A rule as it stands in a live policy; None is a block that is not in our form."""

    line: int
    text: str
    rule: Rule | None


def as_server_sees(rule: Rule) -> Rule:
    """
    Drop what the server cannot compare, so that it allows any value there.

    A number in a request is of another type for it than a number in a policy, nested mappings are
    read as lists, and a `*` stands for something only in a text that is not inside a list or a
    mapping (OpenBao 2.7.2, `valueInParameterList`; each tried).
    """
    parameters = {
        name: values if all(is_compared(value) for value in values) else ()
        for name, values in rule.parameters.items()
    }
    return Rule(rule.path, rule.capabilities, parameters, rule.required)


def merge(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """
    Bring rules into the form that one policy can hold: one rule for each path, sorted.

    Where two share a path, the server allows every mixture of their fields' values; what the
    daemon sends is held to each rule by itself (predicate.py).
    """
    by_path: defaultdict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        by_path[rule.path].append(as_server_sees(rule))
    return tuple(_union(by_path[path]) for path in sorted(by_path))


def render(rules: Sequence[Rule]) -> str:
    """Write rules, as `merge` returns them, as the text of a policy."""
    return "\n".join(map(_block, rules))


def parse(text: str) -> tuple[LiveRule, ...]:
    """Read a policy's text block by block; what is not in our form comes without a rule."""
    lines = text.split("\n")
    starts = [index for index, line in enumerate(lines) if line and line[0] not in " }"]
    ends = [*starts[1:], len(lines)]
    if not starts:
        starts, ends = ([0], [len(lines)]) if text.strip() else ([], [])
    elif any(line.strip() for line in lines[: starts[0]]):
        starts, ends = [0, *starts], [starts[0], *ends]
    return tuple(
        LiveRule(start + 1, lines[start].strip(), _rule("\n".join(lines[start:end])))
        for start, end in zip(starts, ends, strict=True)
    )


def covers(wide: Rule, narrow: Rule) -> bool:
    """Say whether everything that `narrow` allows at its path, `wide` allows as well."""
    if wide.path != narrow.path or not set(narrow.capabilities) <= set(wide.capabilities):
        return False
    if not set(wide.required) <= set(narrow.required):
        return False
    return all(
        name in wide.parameters and _values_cover(wide.parameters[name], values)
        for name, values in narrow.parameters.items()
    )


def is_compared(value: Json) -> bool:
    """Whether the server holds a field to this value, rather than allowing any (as_server_sees)."""
    if isinstance(value, list):
        return all(_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_plain(item) for item in value.values())
    return isinstance(value, bool) or (isinstance(value, str) and value != "*")


def _plain(value: Json) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and not value.endswith("*"))


def _union(rules: Sequence[Rule]) -> Rule:
    first, *others = rules
    if not others:
        return first
    names = sorted({name for rule in rules for name in rule.parameters})
    parameters: dict[str, Values] = {}
    for name in names:
        stated = [rule.parameters[name] for rule in rules if name in rule.parameters]
        parameters[name] = _distinct(value for values in stated for value in values)
        if not all(stated):
            parameters[name] = ()
    required = set(first.required).intersection(*(rule.required for rule in others))
    capabilities = {word for rule in rules for word in rule.capabilities}
    return Rule(first.path, tuple(sorted(capabilities)), parameters, tuple(sorted(required)))


def _distinct(values: Iterable[Json]) -> Values:
    by_text = {_json(value): value for value in values}
    return tuple(by_text[text] for text in sorted(by_text))


def _block(rule: Rule) -> str:
    lines = [
        f"path {_hcl(rule.path)} {{",
        f"  capabilities = {_words(rule.capabilities)}",
    ]
    if rule.required:
        lines.append(f"  required_parameters = {_words(rule.required)}")
    if rule.parameters:
        lines.append("  allowed_parameters = {")
        lines += (
            f"    {_hcl(name)} = {_hcl(list(_distinct(rule.parameters[name])))}"
            for name in sorted(rule.parameters)
        )
        lines.append("  }")
    else:
        lines.append(_NOTHING_ALLOWED)
    return "\n".join([*lines, "}", ""])


def _rule(block: str) -> Rule | None:
    """Read one block, or nothing unless writing it again gives the same text."""
    lines = block.rstrip("\n").split("\n")
    words: dict[str, list[str]] = {}
    parameters: dict[str, Values] = {}
    try:
        head = _PATH.fullmatch(lines[0])
        path = json.loads(head[1]) if head else ""
        for line in lines[1:]:
            if match := _WORDS.fullmatch(line):
                words[match[1]] = json.loads(match[2])
            elif match := _VALUES.fullmatch(line):
                parameters[json.loads(match[1])] = tuple(_read_hcl(match[2]))
        capabilities = words.get("capabilities", [])
        known: tuple[Capability, ...] = ("create", "delete", "list", "read", "update")
        rule = Rule(
            path,
            tuple(word for word in known if word in capabilities),
            parameters,
            tuple(words.get("required_parameters", ())),
        )
        again = _block(rule)
    except (ValueError, TypeError):
        return None
    return rule if again.rstrip("\n") == block.rstrip("\n") else None


def _values_cover(wide: Values, narrow: Values) -> bool:
    if not wide:
        return True
    texts = {_json(value) for value in wide}
    return bool(narrow) and all(_json(value) in texts for value in narrow)


def _json(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _hcl(value: Json) -> str:
    """Write a value as HCL 1: JSON, but `=` in mappings, and no `${`, which begins a template."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{_hcl(key)} = {_hcl(value[key])}" for key in sorted(value))
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_hcl, value))}]"
    return _json(value).replace("${", "\\u0024{")


def _words(words: Iterable[str]) -> str:
    return f"[{', '.join(map(_json, sorted(words)))}]"


def _read_hcl(text: str) -> list[Json]:
    parts = _STRING.split(text)  # every second part is a string, quotes and all
    parts[::2] = [part.replace(" = ", ": ") for part in parts[::2]]
    value = json.loads("".join(parts))
    if not isinstance(value, list):
        raise TypeError("a list was expected")
    return value
