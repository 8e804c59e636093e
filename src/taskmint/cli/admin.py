"""
The operator's commands over the admin socket: status, tasks, end, reload.

Who may do what the daemon decides, by the kernel's word on who connects. Exit codes: 0 yes, 1 a
finding or a refusal, 2 wrong use, 3 nobody answers.
"""

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
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_SECONDS: Final = 10.0
_RELOAD_SECONDS: Final = 30.0

Command = TypeVar("Command", bound=Callable[..., Any])


def _common(command: Command) -> Command:
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


@click.command()
@_common
def status(socket: str, output: str) -> None:
    """
    Show whether the daemon can do its work.

    Exits 0 when tasks can be started now, 1 when not, 3 when nobody answers.
    """
    reply = _ask(socket, "GET", "/v1/admin/status")
    _print(reply, output, _status_text)
    if reply.get("ready", {}).get("status") != "ready":
        sys.exit(EXIT_FINDING)


@click.command()
@_common
def tasks(socket: str, output: str) -> None:
    """List the tasks that are not over, oldest first."""
    _print(_ask(socket, "GET", "/v1/admin/tasks"), output, _tasks_text)


@click.command()
@_common
@click.argument("task", metavar="TASK_ID")
def end(socket: str, output: str, task: str) -> None:
    """
    End a task, whoever started it, and wait until its credentials are gone.

    Exits 0 when that is proven, 1 when it is not yet (the daemon goes on) or was refused.
    """
    if not task.isascii() or not task.replace("_", "").isalnum():
        raise click.BadParameter("a task id is tm_ and 26 letters and digits", param_hint="TASK_ID")
    reply = _ask(socket, "POST", f"/v1/admin/tasks/{task}/end")
    _print(reply, output, _end_text)
    if reply.get("state") == "revoking":
        sys.exit(EXIT_FINDING)


@click.command()
@_common
def reload(socket: str, output: str) -> None:
    """Load the policy files again, all or nothing; tasks that they now forbid are ended."""
    _print(_ask(socket, "POST", "/v1/admin/reload", _RELOAD_SECONDS), output, _reload_text)


def _ask(socket: str, method: str, target: str, seconds: float = _SECONDS) -> dict[str, Any]:
    """Ask the daemon; explains on stderr and exits when it does not answer as hoped."""
    try:
        return exchange(socket, calls.request(method, target, {}), seconds)
    except ClientError as error:
        code = f" ({error.code})" if isinstance(error, Refused) else ""
        fix = f"; {error.fix}" if error.fix else ""
        click.echo(f"taskmint: {_printable(f'{error.detail}{code}{fix}')}", err=True)
        nobody = isinstance(error, Unreachable | BadAnswer)
        sys.exit(EXIT_UNREACHABLE if nobody else EXIT_FINDING)


def _print(
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


def _status_text(reply: Mapping[str, Any]) -> str:
    components = reply["ready"]["components"]
    rows = [
        (reply["ready"]["status"], f"node {reply['node']}, taskmint {reply['version']}"),
        *((name, part["reason"] or part["status"]) for name, part in sorted(components.items())),
        ("policy", reply["policy_digest"]),
        ("tasks", f"{reply['live_tasks']} live, {reply['revoking_tasks']} revoking"),
    ]
    return _table(rows)


def _tasks_text(reply: Mapping[str, Any]) -> str:
    rows = [
        (
            task["id"],
            task["state"],
            task["definition"],
            task["spiffe_id"],
            f"{task['started_seconds_ago']:.0f}s",
            task["expires_at"],
            task["last_problem"] or "",
        )
        for task in reply["tasks"]
    ]
    if not rows:
        return "no live tasks"
    return _table([("TASK", "STATE", "DEFINITION", "CALLER", "AGE", "DEADLINE", ""), *rows])


def _end_text(reply: Mapping[str, Any]) -> str:
    if reply["state"] == "revoking":
        return _printable(f"{reply['id']}: revocation is not proven yet; the daemon goes on")
    took = reply["revocation_seconds"]
    how_long = "" if took is None else f" in {took * 1000:.0f} ms"
    return _printable(f"{reply['id']}: {reply['state']} ({reply['end_cause']}){how_long}")


def _reload_text(reply: Mapping[str, Any]) -> str:
    return _printable(f"policy {reply['policy_digest']} is in force; {reply['ended']} tasks ended")


def _table(rows: Sequence[Sequence[str]]) -> str:
    cells = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def _printable(text: str) -> str:
    """Replace what a terminal would act on; names and problems come from outside."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
