"""What a terminal gets and a pipe does not: colour, a page drawn anew, signs of progress."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

import click

_PATIENCE_SECONDS: Final = 2.0
_CLEAR: Final = "\x1b[H\x1b[2J"  # ECMA-48: cursor home, erase the page
COLOURS: Final = {
    "active": "green",
    "ready": "green",
    "ok": "green",
    "revoking": "yellow",
    "warning": "yellow",
    "not_ready": "red",
    "failed": "red",
    "error": "red",
}


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at it."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(word: str, stream: TextIO | None = None) -> str:
    """Return a word in its colour; as it is off a terminal, and under NO_COLOR (no-color.org)."""
    target = sys.stdout if stream is None else stream
    colour = COLOURS.get(word)
    if colour is None or os.environ.get("NO_COLOR") or not is_terminal(target):
        return word
    return click.style(word, fg=colour)


def draw(text: str) -> None:
    """Show a page: in place of the last one on a terminal, below it elsewhere."""
    click.echo((_CLEAR if is_terminal(sys.stdout) else "") + text)


def pause(seconds: float) -> bool:
    """Wait; False when somebody pressed Ctrl-C meanwhile."""
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        return False
    return True


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Say every second what is being waited for, once it takes longer than two; on a terminal."""
    if not is_terminal(sys.stderr):
        yield
        return
    done = threading.Event()
    began = time.monotonic()

    def tell() -> None:
        if done.wait(_PATIENCE_SECONDS):
            return
        while True:
            click.echo(f"\r{what} … {time.monotonic() - began:.0f} s", nl=False, err=True)
            if done.wait(1.0):
                click.echo("\r\x1b[K", nl=False, err=True)
                return

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
