"""`taskmint serve`: read the config, run the daemon until a signal."""

import os
import sys
from pathlib import Path
from typing import Final

import click

from taskmint.errors import Code, ConfigError, TaskmintError
from taskmint.model.printable import printable

from .config_option import config_option

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 4
_OF_FILES: Final = frozenset({Code.CONFIG_INVALID, Code.POLICY_INVALID})


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
    told otherwise. Exits 4 when the configuration, the policy or a file that they name is wrong, 1
    on any other failure; what it was stands in one line for each problem, with its code.
    """
    # gRPC reads this once, when it is imported; without it a fork prints to stderr under uvloop.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from taskmint.daemon.start import start  # noqa: PLC0415 - after the line above, and only here

    try:
        start(config_file, revoke_on_stop=revoke_on_stop, log_level=log_level)
    except ConfigError as error:
        for finding in sorted(error.findings):
            click.echo(printable(f"taskmint: {error.code}: {finding}"), err=True)
        sys.exit(EXIT_CONFIG)
    except TaskmintError as error:
        fix = f"; {error.fix}" if error.fix else ""
        click.echo(printable(f"taskmint: {error.code}: {error.detail}{fix}"), err=True)
        sys.exit(EXIT_CONFIG if error.code in _OF_FILES else EXIT_FAILED)
