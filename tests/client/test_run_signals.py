"""The runner's signals, as they come."""

import signal
import sys
from itertools import count

import pytest

from taskmint.cli.run_signals import GivenUp, Signals


def interrupted(moment: int) -> None:
    """Raise SIGINT, and SIGTERM at the so-manieth step of its handling."""
    steps = count(1)

    def interrupt(*_: object) -> None:
        if next(steps) == moment:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGTERM)

    sys.setprofile(interrupt)
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("moment", range(1, 9))
def test_a_second_signal_in_the_midst_of_the_first_gives_up(moment: int) -> None:
    """Two that come together are two, wherever the second one's handler interrupts the first's."""
    signals = Signals()
    with signals.caught(), pytest.raises(GivenUp):
        interrupted(moment)
    assert signals.asked_to_end in {signal.SIGINT, signal.SIGTERM}
