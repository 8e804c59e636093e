"""What the operator's commands share: the admin socket asked, and an answer printed."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from taskmint.client import calls
from taskmint.client.blocking import exchange
from taskmint.client.errors import BadAnswer, ClientError, Refused, Unreachable

EXIT_FINDING: Final = 1
EXIT_UNREACHABLE: Final = 3

_DEFAULT_SOCKET: Final = "/run/taskmint/admin.sock"
_SECONDS: Final = 10.0

Command = TypeVar("Command", bound=Callable[..., Any])


def common(command: Command) -> Command:
    """Add the options that every command here has."""
    socket = click.option(
        "--socket",
        envvar="TASKMINT_ADMIN_SOCKET",
        default=_DEFAULT_SOCKET,
        show_default=True,
        help="The daemon's admin socket.",
    )
    output = click.option(
        "--output", type=click.Choice(["text", "json"]), default="text", help="How to print it."
    )
    return socket(output(command))


def ask(
    socket: str, method: str, target: str, seconds: float = _SECONDS, body: bytes = b""
) -> dict[str, Any]:
    """Ask the daemon; explains on stderr and exits when it does not answer as hoped."""
    try:
        return exchange(socket, calls.request(method, target, {}, body), seconds)
    except ClientError as error:
        code = f" ({error.code})" if isinstance(error, Refused) else ""
        fix = f"; {error.fix}" if error.fix else ""
        click.echo(f"taskmint: {printable(f'{error.detail}{code}{fix}')}", err=True)
        nobody = isinstance(error, Unreachable | BadAnswer)
        sys.exit(EXIT_UNREACHABLE if nobody else EXIT_FINDING)


def show(
    reply: Mapping[str, Any], output: str, as_text: Callable[[Mapping[str, Any]], str]
) -> None:
    if output == "json":
        click.echo(json.dumps(reply, indent=2, sort_keys=True))
        return
    try:
        text = as_text(reply)
    except (KeyError, TypeError, AttributeError):
        click.echo("taskmint: the answer is not that of this version's daemon", err=True)
        sys.exit(EXIT_UNREACHABLE)
    click.echo(text)


def table(rows: Sequence[Sequence[str]]) -> str:
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def printable(text: str) -> str:
    """Replace what a terminal would act on; names and problems come from outside."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
