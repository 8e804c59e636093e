"""
How credentials reach the wrapped command: in variables of its environment, in files on tmpfs.

Never in its arguments, which every process of the machine may read. Files are made by us, mode
0600, never over something that is there, and removed when the command has ended.
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from taskmint.client.answers import Credential

_ENTITLEMENT: Final = r"[A-Za-z0-9_-]{1,64}"
_ENV = re.compile(rf"([A-Za-z_][A-Za-z0-9_]*)=({_ENTITLEMENT})\.([^\0]+)")
_FILE = re.compile(rf"([^=\0]+)=({_ENTITLEMENT})(?:\.([^:\0]+)|:([^\0]+))?", re.DOTALL)
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


class DeliveryError(Exception):
    """Raised when a credential cannot be delivered as asked; the sentence holds no secret."""


class Variable(NamedTuple):
    """`VAR=entitlement.field`."""

    name: str
    entitlement: str
    field: str


class File(NamedTuple):
    """`PATH=entitlement[.field|:template]`; without either, all of the data as JSON."""

    path: str
    entitlement: str
    field: str | None
    template: str | None


def parse_env(text: str) -> Variable:
    """Read the value of --env. Raises ValueError."""
    found = _ENV.fullmatch(text)
    if found is None:
        raise ValueError("write it as VAR=entitlement.field")
    return Variable(found[1], found[2], found[3])


def parse_file(text: str) -> File:
    """Read the value of --file. Raises ValueError."""
    found = _FILE.fullmatch(text)
    if found is None:
        raise ValueError(
            "write it as PATH=entitlement, =entitlement.field or =entitlement:template"
        )
    return File(found[1], found[2], found[3], found[4])


class Delivery:
    """What --env and --file asked for."""

    def __init__(self, variables: Sequence[Variable], files: Sequence[File]) -> None:
        self._variables = variables
        self._files = files
        self._written: list[str] = []

    def environment(self, credentials: Mapping[str, Credential]) -> dict[str, str]:
        """Return our environment with the variables set. Raises DeliveryError."""
        filled = {
            variable.name: _as_text(_pick(credentials, variable.entitlement, variable.field))
            for variable in self._variables
        }
        for name, value in filled.items():
            if "\0" in value:
                raise DeliveryError(f"{name}: the value holds a NUL, which no variable can carry")
        return {**os.environ, **filled}

    def write(self, credentials: Mapping[str, Credential]) -> None:
        """Write the files. Raises DeliveryError; `remove` takes back those already written."""
        for file in self._files:
            content = _content(file, credentials)
            _create(file.path, content.encode(), self._written)

    def remove(self) -> None:
        """Remove what `write` made; what the command itself removed is no error."""
        while self._written:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._written.pop())  # noqa: PTH108 - pathlib costs every run 4 ms


def _content(file: File, credentials: Mapping[str, Credential]) -> str:
    if file.template is not None:
        return _render(file.template, credentials, file.entitlement)
    return _as_text(_pick(credentials, file.entitlement, file.field))


def _pick(credentials: Mapping[str, Credential], entitlement: str, field: str | None) -> Any:
    """Return all of an entitlement's data, or what lies under a dotted field."""
    if entitlement not in credentials:
        known = ", ".join(sorted(credentials)) or "none"
        raise DeliveryError(f"the task has no entitlement {entitlement!r} (it has: {known})")
    value: Any = dict(credentials[entitlement].data)
    for key in field.split(".") if field else ():
        if not isinstance(value, dict) or key not in value:
            raise DeliveryError(f"the credential {entitlement!r} has no field {field!r}")
        value = value[key]
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _render(template: str, credentials: Mapping[str, Credential], entitlement: str) -> str:
    """Replace `{field}` by its value; `{{` and `}}` stand for the braces themselves."""

    def replacement(found: re.Match[str]) -> str:
        if found[0] in {"{{", "}}"}:
            return found[0][0]
        if not found[1]:
            raise DeliveryError("a template's braces stand around a field; {{ and }} are braces")
        return _as_text(_pick(credentials, entitlement, found[1]))

    return _PLACEHOLDER.sub(replacement, template)


def _create(path: str, content: bytes, written: list[str]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        raise DeliveryError(f"{path} is there already; it is not overwritten") from None
    except OSError as error:
        raise DeliveryError(f"{path}: {error.strerror}") from None
    written.append(path)
    try:
        os.fchmod(descriptor, 0o600)
        if not _in_memory(os.fstat(descriptor).st_dev):
            raise DeliveryError(
                f"{path} would be on a disk; choose a place on tmpfs, for example below "
                "$XDG_RUNTIME_DIR or /dev/shm"
            )
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(content)
    except OSError as error:
        raise DeliveryError(f"{path}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _in_memory(device: int) -> bool:
    """Whether a file system that holds nothing on a disk has this number (proc(5), mountinfo)."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:  # noqa: PTH123 - as above
        lines = mounts.readlines()
    for line in lines:
        before, _, after = line.partition(" - ")
        if before.split()[2] == number:
            return after.split()[0] in _IN_MEMORY
    return False
