"""`taskmint serve`: read the config, run the daemon until a signal."""

import os
import sys
from pathlib import Path
from typing import Final

import click

from taskmint.errors import ConfigError, TaskmintError

from .config_option import config_option

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 4


@click.command()
@config_option
@click.option(
    "--revoke-on-stop", is_flag=True, help="End every task at SIGTERM instead of keeping it."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least severe level that is logged.",
)
def serve(config_file: Path, *, revoke_on_stop: bool, log_level: str) -> None:
    """
    Run the daemon.

    SIGHUP loads the policy files again; SIGTERM stops, keeping tasks for the next start unless
    told otherwise. Exits 4 on a bad configuration, 1 on any other failure.
    """
    # gRPC reads this once, when it is imported; without it a fork prints to stderr under uvloop.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from taskmint.daemon.start import start  # noqa: PLC0415 - after the line above, and only here

    try:
        start(config_file, revoke_on_stop=revoke_on_stop, log_level=log_level)
    except ConfigError as error:
        click.echo(error.detail, err=True)
        sys.exit(EXIT_CONFIG)
    except TaskmintError as error:
        click.echo(f"taskmint: {error.code}: {error.detail}; {error.fix}", err=True)
        sys.exit(EXIT_FAILED)
