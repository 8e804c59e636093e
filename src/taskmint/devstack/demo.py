"""
The demo: the whole story on a real OpenBao and a real PostgreSQL, each step with their evidence.

Reading `tell` is reading the story. Its verdict is that every step's evidence is as promised.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from .demo_evidence import Witness
from .demo_report import Narrator, Step
from .demo_steps import Story
from .process import StackError
from .stack import Stack

DEAD_MAN: Final = timedelta(seconds=5)  # short for the demo; a minute and more in real life

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was told, and how long that took, in seconds; `broken` is what cut the story short."""

    steps: tuple[Step, ...]
    seconds: float
    broken: str | None

    @property
    def held(self) -> bool:
        """The verdict."""
        return self.broken is None and all(step.held for step in self.steps)

    def as_json(self) -> Mapping[str, Any]:
        """Turn it into JSON's types."""
        return {
            "held": self.held,
            "seconds": round(self.seconds, 1),
            "dead_man_seconds": DEAD_MAN.total_seconds(),
            "broken": self.broken,
            "steps": [step.as_json() for step in self.steps],
        }


@contextlib.asynccontextmanager
async def told(narrator: Narrator) -> AsyncIterator[tuple[Stack | None, Outcome]]:
    """Tell the story on a stack of its own, which stays until the context ends."""
    began = time.monotonic()
    steps: list[Step] = []
    broken: str | None = None
    stack: Stack | None = None
    async with contextlib.AsyncExitStack() as exits:
        try:
            async with narrator.waiting("starting OpenBao, PostgreSQL and the Workload API"):
                stack = await exits.enter_async_context(Stack.running(dead_man=DEAD_MAN))
                daemon = await exits.enter_async_context(stack.daemon())
                witness = Witness(stack)
                await witness.prepare()
            narrator.say(f"The stack stands in {stack.paths.directory}")
            story = Story(stack, daemon, witness, DEAD_MAN.total_seconds())
            await _tell(story, narrator, steps)
        except (StackError, TimeoutError, OSError) as error:
            broken = str(error) or type(error).__name__
        yield stack, Outcome(tuple(steps), time.monotonic() - began, broken)


async def _tell(story: Story, narrator: Narrator, steps: list[Step]) -> None:
    async def during(what: str, part: Awaitable[T]) -> T:
        async with narrator.waiting(what):
            return await part

    def tell(step: Step) -> None:
        steps.append(step)
        narrator.tell(step)

    nothing, before = await during("looking at what stands", story.nothing_stands())
    tell(nothing)
    tell(await during("asking without a right to", story.denied()))
    granted, ended = await during("a task runs and ends", story.granted())
    tell(granted)
    tell(ended)
    tell(await during("a task runs and is killed", story.workload_killed()))
    tell(await during("waiting for the dead-man interval", story.daemon_killed()))
    tell(await during("the daemon starts again", story.ledger_verified()))
    tell(await during("looking at what stands", story.nothing_stands_again(before)))
