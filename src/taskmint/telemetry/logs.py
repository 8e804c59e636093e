"""
Events to lines on stderr: JSON for machines, columns when a person looks at a terminal.

Where stderr is the journal's, events go to the journal itself, with fields (journal.py); one that
it does not take goes to stderr all the same.

Event names are constant, what varies stands in fields. Only plain data is shown (fields.py) and
tracebacks hold no values (tracebacks.py). A line that nobody takes is lost, not waited for.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from .fields import shown
from .journal import SOCKET, Journal
from .tracebacks import render

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
# sd-daemon(3): journald takes the priority from such a prefix and removes it.
_PRIORITIES: Final[Mapping[str, int]] = {
    "debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2,
}  # fmt: skip
_ALERT: Final = 1  # syslog(3): what `alarm=True` stands for

_JOURNAL_FIX: Final = "run systemctl restart systemd-journald; until then lines go to stderr"


def configure(
    level: str = "info",
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
    journal: Path = SOCKET,
) -> structlog.stdlib.BoundLogger:
    """
    Send the process's logs to `stream` (stderr) from `level` on; return the root logger.

    Call it once, at the start: it sets structlog's and the standard library's globals, so that
    what libraries log comes out in the same form. Raises KeyError for an unknown level.
    """
    target = sys.stderr if stream is None else stream
    lines: _Lines = _Lines(target)
    if target.isatty():
        plain = structlog.dev.plain_traceback
        form: Any = structlog.dev.ConsoleRenderer(repr_native_str=True, exception_formatter=plain)
    else:
        form = _render
        if _is_journal(target, os.environ if environ is None else environ):
            form, lines = _render_for_journal, _JournalOrLines(target, journal)
    structlog.configure(
        processors=[
            _Threshold(LEVELS[level]),
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            _redact,
            _stamp,
            form,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    log: structlog.stdlib.BoundLogger = structlog.get_logger()
    logging.basicConfig(
        handlers=[_FromLibraries(log)], level=max(LEVELS[level], logging.WARNING), force=True
    )
    return log


class _Lines:
    """Writes lines; a reader that has gone away must not end a task."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        """Write one line; lose it when nobody can take it."""
        with suppress(OSError, ValueError):  # ValueError: the stream is closed
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = exception = critical = write


class _JournalOrLines(_Lines):
    """Sends to the journal; what it does not take is a line on stderr, with its priority."""

    def __init__(self, stream: TextIO, journal: Path) -> None:
        super().__init__(stream)
        self._journal = Journal(journal)
        self._reached = True

    def write(self, line: str, event: Mapping[str, object] | None = None) -> None:
        """Send one event, or write it; say once that the journal is not reached."""
        level = str((event or {}).get("level", "info"))
        priority = _ALERT if (event or {}).get("alarm") is True else _PRIORITIES[level]
        try:
            self._journal.send(line, priority, event or {})
        except OSError as error:
            if self._reached:
                self._reached = False
                said = {"level": "warning", "event": "journal_unreachable", "fix": _JOURNAL_FIX}
                super().write(f"<4>{json.dumps({**said, 'reason': error.strerror})}")
            super().write(f"<{priority}>{line}")
        else:
            self._reached = True

    debug = info = warning = error = exception = critical = write


class _FromLibraries(logging.Handler):
    """Hands on what libraries log; the first line only, for asyncio goes on with reprs."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage().partition("\n")[0]
        level = max((at for at in LEVELS.values() if at <= record.levelno), default=logging.DEBUG)
        self._log.log(
            level,
            "library_message",
            library=record.name,
            message=message,
            exc_info=record.exc_info,
        )


class _Threshold:
    """Drops what lies below a level."""

    def __init__(self, least: int) -> None:
        self._least = least

    def __call__(self, _: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if LEVELS[_level(method)] < self._least:
            raise structlog.DropEvent
        return event


def _level(method: str) -> str:
    return "error" if method == "exception" else method


def _redact(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
    del method
    exc_info = event.pop("exc_info", None)
    safe: EventDict = {key: shown(value) for key, value in event.items()}
    if text := render(exc_info):
        safe["exception"] = text
    return safe


def _stamp(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
    del method
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    first = {"timestamp": now[:-6] + "Z", "level": event["level"], "event": event["event"]}
    return {**first, **event}


def _render(_: WrappedLogger, method: str, event: EventDict) -> str:
    del method
    return json.dumps(event)  # ASCII: no control character or separator of any kind passes


def _render_for_journal(
    _: WrappedLogger, method: str, event: EventDict
) -> tuple[tuple[str, EventDict], dict[str, object]]:
    """Return what structlog hands to the writer: the line, and the event for its fields."""
    del method
    return (json.dumps(event), event), {}


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream is the journal's socket (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # io.UnsupportedOperation is both
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
