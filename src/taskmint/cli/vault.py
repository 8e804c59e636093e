"""`taskmint vault`: what Vault must hold for a policy: print it, write it, compare it."""

import asyncio
import sys

import click

from taskmint.vault.apply import admin_door, write
from taskmint.vault.changes import Change, changes
from taskmint.vault.findings import findings, notes
from taskmint.vault.live import read_live
from taskmint.vault.render import hcl, plain_json, terraform

from .vault_options import EXIT_FINDING, Planned, Target, with_plan, with_server
from .vault_standing import standing
from .vault_statements import statements


@click.group(name="vault")
def vault() -> None:
    """Plan, apply and check what Vault must hold."""


vault.add_command(standing)
vault.add_command(statements)


@vault.command()
@with_plan
@click.option(
    "--output",
    type=click.Choice(["hcl", "terraform", "json"]),
    default="hcl",
    show_default=True,
    help="The form; terraform is a .tf.json file.",
)
def plan(given: Planned, output: str) -> None:
    """Print what Vault must hold, from the policy alone; no server is asked."""
    write_plan = {"hcl": hcl, "terraform": terraform, "json": plain_json}[output]
    click.echo(write_plan(given.plan), nl=False)


@vault.command()
@with_plan
@with_server
@click.option("--yes", is_flag=True, help="Write without asking.")
@click.option("--prune", is_flag=True, help="Also remove what bears our name and is not planned.")
def apply(target: Target, *, yes: bool, prune: bool) -> None:
    """
    Write the plan with an admin's token, after showing the difference.

    Secrets engines, connections and database roles are the admin's own; of these only a
    connection's user name template and allowed roles are changed.
    """
    asyncio.run(_apply(target, yes=yes, prune=prune))


@vault.command()
@with_plan
@with_server
def check(target: Target) -> None:
    """Compare the live server with the plan; exits 1 when anything is missing or wider."""
    sys.exit(asyncio.run(_check(target)))


async def _apply(target: Target, *, yes: bool, prune: bool) -> None:
    plan = target.plan
    async with admin_door(target.settings, target.token) as door:
        live = await read_live(door, plan)
        wanted = changes(plan, live, prune=prune)
        for change in wanted:
            _show(change)
        if wanted and not yes:
            click.confirm(f"Write these {len(wanted)} changes?", abort=True)
        async for change in write(door, wanted):
            click.echo(f"{change.kind} {change.name}: {change.verb}d")
        for finding in findings(plan, await read_live(door, plan)):
            click.echo(f"note: {finding}", err=True)
    if not wanted:
        click.echo("Vault holds the plan already.")


async def _check(target: Target) -> int:
    plan = target.plan
    async with admin_door(target.settings, target.token) as door:
        live = await read_live(door, plan)
    problems = list(findings(plan, live))
    for problem in problems:
        click.echo(problem)
    lacking = changes(plan, live, prune=False)
    for change in lacking:
        _show(change)
    for note in notes(plan, live):
        click.echo(f"note: {note}", err=True)
    if problems or lacking:
        return EXIT_FINDING
    click.echo(f"Vault holds exactly the plan {plan.digest}.")
    return 0


def _show(change: Change) -> None:
    click.echo(f"{change.verb} {change.kind} {change.name} ({change.path})")
    for line in change.lines:
        click.echo(f"    {line}")
