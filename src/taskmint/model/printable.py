"""Somebody else's text to text that a terminal or a log line shows and does not act on."""

import json


def printable(text: str, *, instead: str | None = None) -> str:
    """
    Escape what does not print as JSON does, or put `instead` in its place.

    That is controls, line ends, and what changes the direction of a line (str.isprintable).
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else _escaped(letter) if instead is None else instead
        for letter in text
    )


def _escaped(letter: str) -> str:
    written = json.dumps(letter)[1:-1]
    return f"\\u{ord(letter):04x}" if written == letter else written  # JSON lets DEL stand
