"""The `taskmint` command: every subcommand in one tree."""

import click


@click.group()
def main() -> None:
    """Vault credentials that exist only while the task that needs them runs."""
