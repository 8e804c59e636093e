"""`taskmint dev`: the embedded stack on this machine, for as long as the command runs."""

import asyncio
import contextlib
import os
import pwd
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Final

import click

from taskmint.devstack.process import StackError
from taskmint.devstack.registration import Entry
from taskmint.devstack.stack import Stack

EXIT_FAILED: Final = 1
_NOTICE: Final = (
    "taskmint dev: FOR DEVELOPMENT ONLY. Keys are in memory, PostgreSQL does not sync to disk, "
    "the Workload API is not SPIRE. Everything is thrown away at the end."
)


def _entries(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[Entry, ...]:
    """Read `SPIFFE_ID=PATH[@USER]`; a link is resolved, because the kernel shows its target."""
    found = []
    for value in values:
        spiffe_id, _, rest = value.partition("=")
        path, _, user = rest.partition("@")
        if not spiffe_id.startswith("spiffe://") or not path.startswith("/"):
            raise click.BadParameter(
                "write SPIFFE_ID=PATH or SPIFFE_ID=PATH@USER", context, parameter
            )
        try:
            uid = pwd.getpwnam(user).pw_uid if user else None
        except KeyError:
            raise click.BadParameter(f"there is no user {user}", context, parameter) from None
        found.append(Entry(spiffe_id, os.path.realpath(path), uid))
    return tuple(found)


@click.group()
def dev() -> None:
    """Run the embedded development stack."""


@dev.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything is kept while it runs; removed at the end. New, or empty.",
)
@click.option("--with-daemon", is_flag=True, help="Run the taskmint daemon too.")
@click.option(
    "--dead-man",
    type=click.IntRange(min=2),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="The dead-man interval of the stack's task definition.",
)
@click.option(
    "--register",
    "entries",
    multiple=True,
    callback=_entries,
    metavar="SPIFFE_ID=PATH[@USER]",
    help="Give this SPIFFE ID to processes of this executable, run by USER if one is named.",
)
def up(
    directory: Path | None, dead_man: int, entries: tuple[Entry, ...], *, with_daemon: bool
) -> None:
    """
    Start a real OpenBao, a real PostgreSQL and a development Workload API.

    Prints `export` lines and, when everything stands, `ready`. Everything ends with this command,
    and this command ends with Ctrl-C, SIGTERM, or the process that started it.
    """
    click.echo(_NOTICE, err=True)
    try:
        stack = Stack.running(directory, dead_man=timedelta(seconds=dead_man), entries=entries)
        asyncio.run(_up(stack, with_daemon=with_daemon))
    except StackError as error:
        click.echo(f"taskmint dev: {error}", err=True)
        sys.exit(EXIT_FAILED)


async def _up(starting: AbstractAsyncContextManager[Stack], *, with_daemon: bool) -> None:
    with _told_to_stop() as stop:
        serving = asyncio.create_task(_serve(starting, with_daemon=with_daemon))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving


async def _serve(starting: AbstractAsyncContextManager[Stack], *, with_daemon: bool) -> None:
    """Run the stack until cancelled."""
    async with contextlib.AsyncExitStack() as exits:
        stack = await exits.enter_async_context(starting)
        if with_daemon:
            await exits.enter_async_context(stack.daemon())
        for name, value in stack.environment().items():
            click.echo(f"export {name}={shlex.quote(value)}")
        click.echo("ready")
        await asyncio.Event().wait()


@contextlib.contextmanager
def _told_to_stop() -> Iterator[asyncio.Event]:
    """Set the event on a signal, or when the process that started us has ended."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    starter = os.getppid()
    pidfd = os.pidfd_open(starter) if starter else None  # 0: it is in another pid namespace
    if pidfd is not None:
        loop.add_reader(pidfd, stop.set)
    try:
        yield stop
    finally:
        if pidfd is not None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        for number in numbers:
            loop.remove_signal_handler(number)
