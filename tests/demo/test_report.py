"""What the demo prints and concludes, without servers."""

import asyncio
import io

import pytest

from taskmint.devstack.demo import Outcome
from taskmint.devstack.demo_report import Narrator, Step


def step(*holds: bool) -> Step:
    """Make a step with evidence that holds or does not."""
    made = Step("name", "A title")
    for each in holds:
        made.show("PostgreSQL", "a question", "one\ntwo", holds=each)
    return made


@pytest.mark.parametrize(
    ("holds", "held"), [((True, True), True), ((True, False), False), ((), False)]
)
def test_a_step_holds_when_all_of_its_evidence_does(holds: tuple[bool, ...], held: bool) -> None:
    """One piece that is not as promised, or none at all, and the step does not hold."""
    assert step(*holds).held is held
    assert step(*holds).as_json()["held"] is held


@pytest.mark.parametrize(
    ("steps", "broken", "held"),
    [
        ((step(True), step(True)), None, True),
        ((step(True), step(False)), None, False),
        ((step(True),), "it broke off", False),
    ],
)
def test_the_verdict_is_that_all_held_to_the_end(
    steps: tuple[Step, ...], broken: str | None, held: bool
) -> None:
    """A story that broke off is not a story that held."""
    outcome = Outcome(steps, 1.0, broken)

    assert outcome.held is held
    assert outcome.as_json()["held"] is held


def test_evidence_that_does_not_hold_is_said_in_words() -> None:
    """Also without colour a reader sees which piece it was."""
    out = io.StringIO()

    Narrator(out, terminal=False, colour=False).tell(step(True, False))

    assert out.getvalue() == (
        "\n1. A title\n"
        "   ok  PostgreSQL: a question\n         one\n         two\n"
        "   NOT SO  PostgreSQL: a question\n         one\n         two\n"
    )


def test_colour_is_for_terminals() -> None:
    """With colour the same words stand between escapes."""
    out = io.StringIO()

    Narrator(out, terminal=True, colour=True).verdict("all held", held=True)

    assert out.getvalue() == "\n\x1b[32mall held\x1b[0m\n"


@pytest.mark.parametrize(
    ("terminal", "shown"), [(True, "\r   ... long (2 s)"), (False, "... long")]
)
async def test_what_takes_long_is_shown(terminal: bool, shown: str) -> None:
    """After two seconds there is a clock, or a plain line; the clock is wiped out again."""
    out = io.StringIO()

    async with Narrator(out, terminal=terminal, colour=False).waiting("long"):
        await asyncio.sleep(2.3)

    assert shown in out.getvalue()
    assert out.getvalue().endswith("\r\x1b[K") is terminal
    assert ("\r" in out.getvalue()) is terminal


async def test_what_is_quick_is_not_shown() -> None:
    """Below two seconds nothing flickers."""
    out = io.StringIO()

    async with Narrator(out, terminal=True, colour=True).waiting("quick"):
        await asyncio.sleep(0)

    assert out.getvalue() == ""
