"""
Events to the journal by its native protocol, so that `journalctl TASKMINT_TASK=tm_…` finds them.

The message is the same JSON line that standard error would get; plain fields of the event stand
beside it. https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

import re
import socket
import struct
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

SOCKET: Final = Path("/run/systemd/journal/socket")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}", re.ASCII)
_LENGTH: Final = struct.Struct("<Q")
_IDENTIFIER: Final = "taskmint"


class Journal:
    """One socket; nothing is waited for: a journal that does not take an event says so at once."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        weakref.finalize(self, self._socket.close)  # loggers are not closed, they go

    def send(self, line: str, priority: int, event: Mapping[str, object]) -> None:
        """Send one event. Raises OSError: nobody there, no room, too long for a datagram."""
        fields = [
            ("MESSAGE", line),
            ("PRIORITY", str(priority)),
            ("SYSLOG_IDENTIFIER", _IDENTIFIER),
            *_plain(event),
        ]
        self._socket.sendto(b"".join(_encoded(*field) for field in fields), self._path)


def _plain(event: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Name the fields that are one value each: TASKMINT_EVENT, TASKMINT_TASK, TASKMINT_CODE, …"""
    for name, value in event.items():
        if isinstance(value, str | int | float) and _NAME.fullmatch(name):
            yield f"TASKMINT_{name.upper()}", str(value)


def _encoded(name: str, value: str) -> bytes:
    """NAME=value, or with its length where the value has lines."""
    data = value.encode(errors="backslashreplace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + _LENGTH.pack(len(data)) + data + b"\n"
