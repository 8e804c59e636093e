"""
The operator's commands over the admin socket: status, tasks, end, reload.

Who may do what the daemon decides, by the kernel's word on who connects. Exit codes: 0 yes, 1 a
finding or a refusal, 2 wrong use, 3 nobody answers.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from .admin_socket import EXIT_FINDING, ask, common, printable, show, table

_RELOAD_SECONDS: Final = 30.0


@click.command()
@common
def status(socket: str, output: str) -> None:
    """
    Show whether the daemon can do its work.

    Exits 0 when tasks can be started now, 1 when not, 3 when nobody answers.
    """
    reply = ask(socket, "GET", "/v1/admin/status")
    show(reply, output, _status_text)
    if reply.get("ready", {}).get("status") != "ready":
        sys.exit(EXIT_FINDING)


@click.command()
@common
def tasks(socket: str, output: str) -> None:
    """List the tasks that are not over, oldest first."""
    show(ask(socket, "GET", "/v1/admin/tasks"), output, _tasks_text)


@click.command()
@common
@click.argument("task", metavar="TASK_ID")
def end(socket: str, output: str, task: str) -> None:
    """
    End a task, whoever started it, and wait until its credentials are gone.

    Exits 0 when that is proven, 1 when it is not yet (the daemon goes on) or was refused.
    """
    if not task.isascii() or not task.replace("_", "").isalnum():
        raise click.BadParameter("a task id is tm_ and 26 letters and digits", param_hint="TASK_ID")
    reply = ask(socket, "POST", f"/v1/admin/tasks/{task}/end")
    show(reply, output, _end_text)
    if reply.get("state") == "revoking":
        sys.exit(EXIT_FINDING)


@click.command()
@common
def reload(socket: str, output: str) -> None:
    """Load the policy files again, all or nothing; tasks that they now forbid are ended."""
    show(ask(socket, "POST", "/v1/admin/reload", _RELOAD_SECONDS), output, _reload_text)


def _status_text(reply: Mapping[str, Any]) -> str:
    components = reply["ready"]["components"]
    rows = [
        (reply["ready"]["status"], f"node {reply['node']}, taskmint {reply['version']}"),
        *((name, part["reason"] or part["status"]) for name, part in sorted(components.items())),
        ("policy", reply["policy_digest"]),
        ("tasks", f"{reply['live_tasks']} live, {reply['revoking_tasks']} revoking"),
    ]
    return table(rows)


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
    return table([("TASK", "STATE", "DEFINITION", "CALLER", "AGE", "DEADLINE", ""), *rows])


def _end_text(reply: Mapping[str, Any]) -> str:
    if reply["state"] == "revoking":
        return printable(f"{reply['id']}: revocation is not proven yet; the daemon goes on")
    took = reply["revocation_seconds"]
    how_long = "" if took is None else f" in {took * 1000:.0f} ms"
    return printable(f"{reply['id']}: {reply['state']} ({reply['end_cause']}){how_long}")


def _reload_text(reply: Mapping[str, Any]) -> str:
    return printable(f"policy {reply['policy_digest']} is in force; {reply['ended']} tasks ended")
