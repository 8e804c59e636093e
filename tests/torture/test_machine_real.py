"""The state machine on real servers (machine.py), as `make test` drives it."""

import pytest
from hypothesis import settings

from torture.machine import standing, tell

QUICK, MANY = 2, 40


@pytest.mark.real
@pytest.mark.timeout(3600)  # of the many; two stories take half a minute
def test_p4_p8_whatever_happens_in_whatever_order_nothing_is_left() -> None:
    """Two stories of a dozen steps; `--hypothesis-profile=explore` tells many more."""
    with standing():
        tell(MANY if settings().max_examples > 100 else QUICK)
