"""`taskmint run` as a member of the tree of commands; entry.py usually goes past it."""

import click

from .run_command import main


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Run a command inside a task; see `taskmint run --help`."""
    ctx.exit(main(list(arguments)))
