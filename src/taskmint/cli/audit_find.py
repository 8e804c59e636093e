"""`taskmint audit find`: from a trace that a task left, in a database or in Vault, to the task."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from taskmint.ledger.reader import LedgerReader
from taskmint.ledger.task_record import task_record
from taskmint.ledger.traces import named_tasks, tells_of
from taskmint.model.printable import printable
from taskmint.model.scope import Json
from taskmint.model.task_id import TaskId

from .audit_options import EXIT_FINDING, ledger_option, output_option, reading

_LONGEST: Final = 1024 * 1024


@click.command()
@click.argument("trace")
@ledger_option
@output_option
def find(trace: str, path: Path, output: str) -> None:
    """
    Find the tasks that a trace tells of; exits 1 when there is none here.

    TRACE is a database user, a token's display name, a whole line of Vault's audit log, a
    certificate's serial number, a SPIFFE ID, or, while its task lives, an accessor or lease id;
    `-` reads it from standard input.
    """
    text = sys.stdin.read(_LONGEST) if trace == "-" else trace
    with reading(path) as reader:
        named = named_tasks(text)
        told = _records(reader, named or _searched(reader, text.strip()))
        node = reader.header.node
    for task, other in named.items():
        if task not in told:
            where = f"node {other}" if other and other != node else "another node, or long ago"
            click.echo(f"taskmint: no row of {task} stands here: {where}", err=True)
    if output == "json":
        click.echo(json.dumps(list(told.values())))
    else:
        for record in told.values():
            columns = ("task", "state", "definition", "spiffe_id", "requested_at", "user_names")
            click.echo(printable("  ".join(_word(record[name]) for name in columns)))
    sys.exit(0 if told else EXIT_FINDING)


def _searched(reader: LedgerReader, text: str) -> dict[TaskId, None]:
    rows = (stored for stored in reader.rows() if tells_of(stored, text))
    return {TaskId(task): None for stored in rows if (task := stored.row.body.task)}


def _records(reader: LedgerReader, tasks: Mapping[TaskId, object]) -> dict[str, dict[str, Json]]:
    found = {task: tuple(reader.rows_of(task)) for task in tasks}
    return {task: dataclasses.asdict(task_record(rows)) for task, rows in found.items() if rows}


def _word(value: Json) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
