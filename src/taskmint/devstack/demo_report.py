"""
What the demo tells: steps with the servers' own evidence, as lines for people and as JSON.

On a terminal there is colour and a clock that runs while something takes long; elsewhere there are
plain lines, and a line now and then instead of the clock.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

_SHOW_AFTER_SECONDS: Final = 2.0
_CLOCK_SECONDS: Final = 0.2
_LINE_SECONDS: Final = 10.0
_GREEN, _RED, _BOLD, _DIM = "32", "31", "1", "2"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one server answered to one question; `holds` says whether that is as promised."""

    source: str
    asked: str
    answer: str
    holds: bool


@dataclass(slots=True)
class Step:
    """One step of the story. `figures` are in the unit that their name ends with."""

    name: str
    title: str
    evidence: list[Evidence] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        """Whether there is evidence, and all of it is as promised."""
        return bool(self.evidence) and all(each.holds for each in self.evidence)

    def show(self, source: str, asked: str, answer: str, *, holds: bool) -> None:
        """Add evidence."""
        self.evidence.append(Evidence(source, asked, answer, holds))

    def as_json(self) -> Mapping[str, Any]:
        """Turn it into JSON's types."""
        return {
            "name": self.name,
            "title": self.title,
            "held": self.held,
            "figures": self.figures,
            "evidence": [
                {"source": e.source, "asked": e.asked, "answer": e.answer, "holds": e.holds}
                for e in self.evidence
            ],
        }


class Narrator:
    """Writes the story to `out`; `terminal` allows colour and a running clock."""

    def __init__(self, out: TextIO, *, terminal: bool, colour: bool) -> None:
        self._out = out
        self._terminal = terminal
        self._colour = colour
        self._steps = 0

    def say(self, text: str = "") -> None:
        """Write a line."""
        self._out.write(text + "\n")
        self._out.flush()

    def tell(self, step: Step) -> None:
        """Write a step: its title, then each piece of evidence on lines of its own."""
        self._steps += 1
        self.say()
        self.say(self._painted(f"{self._steps}. {step.title}", _BOLD))
        for each in step.evidence:
            mark = self._painted("ok", _GREEN) if each.holds else self._painted("NOT SO", _RED)
            self.say(f"   {mark}  {each.source}: {self._painted(each.asked, _DIM)}")
            for line in each.answer.splitlines():
                self.say(f"         {line}")

    def verdict(self, text: str, *, held: bool) -> None:
        """Write the last word."""
        self.say()
        self.say(self._painted(text, _GREEN if held else _RED))

    @contextlib.asynccontextmanager
    async def waiting(self, what: str) -> AsyncIterator[None]:
        """Show that something goes on, when it takes longer than two seconds."""
        clock = asyncio.create_task(self._show_clock(what))
        try:
            yield
        finally:
            clock.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await clock

    async def _show_clock(self, what: str) -> None:
        began = time.monotonic()
        await asyncio.sleep(_SHOW_AFTER_SECONDS)
        try:
            while True:
                passed = time.monotonic() - began
                if self._terminal:
                    self._out.write(f"\r   ... {what} ({passed:.0f} s)")
                    self._out.flush()
                else:
                    self.say(f"   ... {what} ({passed:.0f} s)")
                await asyncio.sleep(_CLOCK_SECONDS if self._terminal else _LINE_SECONDS)
        finally:
            if self._terminal:
                self._out.write("\r\x1b[K")
                self._out.flush()

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text
