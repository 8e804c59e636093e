"""
`taskmint audit`: verify and read the ledger, beside a running daemon or without one.

Exits 0 for yes, 1 for a finding or an unknown task, 2 for wrong usage, 3 when the file cannot be
read. Lease ids and accessors are never shown.
"""

import dataclasses
import json
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

import click

from taskmint.errors import Unavailable
from taskmint.ledger.chain import Head
from taskmint.ledger.export import exported_heads, header_json, row_json
from taskmint.ledger.files import set_aside
from taskmint.ledger.rows import StoredRow
from taskmint.ledger.task_record import task_record
from taskmint.model.printable import printable
from taskmint.model.scope import Json
from taskmint.model.task_id import parse_task_id, vault_name

from .audit_breakglass import breakglass
from .audit_find import find
from .audit_options import (
    EXIT_FINDING,
    ledger_option,
    output_option,
    reading,
    unreachable,
)

FOLLOW_SECONDS: Final = 0.5


def _heads(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> tuple[Head, ...]:
    try:
        return tuple(Head.parse(text) for text in texts)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _logged_heads(log: TextIO, genesis: str) -> tuple[Head, ...]:
    try:
        heads = tuple(exported_heads(log, genesis))
    except ValueError as error:
        raise click.UsageError(f"{log.name}: {error}") from None
    if not heads:
        raise click.UsageError(f"{log.name} holds no head of this ledger")
    return heads


@click.group()
def audit() -> None:
    """Verify and read the ledger."""


audit.add_command(breakglass)
audit.add_command(find)


@audit.command()
@ledger_option
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="POSITION:HASH",
    callback=_heads,
    help="A head exported earlier; without one, missing newest rows cannot be seen.",
)
@click.option(
    "--heads",
    "log",
    type=click.File(errors="replace"),
    help="The daemon's log, `-` for standard input: every head in it is checked.",
)
@output_option
def verify(path: Path, heads: tuple[Head, ...], log: TextIO | None, output: str) -> None:
    """
    Check every row, every link and every clear value; exit 1 when anything is wrong.

    For instance: journalctl -u taskmint -o cat | taskmint audit verify --heads -
    """
    with reading(path) as reader:
        logged = _logged_heads(log, reader.header.genesis) if log else ()
        findings = list(reader.findings((*heads, *logged)))
        rows, head, begins = reader.count(), reader.head(), reader.begins()
        header = header_json(reader.header)
    if output == "json":
        _print_json(
            {
                **header,
                "begins": begins,
                "rows": rows,
                "head": str(head) if head else None,
                "findings": [dataclasses.asdict(finding) for finding in findings],
            }
        )
    else:
        for finding in findings:
            click.echo(f"row {finding.position}: {finding.kind}: {printable(finding.detail)}")
        verdict = f"{len(findings)} findings" if findings else "intact"
        click.echo(f"{verdict}: {rows} rows of node {header['node']}, head {head or 'none'}")
        if begins > 1:
            click.echo(f"the first row is {begins}")
    sys.exit(EXIT_FINDING if findings else 0)


@audit.command()
@click.argument("task")
@ledger_option
@output_option
def show(task: str, path: Path, output: str) -> None:
    """
    Tell one task's story: who, why, what was decided, how it ended, how long that took.

    Of a task that was changed, also what became of each of its revisions.
    """
    task_id = parse_task_id(task)
    if task_id is None:
        raise click.UsageError("a task id is tm_ and 26 characters")
    with reading(path) as reader:
        rows = tuple(reader.rows_of(task_id))
        name = vault_name(reader.header.node, task_id)
    if not rows:
        click.echo(f"taskmint: no row of {task} stands in {path}", err=True)
        sys.exit(EXIT_FINDING)
    record = {**dataclasses.asdict(task_record(rows)), "name_in_vault": name}
    if output == "json":
        _print_json({**record, "rows": [row_json(stored) for stored in rows]})
        return
    revisions = record.pop("revisions")
    _print_fields(record)
    for revision in revisions:
        click.echo(f"-- revision {revision.pop('revision') or 'refused'}")
        _print_fields(revision)
    if revisions:
        click.echo("-- rows")
    for stored in rows:
        _print_row(stored)


@audit.command()
@ledger_option
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only rows behind this one.")
def export(path: Path, after: int) -> None:
    """Print the ledger as JSON lines, its header first; each row can be verified from its line."""
    with reading(path) as reader:
        _print_json(header_json(reader.header))
        for stored in reader.rows(after):
            _print_json(row_json(stored))


@audit.command()
@ledger_option
@click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on with new rows until interrupted.")
@output_option
def tail(path: Path, lines: int, output: str, *, follow: bool) -> None:
    """Print the newest rows."""
    with reading(path) as reader:
        head = reader.head()
        newest = reader.newest(lines)
    _print_rows(newest, output)
    last = head.position if head else 0
    with suppress(KeyboardInterrupt):
        while follow:
            time.sleep(FOLLOW_SECONDS)
            with reading(path) as reader:
                fresh = tuple(reader.rows(last))
            _print_rows(fresh, output)
            last = fresh[-1].row.position if fresh else last


@audit.command("set-aside")
@ledger_option
def aside(path: Path) -> None:
    """
    Move a damaged ledger out of the stopped daemon's way, and keep it.

    Do it when `taskmint tasks` has shown nothing that is still to be taken back: the new ledger
    knows of no task, and what still stands then lapses by its dead-man interval.
    """
    try:
        kept = set_aside(path, datetime.now(UTC).strftime("set-aside-%Y%m%dT%H%M%SZ"))
    except Unavailable as error:
        unreachable(error)
    click.echo(f"the ledger is kept as {kept}; the next start makes a new one")


def _print_fields(record: dict[str, Json]) -> None:
    for name, value in record.items():
        if value not in (None, []):
            text = value if isinstance(value, str) else json.dumps(value)
            click.echo(f"{name.replace('_', ' '):<19} {printable(text)}")


def _print_rows(rows: tuple[StoredRow, ...], output: str) -> None:
    for stored in rows:
        if output == "json":
            _print_json(row_json(stored))
        else:
            _print_row(stored)


def _print_row(stored: StoredRow) -> None:
    body = stored.row.body
    words = (
        body.at,
        f"{body.position:>7}",
        f"{body.event:<15}",
        body.task or "-",
        body.state or "-",
    )
    click.echo(printable(" ".join(words)))


def _print_json(value: dict[str, Json]) -> None:
    click.echo(json.dumps(value))
