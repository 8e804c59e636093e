"""`taskmint vault standing`: what of ours stands in Vault without reason; zero is the goal."""

import asyncio
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

import click

from taskmint.client import calls
from taskmint.client.blocking_transport import exchange
from taskmint.client.errors import ClientError
from taskmint.model.task_id import is_node_id
from taskmint.policy.plan_objects import Plan
from taskmint.vault.apply import admin_door
from taskmint.vault.http import Door
from taskmint.vault.live import read_live
from taskmint.vault.standing import (
    Leftover,
    LiveTasks,
    delete,
    leftovers,
    objects_of_node,
    of_node,
    read_found,
    reap,
)

from .vault_options import EXIT_FINDING, EXIT_USAGE, Target, leave, with_plan, with_server

_SECONDS: Final = 10.0


@click.command()
@with_plan
@with_server
@click.option(
    "--admin-socket",
    envvar="TASKMINT_ADMIN_SOCKET",
    type=click.Path(),
    help="This node's daemon, to be asked which tasks live.",
)
@click.option(
    "--reap", is_flag=True, help="Revoke every task token of --node, a node that is gone."
)
@click.option("--node", help="The node to reap.")
@click.option("--yes", is_flag=True, help="Reap without asking.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text")
def standing(
    target: Target,
    admin_socket: str | None,
    node: str | None,
    output: str,
    *,
    reap: bool,
    yes: bool,
) -> None:
    """
    Report tokens, leases, roles, policies and entities of ours that nothing needs.

    Needs an operator's token that may list accessors and leases. Exits 0 when nothing is found.
    With --reap, first revokes what a node left behind that will not come back.
    """
    if reap != (node is not None) or (node is not None and not is_node_id(node)):
        leave(EXIT_USAGE, "--reap and --node NODE go together")
    here = None if admin_socket is None else _live_tasks(admin_socket)
    if here is None:
        click.echo("note: no daemon was asked, so every task token passes for alive", err=True)
    elif here.node == node:
        leave(EXIT_USAGE, f"{node} is not gone: its daemon answers; end its tasks there")
    report = asyncio.run(_standing(target, here, node, yes=yes))
    if output == "json":
        click.echo(json.dumps([asdict(item) for item in report], indent=2))
    else:
        for item in report:
            click.echo(_line(item))
    sys.exit(EXIT_FINDING if report else 0)


async def _standing(
    target: Target, here: LiveTasks | None, node: str | None, *, yes: bool
) -> list[Leftover]:
    plan = target.plan
    async with admin_door(target.settings, target.token) as door:
        if node is not None:
            await _reap(door, plan, node, yes=yes)
        live = await read_live(door, plan)
        found = await read_found(door, plan)
        return list(leftovers(plan, live, found, here, datetime.now(UTC)))


async def _reap(door: Door, plan: Plan, node: str, *, yes: bool) -> None:
    found = await read_found(door, plan)
    listed, objects = (
        list(of_node(found, node, datetime.now(UTC))),
        list(objects_of_node(found, node)),
    )
    for _, item in listed:
        click.echo(_line(item), err=True)
    for written in objects:
        click.echo(f"{written.kind} {written.path}", err=True)
    if (listed or objects) and not yes:
        question = f"Revoke these {len(listed)} tokens and their leases"
        question += f", and delete these {len(objects)} objects?" if objects else "?"
        click.confirm(question, abort=True, err=True)
    async for revoked in reap(door, [token for token, _ in listed]):
        click.echo(f"{revoked.task}: revoked", err=True)
    async for deleted in delete(door, objects):
        click.echo(f"{deleted.path}: deleted", err=True)


def _live_tasks(socket: str) -> LiveTasks | None:
    """Ask the daemon; None, after saying why, when it does not answer."""
    try:
        status = exchange(socket, calls.request("GET", "/v1/admin/status", {}), _SECONDS)
        listed = exchange(socket, calls.request("GET", "/v1/admin/tasks", {}), _SECONDS)
        tasks = frozenset(str(task["id"]) for task in listed["tasks"])
        return LiveTasks(str(status["node"]), tasks)
    except (ClientError, KeyError, TypeError) as error:
        click.echo(f"note: the daemon at {socket} was not understood: {error}", err=True)
        return None


def _line(item: Leftover) -> str:
    age = "-" if item.age_seconds is None else f"{item.age_seconds}s"
    return f"{item.kind:14} {item.name:40} {item.owner:20} {age:>8}  {item.reason}"
