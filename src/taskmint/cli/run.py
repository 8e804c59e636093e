"""
`taskmint run`: a command that has credentials exactly as long as it runs.

    1. signals are ours from here on; one that asks for an end before 4 is obeyed at once
    2. the task is started; no daemon, no identity, a refusal: 125
    3. variables and files are filled; files on tmpfs, mode 0600, never over an existing one
    4. the command runs; heartbeats go out meanwhile; signals are passed on; when the daemon says
       that the task is over, the command is told to terminate
    5. files are removed and the task is ended, whatever happened in 3 and 4
    6. the exit code is the command's, or 128 + the signal that ended it
"""

import asyncio
import re
import signal
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from taskmint.client.client import Claims, TaskmintClient
from taskmint.client.daemon_api import Outcome
from taskmint.client.errors import ClientError, Refused
from taskmint.client.running_task import RunningTask

from .run_child import Child, CommandNotStarted
from .run_delivery import Delivery, DeliveryError, parse_env, parse_file
from .run_signals import Signals, sent_by_terminal

OURS: Final = 125  # as env(1) and timeout(1): the wrapper itself failed
BY_SIGNAL: Final = 128

_DURATION = re.compile(r"([0-9]{1,7})(s|m|h)", re.ASCII)
_UNIT_SECONDS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600}
_PARAMETER = re.compile(r"([A-Za-z0-9_.-]{1,64})=(.*)", re.DOTALL)

T = TypeVar("T")


class _WrongUse(click.UsageError):
    exit_code = OURS


class _Wrapper(click.Command):
    """A command whose usage errors are 125: every other code belongs to what it wraps."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and change the exit code of what is wrong."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _WrongUse(error.format_message(), error.ctx) from None


def _parsed_by(parse: Callable[[str], T]) -> Callable[..., tuple[T, ...]]:
    def callback(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[T, ...]:
        try:
            return tuple(map(parse, values))
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def _parse_parameter(text: str) -> tuple[str, str]:
    found = _PARAMETER.fullmatch(text)
    if found is None:
        raise ValueError("write it as key=value")
    return found[1], found[2]


def _parse_ttl(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    found = _DURATION.fullmatch(text or "")
    if text is not None and (found is None or int(found[1]) == 0):
        raise click.BadParameter("write it as 90s, 15m or 1h")
    return int(found[1]) * _UNIT_SECONDS[found[2]] if found else None


@click.command(
    cls=_Wrapper,
    context_settings={"allow_interspersed_args": False},
    options_metavar="--task NAME [OPTIONS] --",
)
@click.option("--task", required=True, metavar="NAME", help="The task definition to run inside.")
@click.option(
    "-p",
    "parameters",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_parsed_by(_parse_parameter),
    help="A parameter of the definition; repeat it for more.",
)
@click.option("--purpose", metavar="TEXT", help="Why; it stands in the ledger.")
@click.option("--ticket", metavar="ID", help="The ticket this belongs to.")
@click.option("--ttl", metavar="DURATION", callback=_parse_ttl, help="Deadline: 90s, 15m, 1h.")
@click.option(
    "--bind",
    type=click.Choice(["peer", "parent", "session", "unit"]),
    help="What ends the task when it ends; by default what the definition says.",
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="VAR=ENTITLEMENT.FIELD",
    callback=_parsed_by(parse_env),
    help="Put a field of a credential into the command's environment.",
)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="PATH=ENTITLEMENT[.FIELD|:TEMPLATE]",
    callback=_parsed_by(parse_file),
    help="Write a credential to a file on tmpfs: all of it as JSON, one field, or a template "
    "with {field}s in it.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> None:
    """
    Run COMMAND inside a task: it has the task's credentials until it exits, and not longer.

    Exits with the command's code, 128+N when signal N ended it, 126 or 127 when it cannot be
    executed or found, 125 when taskmint itself failed.
    """
    delivery = Delivery(options["variables"], options["files"])
    ctx.exit(asyncio.run(_run(options["task"], _claims(options), delivery, options["command"])))


def _claims(options: Mapping[str, Any]) -> Claims:
    claims = Claims(parameters=dict(options["parameters"]))
    if options["purpose"] is not None:
        claims["purpose"] = options["purpose"]
    if options["ticket"] is not None:
        claims["ticket"] = options["ticket"]
    if options["ttl"] is not None:
        claims["ttl_seconds"] = options["ttl"]
    if options["bind"] is not None:
        claims["bind"] = options["bind"]
    return claims


async def _run(name: str, claims: Claims, delivery: Delivery, command: tuple[str, ...]) -> int:
    """Steps 1, 2 and 5; returns the exit code."""
    signals = Signals()
    with signals.caught():
        try:
            with signals.told_to(_giving_up(signals)):
                task = await TaskmintClient().start(name, **claims)
        except asyncio.CancelledError:
            return BY_SIGNAL + (signals.asked_to_end or signal.SIGTERM)
        except ClientError as error:
            _complain(error)
            return OURS
        code = OURS
        try:
            code = await _inside(task, delivery, command, signals)
        except CommandNotStarted as error:
            click.echo(f"taskmint run: {error}", err=True)
            code = error.exit_code
        except DeliveryError as error:
            click.echo(f"taskmint run: {error}", err=True)
        finally:
            delivery.remove()
            await _end(task, _outcome(code, signals))
        return code


def _giving_up(signals: Signals) -> Callable[[int], None]:
    """While the task is being started: the first signal that asks for an end cancels the start."""
    this = asyncio.current_task()

    def listener(_: int) -> None:
        if this is not None and signals.asked_to_end is not None and not this.cancelling():
            this.cancel()

    return listener


async def _inside(
    task: RunningTask, delivery: Delivery, command: tuple[str, ...], signals: Signals
) -> int:
    """Steps 3, 4 and 6."""
    delivery.write(task.credentials)
    environment = delivery.environment(task.credentials)
    if signals.asked_to_end is not None:
        return BY_SIGNAL + signals.asked_to_end
    with Child.start(command, environment) as child:

        def pass_on(number: int) -> None:
            if not sent_by_terminal(number):
                child.send(number)

        with signals.told_to(pass_on):
            ending = asyncio.create_task(_when_over(task, child))
            try:
                return await child.exited()
            finally:
                ending.cancel()


async def _when_over(task: RunningTask, child: Child) -> None:
    """A command whose credentials are gone has nothing left to do."""
    await task.over.wait()
    click.echo("taskmint run: the task is over; terminating the command", err=True)
    child.send(signal.SIGTERM)


def _outcome(code: int, signals: Signals) -> Outcome:
    if signals.asked_to_end is not None:
        return "cancelled"
    return "failed" if code else "succeeded"


async def _end(task: RunningTask, outcome: Outcome) -> None:
    try:
        ended = await task.end(outcome)
    except ClientError as error:
        _complain(error, "the end could not be told to the daemon: ")
        return
    if ended.state == "revoking":
        click.echo("taskmint run: revocation is not proven yet; the daemon goes on", err=True)


def _complain(error: ClientError, before: str = "") -> None:
    code = f" ({error.code})" if isinstance(error, Refused) else ""
    fix = f"; {error.fix}" if error.fix else ""
    click.echo(f"taskmint run: {before}{error.detail}{code}{fix}", err=True)
