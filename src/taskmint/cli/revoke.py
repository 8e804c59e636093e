"""
The kill switch: end many tasks at once, and wait until it is proven that nothing of them is left.

Progress goes to standard error, the result to standard output. Exit codes: 0 all proven, 1 not yet
or refused, 2 wrong use, 3 nobody answers.
"""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from taskmint.model.printable import printable

from .admin_socket import EXIT_FINDING, ask, common, show, table


@click.command()
@common
@click.option("--task", help="One task, by its id.")
@click.option("--spiffe-id", metavar="PATTERN", help="Every identity that a `who` pattern matches.")
@click.option("--definition", metavar="NAME", help="Every run of one task definition.")
@click.option("--ticket", help="Every task that was started under this ticket.")
@click.option("--all", "all_", is_flag=True, help="Everything on this node.")
@click.option("--reason", default="", help="For the ledger.")
@click.option("--signal", is_flag=True, help="An outside event ends them, no decision of yours.")
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal either.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for the proof.")
def revoke(
    *, socket: str, output: str, reason: str, signal: bool, timeout: float, yes: bool, **ways: Any
) -> None:
    """
    End many tasks and wait until all of their credentials are gone.

    Give exactly one of --task, --spiffe-id, --definition, --ticket, --all. Asks first when
    somebody sits at a terminal. Exits 0 when it is proven for all of them, 1 when it is not yet
    (the daemon goes on), or when the answer was no.
    """
    chosen = {name.rstrip("_"): value for name, value in ways.items() if value}
    if len(chosen) != 1:
        raise click.UsageError(
            "give exactly one of --task, --spiffe-id, --definition, --ticket, --all"
        )
    if sys.stdin.isatty() and not yes:
        (selected,) = chosen.items()
        words = "everything" if ways["all_"] else printable(" ".join(map(str, selected)))
        click.confirm(f"End {words} and take back its credentials?", abort=True, err=True)
    cause = "external_signal" if signal else "operator"
    body = json.dumps({**chosen, "reason": reason, "cause": cause}).encode()
    begun = ask(socket, "POST", "/v1/admin/revoke", body=body)
    if begun["unrecorded"]:
        click.echo(
            f"the ledger cannot be written: {begun['unrecorded']} of these ends are known to the"
            " daemon's memory alone; give the order again if it crashes before they are proven",
            err=True,
        )
    order = _proven(socket, begun, time.monotonic() + timeout)
    show(order, output, _text)
    if order["proven"] < order["matched"]:
        sys.exit(EXIT_FINDING)


def _proven(socket: str, order: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
    """Ask until everything is proven or the time is over, and say how it goes on."""
    while order["proven"] < order["matched"]:
        click.echo(f"{order['proven']} of {order['matched']} proven", err=True)
        if time.monotonic() >= deadline:
            break
        order = ask(socket, "GET", f"/v1/admin/revoke/{order['order']}")
    return order


def _text(order: Mapping[str, Any]) -> str:
    proven, matched = order["proven"], order["matched"]
    if not matched:
        return "no live task was selected"
    if proven == matched:
        return f"{matched} ended; nothing of them is left"
    rows = [
        (task["id"], task["state"], task["definition"], task["last_problem"] or "")
        for task in order["waiting"]
    ]
    head = printable(f"{proven} of {matched} proven; the daemon goes on with these and others:")
    return f"{head}\n{table(rows)}"
