"""
The figures in, what they are held to out: one gate, which fails the run, and goals, which explain.

CPU per operation can be judged on a machine that is shared; throughput depends on the neighbours
and on how many cores the server, the database and the generator have to share with us.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .figures import Cell, Ratio, Row, ratio, row
from .ground import POSTGRES, TOKEN
from .rounds import ARMS, BARE, PROXY, TASKMINT, TWIN

CPU_GATE: Final = 4.0
COLD_START_GOAL: Final = 1.5
END_GOAL: Final = 1.3
PSS_GOAL_BYTES: Final = 130_000_000
THROUGHPUT_GOALS: Final[Mapping[str, Mapping[int, float]]] = {
    POSTGRES: {1: 0.80, 8: 0.90, 32: 0.90},
    TOKEN: {1: 0.70, 8: 0.70, 32: 0.70},
}
# Nobody stands in the way of the bare calls, so the last hundredths are the daemon's own.
BARE_GOALS: Final[Mapping[int, float]] = {1: 0.75, 8: 0.90, 32: 0.90}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure held to its bound; a gate that is not met fails a full run."""

    name: str
    gate: bool
    value: float
    bound: float
    at_most: bool
    explanation: str

    @property
    def met(self) -> bool:
        """Whether the figure keeps to its bound."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound


class Results:
    """All cells, by task, concurrency and arm."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells: dict[tuple[str, int, str], list[Cell]] = {}
        for cell in cells:
            self._cells.setdefault((cell.task, cell.concurrency, cell.arm), []).append(cell)

    @property
    def places(self) -> list[tuple[str, int]]:
        """Every task and concurrency, in the order measured."""
        return list(dict.fromkeys((task, concurrency) for task, concurrency, _ in self._cells))

    def rows(self) -> list[Row]:
        """One summary for each task, concurrency and arm."""
        return [
            row(self._cells[task, concurrency, arm])
            for task, concurrency in self.places
            for arm in ARMS
        ]

    def row(self, task: str, concurrency: int, arm: str) -> Row:
        """Return one summary."""
        return row(self._cells[task, concurrency, arm])

    def throughput(self, place: tuple[str, int], arm: str, other: str) -> Ratio:
        """Compare tasks per second of two arms, round by round."""
        return ratio(
            *([cell.throughput for cell in self._cells[(*place, name)]] for name in (arm, other))
        )

    def cpu(self, place: tuple[str, int], arm: str, other: str) -> Ratio:
        """Compare the middle's CPU per task of two arms, round by round."""
        return ratio(
            *([cell.cpu_per_task for cell in self._cells[(*place, name)]] for name in (arm, other))
        )


def verdicts(
    results: Results,
    live: Mapping[str, Mapping[str, int]],
    wrapped: Mapping[str, float],
    cold_start: Mapping[str, float],
) -> list[Verdict]:
    """Hold every figure to its bound."""
    found = [
        Verdict(
            f"CPU of the daemon per token task, of the proxy's, {concurrency} at once",
            gate=True,
            value=results.cpu((task, concurrency), TASKMINT, PROXY).median,
            bound=CPU_GATE,
            at_most=True,
            explanation=_cpu_words(results, task, concurrency),
        )
        for task, concurrency in results.places
        if task == TOKEN
    ]
    found += (
        Verdict(
            f"throughput of {task} tasks, of the proxy's, {concurrency} at once",
            gate=False,
            value=results.throughput((task, concurrency), TASKMINT, PROXY).median,
            bound=THROUGHPUT_GOALS[task][concurrency],
            at_most=False,
            explanation=_throughput_words(results, task, concurrency, PROXY),
        )
        for task, concurrency in results.places
    )
    found += (
        Verdict(
            f"throughput of {task} tasks, of the same bare calls, {concurrency} at once",
            gate=False,
            value=results.throughput((task, concurrency), TASKMINT, BARE).median,
            bound=BARE_GOALS[concurrency],
            at_most=False,
            explanation=_throughput_words(results, task, concurrency, BARE),
        )
        for task, concurrency in results.places
        if task == POSTGRES
    )
    found += (
        Verdict(
            f"from the end to its proof, {task} tasks one after another, of the same bare calls",
            gate=False,
            value=_ending(results, task, TASKMINT) / _ending(results, task, BARE),
            bound=END_GOAL,
            at_most=True,
            explanation="as the caller sees it: with its request and the ledger's rows",
        )
        for task in (POSTGRES, TOKEN)
    )
    return [
        *found,
        Verdict(
            "PSS of the daemon with live tasks, in MB",
            gate=False,
            value=live["daemon"]["pss"] / 1e6,
            bound=PSS_GOAL_BYTES / 1e6,
            at_most=True,
            explanation="",
        ),
        Verdict(
            "what `taskmint run` adds, of one interpreter's start and 100 ms",
            gate=False,
            value=wrapped["of_allowed"],
            bound=1.0,
            at_most=True,
            explanation=f"the wrapped command takes {wrapped['ratio']:.1f} times the plain one",
        ),
        Verdict(
            "a daemon's start until it is ready, of importing its libraries",
            gate=False,
            value=cold_start["ratio"],
            bound=COLD_START_GOAL,
            at_most=True,
            explanation="",
        ),
    ]


def _ending(results: Results, task: str, arm: str) -> float:
    """Seconds from the end of a task to its proof: medians, one task at a time."""
    found = results.row(task, 1, arm)
    return found.p50 - found.start_p50


def _cpu_words(results: Results, task: str, concurrency: int) -> str:
    mine, theirs = (results.row(task, concurrency, arm) for arm in (TASKMINT, PROXY))
    return f"{mine.cpu_per_task * 1e3:.2f} ms against {theirs.cpu_per_task * 1e3:.2f} ms"


def _throughput_words(results: Results, task: str, concurrency: int, other: str) -> str:
    """Say what the ratio would be if nothing but CPU counted, and how busy the machine was."""
    mine, theirs = (results.row(task, concurrency, arm) for arm in (TASKMINT, other))
    cpu = [
        each.cpu_per_task
        + each.server_cpu_per_task
        + each.database_cpu_per_task
        + each.generator_cpu_per_task
        for each in (mine, theirs)
    ]
    noise = results.throughput((task, concurrency), TWIN, PROXY)
    return (
        f"CPU per task, of servers, middle and generator: {cpu[0] * 1e3:.1f} ms against "
        f"{cpu[1] * 1e3:.1f} ms, which alone would make {cpu[1] / cpu[0]:.2f}; "
        f"{mine.machine_share:.1f} CPUs busy; the twins were {noise.median:.2f} of each other"
    )
