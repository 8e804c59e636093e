"""When the client asks again and when it says that a task lives, on a clock of the test's."""

from datetime import UTC, datetime, timedelta

import pytest

from taskmint.client.answers import Started, Waiting
from taskmint.client.errors import BadAnswer, ClientError, Interrupted, Refused, Unreachable
from taskmint.client.proof import Proof
from taskmint.client.timing import Patience, Pulse, waits_for

BUSY = Refused(503, "vault_unavailable", "away", fix="", retry_after=1.0)
DENIED = Refused(403, "not_permitted", "no", fix="", retry_after=None)


def pulse(heartbeat: float | None, reprove: float | None) -> Pulse:
    """The pulse of a task with these intervals, started at 0 with the token `a`."""
    now = datetime.now(UTC)
    return Pulse(Started("tm_x", now, now, heartbeat, reprove, {}), Proof("a"), 0.0)


def pauses(patience: Patience, *errors: ClientError) -> list[float | None]:
    """What follows when the same errors come again and again, on a clock that runs with them."""
    now, found = 0.0, []
    for error in errors:
        pause = patience.pause(error, now)
        found.append(pause)
        now += pause or 0.0
    return found


def test_nobody_there_is_an_answer_to_a_start() -> None:
    """A start is not repeated, unless a connection broke before."""
    assert pauses(Patience(0.0, at_first=False), Unreachable("x")) == [None]
    assert pauses(Patience(0.0, at_first=False), Interrupted("x"), Unreachable("x")) == [0.1, 0.2]


@pytest.mark.parametrize("error", [BUSY, DENIED, BadAnswer("x")])
def test_a_start_that_was_answered_is_not_repeated(error: ClientError) -> None:
    """The caller hears of it and decides."""
    assert pauses(Patience(0.0, at_first=False), error) == [None]


def test_an_end_is_repeated_when_that_can_help() -> None:
    """Nobody there, or busy: again. A refusal that will stay one: not."""
    assert pauses(Patience(0.0, at_first=True), Unreachable("x"), BUSY, DENIED) == [0.1, 0.2, None]


def test_patience_ends() -> None:
    """Ten seconds, with pauses that grow to one."""
    found = pauses(Patience(0.0, at_first=True), *[Unreachable("x")] * 20)
    given = [pause for pause in found if pause is not None]

    assert max(given) == 1.0
    assert 9.0 <= sum(given) <= 10.0
    assert found[-1] is None


@pytest.mark.parametrize(
    ("heartbeat", "reprove", "interval"),
    [(60.0, None, 60.0), (None, 30.0, 30.0), (60.0, 30.0, 30.0), (None, None, None)],
)
def test_the_shorter_interval_counts(
    heartbeat: float | None, reprove: float | None, interval: float | None
) -> None:
    """A definition that asks for neither gets no heartbeats."""
    assert pulse(heartbeat, reprove).interval == interval


def test_a_new_token_is_wanted_until_a_new_one_was_shown() -> None:
    """From a third of the interval on; the same token again proves nothing new."""
    beat = pulse(None, 30.0)
    assert not beat.wants_new_svid(9.9)
    assert beat.wants_new_svid(10.0)
    beat.beaten(Proof("a"), 10.0)
    assert beat.wants_new_svid(10.0)
    beat.beaten(Proof("b"), 12.0)
    assert not beat.wants_new_svid(21.9)
    assert beat.wants_new_svid(22.0)


def test_without_reproof_no_new_token_is_wanted() -> None:
    """Heartbeats show whatever token is held."""
    assert not pulse(30.0, None).wants_new_svid(1e9)


def test_a_request_is_asked_about_as_long_as_it_may_wait() -> None:
    """By the time that its answer names, and two seconds, in which the daemon says it is over."""
    now = datetime.now(UTC)
    view = Waiting("tm_x", ("user:a",), 1, 0, now + timedelta(minutes=30), {})
    assert waits_for(view, now) == 1802.0
    assert waits_for(view, now + timedelta(hours=1)) == 2.0
    patience = Patience(0.0, at_first=True, seconds=1802.0)
    assert patience.pause(Unreachable("x"), 1700.0) == 0.1
    assert patience.pause(BUSY, 1801.9) is None
    assert not patience.is_over(1802.0)
    assert patience.is_over(1802.1)
