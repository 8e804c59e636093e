"""
The operator's view of tasks: `taskmint tasks` lists them, `taskmint show` tells all of one.

Exit codes: 0 yes, 1 refused or unknown, 2 wrong use, 3 nobody answers.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import click

from taskmint.model.state import TaskState

from . import admin_socket
from .admin_socket import ask, common, table
from .terminal import coloured, draw, pause

Task = Mapping[str, Any]

_HEAD: Final = ("TASK", "STATE", "DEFINITION", "CALLER", "AGE", "DEADLINE", "")
_ORDERS: Final[Mapping[str, Callable[[Task], tuple[Any, ...]]]] = {
    "age": lambda task: (-task["started_seconds_ago"],),
    "deadline": lambda task: (task["expires_at"],),
    "definition": lambda task: (task["definition"], -task["started_seconds_ago"]),
    "caller": lambda task: (task["spiffe_id"], -task["started_seconds_ago"]),
    "state": lambda task: (task["state"], -task["started_seconds_ago"]),
}
_STATES: Final = [state.value for state in TaskState]


def task_id(ctx: click.Context, param: click.Parameter, text: str) -> str:
    """Let through what may stand in a path: no text of a caller becomes one."""
    if not text.isascii() or not text.replace("_", "").isalnum():
        raise click.BadParameter("a task id is tm_ and 26 letters and digits", ctx, param)
    return text


@click.command()
@common
@click.option("--definition", metavar="NAME", help="Only runs of one task definition.")
@click.option("--caller", metavar="TEXT", help="Only callers whose SPIFFE ID contains this.")
@click.option("--state", type=click.Choice(_STATES), help="Only tasks in this state.")
@click.option(
    "--sort", type=click.Choice(list(_ORDERS)), default="age", show_default=True, help="The order."
)
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Show the list again and again, until Ctrl-C.",
)
def tasks(
    *, socket: str, output: str, watch: float | None, sort: str, reverse: bool, **only: str | None
) -> None:
    """List the tasks that are not over, oldest first."""
    while True:
        text = _page(socket, output, sort, only, reverse=reverse)
        if watch is None:
            click.echo(text)
            return
        draw(text)
        if not pause(watch):
            return


@click.command()
@common
@click.argument("task", metavar="TASK_ID", callback=task_id)
def show(socket: str, output: str, task: str) -> None:
    """Tell everything about one task that is no secret; `audit show` has its whole story."""
    reply = ask(socket, "GET", f"/v1/admin/tasks/{task}")
    admin_socket.show(reply, output, _detail_text)


def select(
    listed: Iterable[Task], only: Mapping[str, str | None], sort: str, *, reverse: bool
) -> list[Task]:
    """Choose and order tasks; what `only` leaves None does not choose."""
    chosen = [
        task
        for task in listed
        if (only["definition"] is None or task["definition"] == only["definition"])
        and (only["caller"] is None or only["caller"] in task["spiffe_id"])
        and (only["state"] is None or task["state"] == only["state"])
    ]
    return sorted(chosen, key=_ORDERS[sort], reverse=reverse)


def tasks_table(tasks: Iterable[Task]) -> str:
    """Write tasks as lines."""
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
        for task in tasks
    ]
    if not rows:
        return "no live tasks"
    head, *lines = table([_HEAD, *rows]).splitlines()
    return "\n".join(
        [head, *(_in_colour(line, row[1]) for line, row in zip(lines, rows, strict=True))]
    )


def _page(
    socket: str, output: str, sort: str, only: Mapping[str, str | None], *, reverse: bool
) -> str:
    reply = ask(socket, "GET", "/v1/admin/tasks")
    with admin_socket.understood():
        chosen = select(reply["tasks"], only, sort, reverse=reverse)
    return admin_socket.page({"tasks": chosen}, output, lambda _: tasks_table(chosen))


def _in_colour(line: str, state: str) -> str:
    return line.replace(f" {state} ", f" {coloured(state)} ", 1)


def _detail_text(reply: Mapping[str, Any]) -> str:
    rows = [
        (name.replace("_", " "), _value(value))
        for name, value in reply.items()
        if name not in {"id", "entitlements"} and value not in (None, "", [], {})
    ]
    for name, given in reply["entitlements"].items():
        rows.append((name, f"{given['kind']} {given['path']}, proof: {given['proof']}"))
    return table([("id", reply["id"]), *rows])


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
