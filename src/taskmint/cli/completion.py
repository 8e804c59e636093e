"""`taskmint completion`: what makes a shell complete our commands, written by click."""

from typing import Final

import click
from click.shell_completion import get_completion_class

_VARIABLE: Final = "_TASKMINT_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """
    Print what completes commands and options in a shell.

    For instance, in ~/.bashrc: eval "$(taskmint completion bash)"
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"nothing is known of {shell}")
    root = click.get_current_context().find_root()
    click.echo(found(root.command, {}, "taskmint", _VARIABLE).source())
