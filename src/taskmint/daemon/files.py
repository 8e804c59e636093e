"""
The files the daemon reads at start and on reload: opened once, checked, read, never reopened.

What is parsed are the very bytes that were checked (reliability: swapped between check and use).
"""

import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from taskmint.errors import Code, ConfigError, Finding
from taskmint.model.task_id import is_node_id

POLICY_FILE_BYTES: Final = 4 * 1024 * 1024
SMALL_FILE_BYTES: Final = 1024 * 1024
_GENERATED_ID_BYTES: Final = 5


def read_policy_files(places: Iterable[str]) -> list[tuple[str, bytes]]:
    """
    Read every policy file: files as named, directories as their *.yaml in order of name.

    Raises ConfigError(policy_invalid) naming every file that cannot be trusted or read.
    """
    read: list[tuple[str, bytes]] = []
    findings: list[Finding] = []
    for place in places:
        path = Path(place)
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not files:
            findings.append(_finding(place, "no *.yaml file in it", "put a policy file there"))
        for file in files:
            answer = _read(file, POLICY_FILE_BYTES)
            if isinstance(answer, Finding):
                findings.append(answer)
            else:
                read.append((str(file), answer))
    if findings:
        raise ConfigError(Code.POLICY_INVALID, tuple(findings))
    return read


def read_config_file(place: str) -> bytes:
    """Read the daemon's config under the same checks. Raises ConfigError(config_invalid)."""
    answer = _read(Path(place), POLICY_FILE_BYTES)
    if isinstance(answer, Finding):
        raise ConfigError(Code.CONFIG_INVALID, (answer,))
    return answer


def read_small_file(place: str) -> bytes:
    """Read a file that the config names under the same checks. Raises ConfigError."""
    answer = _read(Path(place), SMALL_FILE_BYTES)
    if isinstance(answer, Finding):
        raise ConfigError(Code.CONFIG_INVALID, (answer,))
    return answer


def _read(path: Path, cap: int) -> bytes | Finding:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return _finding(str(path), f"cannot be opened: {error.strerror}", "check the path")
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return _finding(str(path), "is not a regular file", "name a file")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return _finding(
                str(path), "is writable by group or others", "run chmod go-w on the file"
            )
        if status.st_uid not in {0, os.geteuid()}:
            return _finding(
                str(path), f"belongs to uid {status.st_uid}", "chown it to root or to the daemon"
            )
        content = file.read(cap + 1)
    if len(content) > cap:
        return _finding(str(path), f"is larger than {cap} bytes", "split it into several files")
    return content


def _finding(file: str, problem: str, fix: str) -> Finding:
    return Finding(file, 1, 1, "", problem, fix)


def node_id(configured: str | None, state_directory: Path) -> str:
    """
    Return the configured id, or the one made at the first start and kept beside the ledger.

    Raises OSError when it can neither be read nor kept, ValueError when what is kept is none.
    """
    if configured is not None:
        return configured
    kept = state_directory / "node-id"
    try:
        found = kept.read_text("ascii").strip()
    except FileNotFoundError:
        found = f"n-{secrets.token_hex(_GENERATED_ID_BYTES)}"
        fresh = kept.with_suffix(".new")
        fresh.write_text(found + "\n", "ascii")
        fresh.replace(kept)
    if not is_node_id(found):
        raise ValueError(f"{kept} does not hold a node id")
    return found
