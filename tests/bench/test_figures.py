"""The benchmark's arithmetic: quantiles, and ratios taken inside each round."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Cell, quantile, ratio, row
from bench.judge import Verdict

CELL = Cell(
    arm="proxy",
    task="token",
    concurrency=1,
    round=0,
    count=2,
    seconds=0.5,
    latencies=(0.2, 0.3),
    starts=(0.1, 0.1),
    middle_cpu=0.01,
    server_cpu=0.1,
    database_cpu=0.05,
    generator_cpu=0.002,
    machine_cpu=0.6,
)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_one_of_the_values_with_that_share_at_or_below(
    values: list[float], share: float
) -> None:
    """Nearest rank: at least `share` of the values are at or below it, fewer are below it."""
    found = quantile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values) + 1e-6


def test_no_values_have_no_quantile() -> None:
    """An empty cell is an error and not a zero."""
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_a_ratio_is_taken_inside_each_round() -> None:
    """A neighbour who slows one whole round does not change the median of ratios."""
    found = ratio([10, 1, 10], [20, 2, 5])

    assert (found.median, found.lowest, found.highest) == (0.5, 0.5, 2.0)


def test_rounds_of_different_number_are_not_compared() -> None:
    """A missing round is an error and not a shorter comparison."""
    with pytest.raises(ValueError, match="shorter"):
        ratio([1, 2], [1])


def test_a_row_has_medians_of_rounds_and_quantiles_of_tasks() -> None:
    """One slow round moves p99 and leaves the throughput alone."""
    slow = replace(CELL, round=2, seconds=50.0, latencies=(20.0, 30.0), middle_cpu=1.0)

    found = row([CELL, replace(CELL, round=1), slow])

    assert found.throughput == 4.0
    assert found.p99 == 30.0
    assert found.cpu_per_task == 0.005


@pytest.mark.parametrize(
    ("value", "at_most", "met"),
    [(4.0, True, True), (4.1, True, False), (0.9, False, False), (4.0, False, True)],
)
def test_a_bound_is_kept_on_its_own_side(value: float, at_most: bool, met: bool) -> None:
    """A ceiling and a floor are both kept by the bound itself."""
    verdict = Verdict("figure", gate=True, value=value, bound=4.0, at_most=at_most, explanation="")

    assert verdict.met is met
