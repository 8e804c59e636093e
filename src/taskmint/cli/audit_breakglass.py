"""`taskmint audit breakglass`: every use of the emergency door, from the ledger."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import click

from taskmint.ledger.export import parsed
from taskmint.ledger.reader import LedgerReader
from taskmint.ledger.rows import StoredRow
from taskmint.ledger.task_record import TaskRecord, task_record
from taskmint.model.task_id import TaskId
from taskmint.ports import Event

from .admin_socket import table
from .audit_options import ledger_option, output_option, reading

_HEAD = ("AT", "WHO", "WHAT", "TICKET", "WHY", "LASTED", "ENDED BY", "STATE", "TASK")


@click.command()
@ledger_option
@output_option
def breakglass(path: Path, output: str) -> None:
    """
    Report every break-glass task: who, under which ticket and why, how long, how it ended.

    Refused attempts stand in the ledger as rows `denied`; `audit show` tells all of one task.
    """
    with reading(path) as reader:
        uses = list(_uses(reader))
    if output == "json":
        click.echo(json.dumps({"uses": [dataclasses.asdict(use) for use in uses]}))
    elif uses:
        click.echo(table([_HEAD, *map(_row, uses)]))
    else:
        click.echo("nobody has used break-glass")


def _uses(reader: LedgerReader) -> Iterator[TaskRecord]:
    named = [row.row.body.task for row in reader.rows() if _is_use(row)]
    for task in named:
        if task is not None:
            yield task_record(tuple(reader.rows_of(TaskId(task))))


def _is_use(stored: StoredRow) -> bool:
    body = stored.row.body
    if body.event != Event.INTENT:
        return False
    facts = parsed(body.facts)
    scope = facts.get("scope") if isinstance(facts, dict) else None
    return isinstance(scope, dict) and scope.get("break_glass") is True


def _row(use: TaskRecord) -> tuple[str, ...]:
    lasted = "" if use.lived_seconds is None else f"{use.lived_seconds:.0f}s"
    return (
        use.requested_at,
        use.spiffe_id or "",
        use.definition or "",
        use.ticket or "",
        use.purpose or "",
        lasted,
        use.cause or "",
        use.state or "",
        use.task,
    )
