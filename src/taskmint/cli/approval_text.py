"""
A request that waits, as its approvers read it: everything that they sign, each fact in a row.

What callers wrote is quoted as JSON strings are, and what a terminal would act on is escaped, so
that no text can look like a row of ours and two plans never look the same.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from taskmint.model.printable import printable

from .admin_socket import table

_HEAD: Final = ("TASK", "STATE", "DEFINITION", "CALLER", "TICKET", "APPROVED", "UNTIL")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
# What the first rows tell; everything else that the plan holds is listed as it is.
_TOLD: Final = {"task", "definition", "caller", "parameters", "purpose", "ticket", "context"}

Row = tuple[str, str]


def list_text(reply: Mapping[str, Any]) -> str:
    """Write what waits, a line each."""
    rows = [
        (
            one["id"],
            one["state"],
            one["definition"],
            one["approval"]["plan"]["caller"]["spiffe_id"],
            one["approval"]["plan"]["ticket"] or "",
            f"{one['approval']['given']} of {one['approval']['quorum']}",
            one["approval"]["until"],
        )
        for one in reply["requests"]
    ]
    return table([_HEAD, *rows]) if rows else "nothing waits for an approval"


def show_text(reply: Mapping[str, Any]) -> str:
    """Write one request: the whole plan, what is unusual about it, and how far its approval is."""
    shown = reply["approval"]
    return table(
        [
            ("task", f"{reply['id']}, {reply['state']}"),
            *_plan(shown["plan"]),
            *_history(reply["unusual"]),
            ("needs", f"{shown['quorum']} of {', '.join(shown['approvers'])}"),
            ("approved", ", ".join(reply["approved_by"]) or "by nobody yet"),
            ("until", shown["until"]),
            ("plan", shown["scope_digest"]),
            ("policy", shown["policy_digest"]),
            *((("over", shown["why"]),) if shown["why"] else ()),
        ]
    )


def done_text(reply: Mapping[str, Any]) -> str:
    """Write how far the approval is."""
    shown = reply["approval"]
    return printable(
        f"{reply['id']}: {reply['state']}, {shown['given']} of {shown['quorum']} have approved"
    )


def _plan(plan: Mapping[str, Any]) -> Iterator[Row]:
    caller, scope = plan["caller"], plan["scope"]
    yield "who", f"{caller['spiffe_id']}, uid {caller['uid']}, by {caller['method']}"
    yield "what", plan["definition"]
    yield from _labelled("with", _facts(plan["parameters"]))
    yield from _labelled("context", _facts(plan["context"]))
    yield from _labelled("why", _quoted(plan["purpose"]) if plan["purpose"] else ["(not said)"])
    yield "ticket", "(none)" if plan["ticket"] is None else "".join(_quoted(plan["ticket"]))
    yield "for", f"{scope['lifetime_seconds']:g} s, on a lease of {scope['dead_man_seconds']:g} s"
    for name, item in scope["entitlements"].items():
        yield "gives", f"{name}: {item['method']} {item['mount']}/{item['path']}"
        rest = {key: item[key] for key in item if key not in {"method", "mount", "path"}}
        yield from _labelled("", (f"  {fact}" for fact in _facts(rest)))
    yield from _labelled("ends", _facts(scope["ends"]))
    yield from _labelled("scope", _facts(_without(scope, {"entitlements", "ends"})))
    yield from _labelled("also", _facts(_without(plan, {*_TOLD, "scope"})))


def _history(unusual: Mapping[str, Any]) -> Iterator[Row]:
    yield "history", f"{unusual['starts']} starts since the daemon started"
    for request in unusual["never"]:
        yield "NEW", f"{request}: never given to it before"
    for name, count in unusual["before"].items():
        yield "usual", f"{name}: {count} times"


def _labelled(label: str, lines: Iterator[str] | list[str]) -> Iterator[Row]:
    """Put a label before the first of several lines."""
    for line in lines:
        yield label, line
        label = ""


def _facts(value: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """List everything an object holds, `name.inner[0] = value`, whatever it may be."""
    for key, inner in value.items():
        name = key if _PLAIN.fullmatch(key) else "".join(_quoted(key))
        yield from _fact(path + name, inner)


def _fact(name: str, value: object) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        yield from _facts(value, f"{name}.")
    elif isinstance(value, list) and value:
        for at, item in enumerate(value):
            yield from _fact(f"{name}[{at}]", item)
    else:
        first, *others = _quoted(value)
        yield f"{name} = {first}"
        yield from (f"  {other}" for other in others)


def _quoted(value: object) -> list[str]:
    """Write a value as JSON; a string with several lines, such as SQL, in as many pieces."""
    pieces = value.splitlines(keepends=True) if isinstance(value, str) and value else [value]
    return [printable(json.dumps(piece, ensure_ascii=False)) for piece in pieces]


def _without(value: Mapping[str, Any], told: set[str]) -> dict[str, Any]:
    return {key: value[key] for key in value if key not in told}
