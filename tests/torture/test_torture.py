"""The quick form of `make torture`: kill -9 at every failpoint, restart, and an audit (P8)."""

import pytest

from taskmint.failpoints import Failpoint

from torture.campaign import Terms, Torture, ground
from torture.points import all_shots, reached_in_source

NODES = 4


def test_every_failpoint_stands_in_the_source_and_is_shot_at() -> None:
    """The list is the source's: one that nobody reaches, or that no run kills at, is a mistake."""
    assert set(reached_in_source()) == {point.name for point in Failpoint}
    assert {shot.point for shot in all_shots(quick=True)} == set(Failpoint)
    assert {shot.point for shot in all_shots()} == set(Failpoint)


@pytest.mark.real
@pytest.mark.timeout(180)
async def test_p7_p8_killed_at_every_failpoint_nothing_outlives_it_and_all_is_recorded() -> None:
    """
    Nodes of their own are killed at each failpoint and started again; every one must be hit.

    Afterwards nothing is left, by an independent count; whatever was handed out stands in a
    ledger, and both verifiers find each ledger whole.
    """
    shots = all_shots(quick=True)
    terms = Terms(
        kills=len(shots),
        seconds=120,
        nodes=NODES,
        seed=1,
        shots=shots,
        weather=None,
        audit_every=len(shots),
    )
    async with ground() as stack, Torture.prepared(stack, terms) as run:
        await run.go()

    assert run.findings.failures() == []
    assert run.findings.kills >= len(shots)
    assert run.findings.handed_out > 0
