"""
`taskmint config`: check the daemon's configuration, and show the values in effect.

Exits 0 when the configuration is fine, 4 when it is not.
"""

import os
import sys
from pathlib import Path

import click

from taskmint.config import effective_settings, load_config
from taskmint.errors import ConfigError

from .config_option import config_option
from .policy_inputs import (
    EXIT_CONFIG,
    errors_to_exit_codes,
    finding_json,
    output_option,
    print_json,
    read,
)


@click.group()
def config() -> None:
    """Check and show the daemon's configuration."""


@config.command()
@config_option
@output_option
def check(config_file: Path, output: str) -> None:
    """Say everything that is wrong with the configuration; no file it names is opened."""
    content = read(config_file)
    try:
        load_config(str(config_file), content, os.environ)
    except ConfigError as error:
        findings = sorted(error.findings)
        if output == "json":
            print_json({"valid": False, "findings": [finding_json(each) for each in findings]})
        else:
            click.echo(error.detail)
        sys.exit(EXIT_CONFIG)
    if output == "json":
        print_json({"valid": True, "findings": []})
    else:
        click.echo(f"{config_file} is fine")


@config.command()
@config_option
@output_option
@errors_to_exit_codes
def show(config_file: Path, output: str) -> None:
    """Print every value in effect, and where it came from."""
    content = read(config_file)
    loaded = load_config(str(config_file), content, os.environ)
    settings = effective_settings(loaded, str(config_file), content, os.environ)
    if output == "json":
        print_json({each.key: {"value": each.value, "origin": each.origin} for each in settings})
        return
    for each in settings:
        click.echo(f"{each.key} = {each.value}  ({each.origin})")
