"""
The operator's commands over the admin socket: status, end, reload.

Who may do what the daemon decides, by the kernel's word on who connects. Exit codes: 0 yes, 1 a
finding or a refusal, 2 wrong use, 3 nobody answers.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from taskmint.model.printable import printable

from .admin_socket import EXIT_FINDING, ask, common, show, table
from .tasks import task_id
from .terminal import coloured

_RELOAD_SECONDS: Final = 30.0


@click.command()
@common
def status(socket: str, output: str) -> None:
    """
    Show whether the daemon can do its work.

    Exits 0 when tasks can be started now, 1 when not, 3 when nobody answers.
    """
    reply = ask(socket, "GET", "/v1/admin/status")
    show(reply, output, status_text)
    if reply.get("ready", {}).get("status") != "ready":
        sys.exit(EXIT_FINDING)


@click.command()
@common
@click.argument("task", metavar="TASK_ID", callback=task_id)
def end(socket: str, output: str, task: str) -> None:
    """
    End a task, whoever started it, and wait until its credentials are gone.

    Exits 0 when that is proven, 1 when it is not yet (the daemon goes on) or was refused.
    """
    reply = ask(socket, "POST", f"/v1/admin/tasks/{task}/end")
    show(reply, output, _end_text)
    if reply.get("state") == "revoking":
        sys.exit(EXIT_FINDING)


@click.command()
@common
def reload(socket: str, output: str) -> None:
    """Load the policy files again, all or nothing; tasks that they now forbid are ended."""
    show(ask(socket, "POST", "/v1/admin/reload", _RELOAD_SECONDS), output, _reload_text)


def status_text(reply: Mapping[str, Any]) -> str:
    """Write what `GET /v1/admin/status` answers as lines."""
    components, backlog = reply["ready"]["components"], reply["backlog"]
    waiting = (
        f"{backlog['mints_waiting']} starts wait for Vault, {backlog['ledger_queue']} rows for the"
        f" disk, {backlog['approvals_waiting']} requests for an approval"
    )
    unproven = f"{backlog['revocations_unproven']} unproven"
    if backlog["revocations_unproven"]:
        unproven += f", the oldest for {backlog['oldest_unproven_seconds']:.0f} s"
    unproven += "".join(f"; {count} at {at}" for at, count in backlog["unproven_at"].items())
    rows = [
        (reply["ready"]["status"], f"node {reply['node']}, taskmint {reply['version']}"),
        *((name, part["reason"] or part["status"]) for name, part in sorted(components.items())),
        ("policy", reply["policy_digest"]),
        ("running", f"for {reply['uptime_seconds']:.0f} s"),
        ("tasks", f"{reply['live_tasks']} live, {reply['revoking_tasks']} revoking"),
        ("revocations", unproven),
        ("backlog", waiting),
    ]
    first, *lines = table(rows).splitlines()
    word = reply["ready"]["status"]
    return "\n".join([first.replace(word, coloured(word), 1), *lines])


def _end_text(reply: Mapping[str, Any]) -> str:
    if reply["state"] == "revoking":
        return printable(f"{reply['id']}: revocation is not proven yet; the daemon goes on")
    took = reply["revocation_seconds"]
    how_long = "" if took is None else f" in {took * 1000:.0f} ms"
    return printable(f"{reply['id']}: {reply['state']} ({reply['end_cause']}){how_long}")


def _reload_text(reply: Mapping[str, Any]) -> str:
    return printable(f"policy {reply['policy_digest']} is in force; {reply['ended']} tasks ended")
