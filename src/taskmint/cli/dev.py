"""`taskmint dev`: the embedded stack on this machine, for as long as the command runs."""

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import click

from taskmint.devstack.process import StackError
from taskmint.devstack.stack import Stack

EXIT_FAILED: Final = 1
_NOTICE: Final = (
    "taskmint dev: FOR DEVELOPMENT ONLY. Keys are in memory, PostgreSQL does not sync to disk, "
    "the Workload API is not SPIRE. Everything is thrown away at the end."
)


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
def up(directory: Path | None, dead_man: int, *, with_daemon: bool) -> None:
    """
    Start a real OpenBao, a real PostgreSQL and a development Workload API.

    Prints `export` lines and, when everything stands, `ready`. Everything ends with this command,
    and this command ends with Ctrl-C, SIGTERM, or the process that started it.
    """
    click.echo(_NOTICE, err=True)
    try:
        asyncio.run(_up(directory, timedelta(seconds=dead_man), with_daemon=with_daemon))
    except StackError as error:
        click.echo(f"taskmint dev: {error}", err=True)
        sys.exit(EXIT_FAILED)


async def _up(directory: Path | None, dead_man: timedelta, *, with_daemon: bool) -> None:
    with _told_to_stop() as stop:
        serving = asyncio.create_task(_serve(directory, dead_man, with_daemon=with_daemon))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving


async def _serve(directory: Path | None, dead_man: timedelta, *, with_daemon: bool) -> None:
    """Run the stack until cancelled."""
    async with contextlib.AsyncExitStack() as exits:
        stack = await exits.enter_async_context(Stack.running(directory, dead_man=dead_man))
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
