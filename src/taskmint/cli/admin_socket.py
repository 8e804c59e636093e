"""What the operator's commands share: the admin socket asked, and an answer printed."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

from taskmint.client import calls
from taskmint.client.blocking_transport import exchange
from taskmint.client.errors import BadAnswer, ClientError, Refused, Unreachable
from taskmint.model.printable import printable

from .terminal import progress

EXIT_FINDING: Final = 1
EXIT_UNREACHABLE: Final = 3

_DEFAULT_SOCKET: Final = "/run/taskmint/admin.sock"
_SECONDS: Final = 10.0

Command = TypeVar("Command", bound=Callable[..., Any])


def common(command: Command) -> Command:
    """Add the options that nearly every command here has."""
    output = click.option(
        "--output", type=click.Choice(["text", "json"]), default="text", help="How to print it."
    )
    return common_socket(output(command))


def common_socket(command: Command) -> Command:
    """Add the option that every command here has."""
    return click.option(
        "--socket",
        envvar="TASKMINT_ADMIN_SOCKET",
        default=_DEFAULT_SOCKET,
        show_default=True,
        help="The daemon's admin socket.",
    )(command)


def ask(
    socket: str, method: str, target: str, seconds: float = _SECONDS, body: bytes = b""
) -> dict[str, Any]:
    """Ask the daemon; explains on stderr and exits when it does not answer as hoped."""
    try:
        with progress("waiting for the daemon"):
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
    """Print an answer, as JSON or as text."""
    click.echo(page(reply, output, as_text))


def page(reply: Mapping[str, Any], output: str, as_text: Callable[[Mapping[str, Any]], str]) -> str:
    """Write an answer as JSON or as text; exits when it is not one of this version's."""
    if output == "json":
        return json.dumps(reply, indent=2, sort_keys=True)
    with understood():
        return as_text(reply)


@contextmanager
def understood() -> Iterator[None]:
    """Inside, an answer is taken apart; one of another shape is said to be so, and exits."""
    try:
        yield
    except (KeyError, TypeError, AttributeError):
        click.echo("taskmint: the answer is not that of this version's daemon", err=True)
        sys.exit(EXIT_UNREACHABLE)


def table(rows: Sequence[Sequence[str]]) -> str:
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
