"""
The files the daemon reads at start and on reload: opened once, checked, read, never reopened.

What is parsed are the very bytes that were checked (reliability: swapped between check and use).
Root and whoever runs this are believed as owners, and `owners` besides: doctor, run by root, reads
what is the daemon's.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

from taskmint.errors import Code, ConfigError, Finding

Owners: TypeAlias = frozenset[int]

POLICY_FILE_BYTES: Final = 4 * 1024 * 1024
SMALL_FILE_BYTES: Final = 1024 * 1024


def read_policy_files(
    places: Iterable[str], owners: Owners = frozenset()
) -> list[tuple[str, bytes]]:
    """
    Read every policy file: files as named, directories as their *.yaml in order of name.

    Raises ConfigError(policy_invalid) naming every file and directory that cannot be trusted or
    read.
    """
    read: list[tuple[str, bytes]] = []
    findings: list[Finding] = []
    for path, answer in (each for place in places for each in _read_place(Path(place), owners)):
        if isinstance(answer, Finding):
            findings.append(answer)
        else:
            read.append((str(path), answer))
    if findings:
        raise ConfigError(Code.POLICY_INVALID, tuple(findings))
    return read


def is_policy_name(name: str) -> bool:
    """Whether a file of a directory is policy; what editors leave behind begins with a dot."""
    return name.endswith(".yaml") and not name.startswith(".")


def read_config_file(place: str) -> bytes:
    """Read the daemon's config under the same checks. Raises ConfigError(config_invalid)."""
    answer = _read(Path(place), POLICY_FILE_BYTES, frozenset())
    if isinstance(answer, Finding):
        raise ConfigError(Code.CONFIG_INVALID, (answer,))
    return answer


def read_small_file(place: str, owners: Owners = frozenset()) -> bytes:
    """Read a file that the config names under the same checks. Raises ConfigError."""
    answer = _read(Path(place), SMALL_FILE_BYTES, owners)
    if isinstance(answer, Finding):
        raise ConfigError(Code.CONFIG_INVALID, (answer,))
    return answer


def check_program(key: str, program: str, owners: Owners = frozenset()) -> None:
    """
    See that the program that the config names under `key` is there and can be run.

    What may be changed by others would run as the daemon, so it is held to the same checks; a link
    is followed, since programs often are links. Raises ConfigError(config_invalid).
    """
    if finding := _unfit(Path(program), owners):
        raise ConfigError(Code.CONFIG_INVALID, (replace(finding, key=key),))


def _unfit(program: Path, owners: Owners) -> Finding | None:
    try:
        status = program.stat()
    except OSError as error:
        return _finding(str(program), f"cannot be run: {error.strerror}", "check the path")
    if not stat.S_ISREG(status.st_mode) or not os.access(program, os.X_OK):
        return _finding(str(program), "is not a program", "name one, and run chmod +x on it")
    return _mistrust(program, status, owners)


def _read_place(place: Path, owners: Owners) -> Iterator[tuple[Path, bytes | Finding]]:
    """
    Read a file, or the *.yaml of a directory in order of name.

    Whoever may write in the directory may take files away or put old ones back, so it is held to
    the same checks as they are.
    """
    try:
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # no directory; what else is wrong, reading it says
        yield place, _read(place, POLICY_FILE_BYTES, owners)
        return
    try:
        if mistrust := _mistrust(place, os.fstat(directory), owners):
            yield place, mistrust
            return
        with os.scandir(directory) as entries:
            names = sorted(each.name for each in entries if is_policy_name(each.name))
        if not names:
            yield place, _finding(str(place), "no *.yaml file in it", "put a policy file there")
        for name in names:
            yield place / name, _read(place / name, POLICY_FILE_BYTES, owners, directory)
    finally:
        os.close(directory)


def _read(path: Path, cap: int, owners: Owners, directory: int | None = None) -> bytes | Finding:
    """Read a file by its path, or by its name in an open directory."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    name = path if directory is None else path.name
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        return _finding(str(path), f"cannot be opened: {error.strerror}", "check the path")
    try:
        return _checked(path, descriptor, cap, owners)
    except OSError as error:
        return _finding(str(path), f"cannot be read: {error.strerror}", "check the disk")
    finally:
        os.close(descriptor)


def _checked(path: Path, descriptor: int, cap: int, owners: Owners) -> bytes | Finding:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return _finding(str(path), "is not a regular file", "name a file")
    if mistrust := _mistrust(path, status, owners):
        return mistrust
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        content = file.read(cap + 1)
    if len(content) > cap:
        return _finding(str(path), f"is larger than {cap} bytes", "split it into several files")
    return content


def _mistrust(path: Path, status: os.stat_result, owners: Owners) -> Finding | None:
    """Find why what lies there need not be what an admin put there; None when it is."""
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return _finding(str(path), "is writable by group or others", f"run chmod go-w {path}")
    if status.st_uid not in {0, os.geteuid(), *owners}:
        return _finding(
            str(path), f"belongs to uid {status.st_uid}", "chown it to root or to the daemon"
        )
    return None


def _finding(file: str, problem: str, fix: str) -> Finding:
    return Finding(file, 1, 1, "", problem, fix)
