"""`taskmint demo`: the whole story on real servers, in a minute; the exit code is the verdict."""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from taskmint.devstack.demo import Outcome, told
from taskmint.devstack.demo_report import Narrator
from taskmint.devstack.stack import Stack

EXIT_NOT_AS_PROMISED: Final = 1
_BY_SIGNAL: Final = 128


@click.command()
@click.option(
    "--output",
    default="demo.json",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Where every step's evidence is written as JSON.",
)
@click.option("--keep", is_flag=True, help="Leave the stack and the daemon up until Ctrl-C.")
def demo(output: Path, *, keep: bool) -> None:
    """
    Tell the whole story on a real OpenBao and a real PostgreSQL, in a minute.

    Each step shows what the servers themselves say. Exits 0 when all of it is as promised, else 1.
    """
    terminal = sys.stdout.isatty()
    colour = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    narrator = Narrator(sys.stdout, terminal=terminal, colour=colour)
    sys.exit(asyncio.run(_demo(narrator, output, keep=keep)))


async def _demo(narrator: Narrator, output: Path, *, keep: bool) -> int:
    """Tell; an interruption ends the story, or the time after it, in order."""
    keeping = asyncio.Event()
    with _interrupted() as interrupted:
        telling = asyncio.create_task(_tell(narrator, output, keeping, interrupted, keep=keep))
        stopping = asyncio.create_task(interrupted.wait())
        await asyncio.wait([telling, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not keeping.is_set():
            telling.cancel()  # nothing happens to one that is done
        try:
            return await telling
        except asyncio.CancelledError:
            narrator.say("interrupted; everything is stopped")
            return _BY_SIGNAL + signal.SIGINT


async def _tell(
    narrator: Narrator,
    output: Path,
    keeping: asyncio.Event,
    interrupted: asyncio.Event,
    *,
    keep: bool,
) -> int:
    async with told(narrator) as (stack, outcome):
        text = json.dumps(outcome.as_json(), indent=1) + "\n"
        await asyncio.to_thread(output.write_text, text)
        _conclude(narrator, outcome, output)
        if keep and stack is not None:
            keeping.set()
            _announce(narrator, stack)
            await interrupted.wait()
    return 0 if outcome.held else EXIT_NOT_AS_PROMISED


def _conclude(narrator: Narrator, outcome: Outcome, output: Path) -> None:
    if outcome.broken is not None:
        narrator.say()
        narrator.say(f"The story broke off: {outcome.broken}")
    held = sum(step.held for step in outcome.steps)
    text = f"{held} of {len(outcome.steps)} steps are as promised, in {outcome.seconds:.0f} s"
    narrator.verdict(f"{text}; all evidence stands in {output}", held=outcome.held)


def _announce(narrator: Narrator, stack: Stack) -> None:
    narrator.say()
    for name, value in stack.environment().items():
        narrator.say(f"export {name}={shlex.quote(value)}")
    narrator.say("The stack stays up until Ctrl-C.")


@contextlib.contextmanager
def _interrupted() -> Iterator[asyncio.Event]:
    """Set the event when somebody asks us to end."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, event.set)
    try:
        yield event
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
