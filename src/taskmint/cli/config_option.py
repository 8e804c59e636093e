"""`--config` of the commands that read the daemon's configuration and nothing instead of it."""

from pathlib import Path
from typing import Final

import click

config_option: Final = click.option(
    "--config",
    "config_file",
    envvar="TASKMINT_CONFIG",
    default="/etc/taskmint/taskmint.yaml",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The daemon's configuration.",
)
