"""What the commands of `taskmint audit` share: the file, the form of output, how they leave."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import click

from taskmint.errors import Unavailable
from taskmint.ledger.reader import LedgerReader
from taskmint.model.printable import printable

EXIT_FINDING: Final = 1
EXIT_UNREACHABLE: Final = 3

ledger_option = click.option(
    "--ledger",
    "path",
    default="/var/lib/taskmint/ledger.db",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The ledger's file.",
)
output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or for programs.",
)


@contextmanager
def reading(path: Path) -> Iterator[LedgerReader]:
    """Read a ledger; exits 3 when that cannot be."""
    try:
        with LedgerReader.open(path) as reader:
            yield reader
    except Unavailable as error:
        unreachable(error)


def unreachable(error: Unavailable) -> NoReturn:
    """Say why a ledger cannot be read, and exit 3."""
    fix = f"; {error.fix}" if error.fix else ""
    click.echo(printable(f"taskmint: {error.detail}{fix}"), err=True)
    sys.exit(EXIT_UNREACHABLE)
