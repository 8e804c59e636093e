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
from taskmint.daemon.from_config import vault_settings
from taskmint.daemon.policy_source import plan_settings
from taskmint.errors import ConfigError, TaskmintError, Unavailable
from taskmint.model.secret import Secret
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.load import load_policy
from taskmint.policy.plan_objects import Plan, PlanSettings
from taskmint.policy.planning import plan_policy
from taskmint.vault.settings import VaultSettings

EXIT_FINDING: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_CONFIG: Final = 4
_TIMEOUT: Final = timedelta(seconds=30)

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan, and the server that the configuration names, if there is one."""

    plan: Plan
    server: VaultSettings | None


@dataclass(frozen=True, slots=True)
class Target:
    """The plan, the server, and an admin's token for it."""

    plan: Plan
    settings: VaultSettings
    token: Secret[str]


def with_plan(command: Command) -> Command:
    """
    Add the options that say which policy and which daemon; the command gets the plan.

    Failures of ours are printed as one sentence, with the documented exit status.
    """

    @functools.wraps(command)
    def wrapped(
        config_file: Path | None,
        policies: tuple[str, ...],
        daemon_spiffe_id: str | None,
        **rest: Any,
    ) -> None:
        try:
            command(_inputs(config_file, policies, daemon_spiffe_id), **rest)
        except ConfigError as error:
            leave(EXIT_CONFIG, error.detail)
        except Unavailable as error:
            leave(EXIT_UNREACHABLE, f"{error.code}: {error.detail}; {error.fix}")
        except TaskmintError as error:
            leave(EXIT_FINDING, f"{error.code}: {error.detail}; {error.fix}".rstrip("; "))

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
        wrapped = option(wrapped)
    return wrapped


def with_server(command: Command) -> Command:
    """Add, below `with_plan`, which server and whose token; a token is never an argument."""

    @functools.wraps(command)
    def wrapped(
        given: Planned,
        address: str | None,
        namespace: str | None,
        ca_file: Path | None,
        token_file: Path | None,
        **rest: Any,
    ) -> None:
        settings, token = _server(given.server, address, namespace, ca_file, token_file)
        command(Target(given.plan, settings, token), **rest)

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
        wrapped = option(wrapped)
    return wrapped


def _inputs(
    config_file: Path | None, policies: tuple[str, ...], daemon_spiffe_id: str | None
) -> Planned:
    """Read the files that the options name. Raises ConfigError."""
    subject = None if daemon_spiffe_id is None else _spiffe_id(daemon_spiffe_id)
    if config_file is None:
        if not policies:
            leave(EXIT_USAGE, "name a configuration with --config, or policy files with --policy")
        planned = PlanSettings(spiffe_id=subject, namespace=_namespace())
        loaded = load_policy(read_policy_files(policies), DEFAULT_CLASSES)
        return Planned(plan_policy(loaded, planned), None)
    config = load_config(str(config_file), read_config_file(str(config_file)), os.environ)
    planned = plan_settings(config)
    if subject is not None:
        planned = replace(planned, spiffe_id=subject)
    files = read_policy_files(policies or config.policy.files)
    loaded = load_policy(files, config.class_clocks())
    planned = replace(planned, namespace=planned.namespace or _namespace())
    return Planned(plan_policy(loaded, planned), vault_settings(config))


def _namespace() -> str | None:
    return os.environ.get("BAO_NAMESPACE") or os.environ.get("VAULT_NAMESPACE")


def _server(
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
    """Say a sentence on standard error and exit."""
    click.echo(f"taskmint: {sentence}", err=True)
    sys.exit(status)
