"""The options that the `taskmint vault` commands share, and what they amount to."""

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from taskmint.config import DEFAULT_CLASSES, load_config
from taskmint.daemon.files import read_config_file, read_policy_files
from taskmint.daemon.from_config import plan_settings, vault_settings
from taskmint.errors import ConfigError, TaskmintError, Unavailable
from taskmint.model.secret import Secret
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.enumerate import enumerate_definitions
from taskmint.policy.load import load_policy
from taskmint.policy.plan import plan_of
from taskmint.policy.plan_objects import Plan, PlanSettings
from taskmint.vault.settings import VaultSettings

EXIT_FINDING: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_CONFIG: Final = 4
_TIMEOUT: Final = timedelta(seconds=30)

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the options amount to; `server` is None when no address is known."""

    plan: Plan
    server: VaultSettings | None


def policy_options(command: Command) -> Command:
    """Add the options that say which policy and which daemon."""
    for option in (
        click.option(
            "--config",
            "config_file",
            envvar="TASKMINT_CONFIG",
            type=click.Path(path_type=Path),
            help="The daemon's configuration; its policy.files and vault section are used.",
        ),
        click.option(
            "--policy",
            "policies",
            multiple=True,
            type=click.Path(),
            help="A policy file, or a directory of *.yaml; instead of the configuration's.",
        ),
        click.option(
            "--daemon-spiffe-id",
            help="Who may log in as the daemon; without it no auth role and entity are planned.",
        ),
    ):
        command = option(command)
    return command


def server_options(command: Command) -> Command:
    """Add the options that say which server, for admins; the token is never an argument."""
    for option in (
        click.option(
            "--address", help="Vault's address; else the configuration's, BAO_ADDR, VAULT_ADDR."
        ),
        click.option("--namespace", envvar=["BAO_NAMESPACE", "VAULT_NAMESPACE"]),
        click.option(
            "--ca-file",
            envvar=["BAO_CACERT", "VAULT_CACERT"],
            type=click.Path(path_type=Path),
            help="The CA to trust.",
        ),
        click.option(
            "--token-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A file with the admin's token; else BAO_TOKEN, VAULT_TOKEN.",
        ),
    ):
        command = option(command)
    return command


def errors_to_exit_codes(command: Command) -> Command:
    """Print failures of ours as one sentence, and leave with the documented status."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ConfigError as error:
            leave(EXIT_CONFIG, error.detail)
        except Unavailable as error:
            leave(EXIT_UNREACHABLE, f"{error.code}: {error.detail}; {error.fix}")
        except TaskmintError as error:
            leave(EXIT_FINDING, f"{error.code}: {error.detail}; {error.fix}".rstrip("; "))

    return wrapped


def inputs(
    config_file: Path | None, policies: tuple[str, ...], daemon_spiffe_id: str | None
) -> Inputs:
    """Read the files that the options name. Raises ConfigError."""
    subject = None if daemon_spiffe_id is None else _spiffe_id(daemon_spiffe_id)
    if config_file is None:
        if not policies:
            leave(EXIT_USAGE, "name a configuration with --config, or policy files with --policy")
        planned = PlanSettings(spiffe_id=subject)
        loaded = load_policy(read_policy_files(policies), DEFAULT_CLASSES)
        return Inputs(plan_of(enumerate_definitions(loaded), planned), None)
    config = load_config(str(config_file), read_config_file(str(config_file)), os.environ)
    planned = plan_settings(config)
    if subject is not None:
        planned = replace(planned, spiffe_id=subject)
    files = read_policy_files(policies or config.policy.files)
    loaded = load_policy(files, config.class_clocks())
    return Inputs(plan_of(enumerate_definitions(loaded), planned), vault_settings(config))


def server(
    configured: VaultSettings | None,
    address: str | None,
    namespace: str | None,
    ca_file: Path | None,
    token_file: Path | None,
) -> tuple[VaultSettings, Secret[str]]:
    known = address or (configured.address if configured else None)
    known = known or os.environ.get("BAO_ADDR") or os.environ.get("VAULT_ADDR")
    if not known:
        leave(EXIT_USAGE, "name the server with --address, or set VAULT_ADDR")
    settings = configured or VaultSettings(known, timeout=_TIMEOUT)
    settings = replace(
        settings,
        address=known,
        namespace=namespace or settings.namespace,
        ca_file=ca_file or settings.ca_file,
    )
    text = os.environ.get("BAO_TOKEN") or os.environ.get("VAULT_TOKEN") or ""
    if token_file is not None:
        text = token_file.read_text().strip()
    if not text:
        leave(EXIT_USAGE, "give an admin's token in VAULT_TOKEN, or in a file with --token-file")
    return settings, Secret(text)


def _spiffe_id(text: str) -> str:
    try:
        return str(SpiffeId.parse(text))
    except ValueError as error:
        leave(EXIT_USAGE, f"--daemon-spiffe-id: {error}")


def leave(status: int, sentence: str) -> NoReturn:
    click.echo(f"taskmint: {sentence}", err=True)
    sys.exit(status)
