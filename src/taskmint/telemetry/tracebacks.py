"""
Exceptions to text without values: files, lines, code and types.

The message is shown for our own errors, whose texts are safe by contract, and for the operating
system's. Any other may quote a token or a body, so its type has to do.
"""

import sys
import traceback
from collections.abc import Iterator
from typing import Final

from taskmint.errors import TaskmintError

_LONGEST: Final = 16_384
_LONGEST_CHAIN: Final = 10


def said(error: BaseException) -> str:
    """Return the type of an exception, and its text where that is safe."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    if isinstance(error, TaskmintError | OSError):
        return f"{name}: {error}"
    return name


def render(exc_info: object) -> str:
    """
    Return a traceback for what loggers take as `exc_info`: an exception, its triple, True.

    Empty when there is no exception. Causes come first, as Python prints them.
    """
    error = _exception(exc_info)
    if error is None:
        return ""
    text = "\n".join(_lines(error))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 5] + "[cut]"


def _exception(exc_info: object) -> BaseException | None:
    if exc_info is True:
        exc_info = sys.exc_info()[1]
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def _lines(error: BaseException) -> Iterator[str]:
    chain = [error]
    while len(chain) < _LONGEST_CHAIN:
        last = chain[-1]
        before = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if before is None or before in chain:
            break
        chain.append(before)
    for link in reversed(chain):
        for frame in traceback.extract_tb(link.__traceback__):
            yield f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"
        yield said(link)
        if isinstance(link, BaseExceptionGroup):
            for inner in link.exceptions[:_LONGEST_CHAIN]:
                yield from (f"  {line}" for line in _lines(inner))
