"""
What the policy commands share: the files their options name, and how they leave.

A reviewer's checkout belongs to the reviewer, so owner and mode are not looked at here; the daemon
does that when it loads the same files.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from taskmint.config import DEFAULT_CLASSES, Config, load_config
from taskmint.daemon.files import is_policy_name
from taskmint.daemon.policy_source import policy_source
from taskmint.errors import ConfigError, Finding
from taskmint.model.clocks import ClassClocks
from taskmint.policy.load import Policy, load_policy
from taskmint.yaml_document import MAX_BYTES

EXIT_FINDING: Final = 1
EXIT_USAGE: Final = 2
EXIT_CONFIG: Final = 4
CASES: Final = "tests"  # beside the policy files of a directory

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Sources:
    """Policy files, and the configuration that they are loaded with, if there is one."""

    files: tuple[Path, ...]
    config: Config | None = None

    @property
    def classes(self) -> Mapping[str, ClassClocks]:
        """The clocks of their classes."""
        return DEFAULT_CLASSES if self.config is None else self.config.class_clocks()

    def load(self) -> Policy:
        """Read and load them. Raises ConfigError."""
        return load_policy([(str(file), read(file)) for file in self.files], self.classes)

    def load_for_daemon(self) -> Policy:
        """Load them, as the daemon with this configuration would take them. Raises ConfigError."""
        policy = self.load()
        if self.config is not None:
            policy_source(self.config).accept(policy)
        return policy


def config_option(command: Command) -> Command:
    """Add --config."""
    return click.option(
        "--config",
        "config_file",
        envvar="TASKMINT_CONFIG",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The daemon's configuration: its classes, and its policy files when none is named.",
    )(command)


def policy_options(command: Command) -> Command:
    """Add --policy and --config."""
    option = click.option(
        "--policy",
        "paths",
        multiple=True,
        type=click.Path(exists=True, path_type=Path),
        help="A policy file, or a directory of *.yaml; else the configuration's.",
    )
    return option(config_option(command))


def output_option(command: Command) -> Command:
    """Add --output."""
    return click.option(
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="For people, or for programs.",
    )(command)


def errors_to_exit_codes(command: Command) -> Command:
    """Print what is wrong with a file, one finding a line, and exit 4."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ConfigError as error:
            click.echo(error.detail, err=True)
            sys.exit(EXIT_CONFIG)

    return wrapped


def sources(paths: Iterable[Path], config_file: Path | None) -> Sources:
    """Find out which files are meant. Raises ConfigError for a bad configuration."""
    named = list(paths)
    config = None
    if config_file is not None:
        config = load_config(str(config_file), read(config_file), os.environ)
        named = named or [Path(place) for place in config.policy.files]
    if not named:
        leave(EXIT_USAGE, "name policy files, or a configuration with --config")
    return Sources(tuple(file for path in named for file in policy_files(path)), config)


def policy_files(path: Path) -> list[Path]:
    """List a directory's *.yaml in order of name, as the daemon does; a file is itself."""
    if not path.is_dir():
        return [path]
    return sorted(each for each in path.iterdir() if is_policy_name(each.name))


def read(file: Path) -> bytes:
    """Read a file, or as much of it as shows that it is too large. Exits 4 when it cannot."""
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        leave(EXIT_CONFIG, f"{file}: {error.strerror}")


def finding_json(finding: Finding) -> dict[str, str | int]:
    """Write a finding for programs."""
    return {
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "key": finding.key,
        "problem": finding.problem,
        "fix": finding.fix,
    }


def print_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def leave(status: int, sentence: str) -> NoReturn:
    """Say why on stderr, and exit."""
    click.echo(f"taskmint: {sentence}", err=True)
    sys.exit(status)
