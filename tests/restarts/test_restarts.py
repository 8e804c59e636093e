"""P8: planned restarts under load fail no caller and end no task (the quick form)."""

import pytest

from restarts.scene import restarted_under_load, stack_with_tasks

from plugins.canaries import Canaries
from stack import audited

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


async def test_p8_restarts_under_load_fail_no_caller_and_lose_no_task(canaries: Canaries) -> None:
    """An open loop of 50 requests a second; the same database session and user throughout."""
    async with stack_with_tasks() as stack, audited(stack, canaries):
        report = await restarted_under_load(
            stack, restarts=5, rate=50, tell=print, canaries=canaries
        )

    assert report.failures == []
    assert report.lost == []
    assert report.valid, report.in_flight
    assert len(report.sessions) == 1, report.sessions
    assert report.sessions[0].endswith("|t")
    assert report.streams > report.restarts
