"""
Numbers in, numbers out: quantiles, medians and ratios of interleaved rounds. No I/O.

A ratio is taken inside each round, where both arms met the same neighbours, and the median of the
rounds' ratios is what counts (two shared cores measure the neighbours).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Cell:
    """
    One arm of one round: `count` tasks at one concurrency. Times are in seconds.

    `latencies` are of whole tasks, start and proven end; `starts` of their first half, up to the
    credential. `middle_cpu` is the CPU of what stands between client and server: the proxy or the
    daemon; 0 where nothing does. `machine_cpu` is everybody's.
    """

    arm: str
    task: str
    concurrency: int
    round: int
    count: int
    seconds: float
    latencies: tuple[float, ...]
    starts: tuple[float, ...]
    middle_cpu: float
    server_cpu: float
    database_cpu: float
    generator_cpu: float
    machine_cpu: float

    @property
    def throughput(self) -> float:
        """Tasks per second."""
        return self.count / self.seconds

    @property
    def cpu_per_task(self) -> float:
        """Seconds of CPU that the middle spent on one task."""
        return self.middle_cpu / self.count


@dataclass(frozen=True, slots=True)
class Row:
    """All rounds of one arm: medians of the rounds, quantiles over all their tasks; seconds."""

    arm: str
    task: str
    concurrency: int
    throughput: float
    start_p50: float
    p50: float
    p99: float
    cpu_per_task: float
    server_cpu_per_task: float
    database_cpu_per_task: float
    generator_cpu_per_task: float
    machine_share: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """One arm over another, round by round: the median and the extremes."""

    median: float
    lowest: float
    highest: float


def quantile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank quantile; `share` 0.5 is the median. Raises ValueError when empty."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = max(1, -int(-share * len(ordered) // 1))
    return ordered[rank - 1]


def row(cells: Sequence[Cell]) -> Row:
    """Summarise the rounds of one arm, task and concurrency."""
    latencies = [value for cell in cells for value in cell.latencies]
    starts = [value for cell in cells for value in cell.starts]
    return Row(
        arm=cells[0].arm,
        task=cells[0].task,
        concurrency=cells[0].concurrency,
        throughput=median(cell.throughput for cell in cells),
        start_p50=quantile(starts, 0.5),
        p50=quantile(latencies, 0.5),
        p99=quantile(latencies, 0.99),
        cpu_per_task=median(cell.cpu_per_task for cell in cells),
        server_cpu_per_task=median(cell.server_cpu / cell.count for cell in cells),
        database_cpu_per_task=median(cell.database_cpu / cell.count for cell in cells),
        generator_cpu_per_task=median(cell.generator_cpu / cell.count for cell in cells),
        machine_share=median(cell.machine_cpu / cell.seconds for cell in cells),
    )


def ratio(values: Sequence[float], others: Sequence[float]) -> Ratio:
    """Divide round by round; both name the same rounds in the same order."""
    each = [value / other for value, other in zip(values, others, strict=True)]
    return Ratio(median(each), min(each), max(each))
