"""The results as a table for people and as bench.json for everybody else."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from .cold_start import words
from .figures import Row
from .judge import Results, Verdict
from .rounds import BARE, PROXY, TASKMINT, TWIN, TWO_CALL
from .section import Section
from .sizes import Sizes

_HEAD: Final = (
    "task",
    "at once",
    "arm",
    "tasks/s",
    "start p50",
    "p50",
    "p99",
    "CPU",
    "OpenBao",
    "PostgreSQL",
)
_COMPARED: Final = (BARE, PROXY, TWO_CALL)


def as_json(
    sizes: Sizes,
    results: Results | None,
    sections: Mapping[str, Section],
    verdicts: Sequence[Verdict],
    found: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything, as JSON would have it; times in seconds, memory in bytes."""
    return {
        "sizes": {**asdict(sizes), "tasks": {str(n): count for n, count in sizes.tasks.items()}},
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        **found,
        **(_tasks_as_json(results) if results else {}),
        "sections": {name: section.as_json() for name, section in sections.items()},
        "verdicts": [{**asdict(verdict), "met": verdict.met} for verdict in verdicts],
    }


def _tasks_as_json(results: Results) -> dict[str, Any]:
    return {
        "arms": [asdict(row) for row in results.rows()],
        "ratios": [
            {
                "task": task,
                "concurrency": concurrency,
                "throughput": {
                    f"{arm} / {other}": asdict(results.throughput((task, concurrency), arm, other))
                    for arm, other in _pairs()
                },
                "cpu": {
                    f"{arm} / {PROXY}": asdict(results.cpu((task, concurrency), arm, PROXY))
                    for arm in (TASKMINT, TWIN)
                },
            }
            for task, concurrency in results.places
        ],
    }


def lines(
    sizes: Sizes,
    results: Results | None,
    sections: Mapping[str, Section],
    verdicts: Sequence[Verdict],
    found: Mapping[str, Any],
) -> Iterator[str]:
    """Print the tables and the verdicts."""
    yield f"{sizes.name} run, {sizes.rounds} rounds, {os.cpu_count()} CPUs; times in ms, medians"
    for name, section in sections.items():
        yield f"{name}:"
        yield from section.lines()
        yield ""
    if results is not None:
        yield from _tasks(sizes, results, found)
    for verdict in verdicts:
        yield from _verdict(verdict)


def _tasks(sizes: Sizes, results: Results, found: Mapping[str, Any]) -> Iterator[str]:
    yield "CPU: what the proxy or the daemon spends on a task; behind it, what the servers spend"
    yield ""
    yield from _table([_HEAD, *map(_cells, results.rows())])
    yield ""
    yield "ratios of the same round: median (lowest to highest)"
    yield from _table([("task", "at once", "what", "tasks/s", "CPU"), *_ratio_rows(results)])
    yield ""
    for name, processes in (("idle", found["idle"]), (f"{sizes.live} tasks", found["live"])):
        each = ", ".join(
            f"{process} PSS {memory['pss'] / 1e6:.0f} MB, RSS {memory['rss'] / 1e6:.0f} MB"
            for process, memory in processes.items()
        )
        yield f"memory after {sizes.idle:g} s idle, {name}: {each}"
    wrapped = found["wrapped"]
    yield (
        f"taskmint run: {wrapped['run'] * 1e3:.0f} ms, the command with the credential in hand "
        f"{wrapped['command'] * 1e3:.0f} ms: {wrapped['ratio']:.1f} times; "
        f"a bare interpreter starts in {wrapped['python'] * 1e3:.0f} ms"
    )
    yield words(found["cold_start"])
    yield ""


def _pairs() -> Iterator[tuple[str, str]]:
    yield from ((TASKMINT, other) for other in _COMPARED)
    yield (PROXY, BARE)
    yield (TWIN, PROXY)


def _cells(row: Row) -> tuple[str, ...]:
    cpu = (row.cpu_per_task, row.server_cpu_per_task, row.database_cpu_per_task)
    times = (row.start_p50, row.p50, row.p99, *cpu)
    return (
        row.task,
        str(row.concurrency),
        row.arm,
        f"{row.throughput:.1f}",
        *(f"{seconds * 1e3:.2f}" for seconds in times),
    )


def _ratio_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for task, concurrency in results.places:
        for arm, other in _pairs():
            through = results.throughput((task, concurrency), arm, other)
            cpu = ""
            if other == PROXY:
                found = results.cpu((task, concurrency), arm, other)
                cpu = f"{found.median:.2f} ({found.lowest:.2f} to {found.highest:.2f})"
            yield (
                task,
                str(concurrency),
                f"{arm} / {other}",
                f"{through.median:.2f} ({through.lowest:.2f} to {through.highest:.2f})",
                cpu,
            )


def _verdict(verdict: Verdict) -> Iterator[str]:
    word = ("gate" if verdict.gate else "goal") + (" met" if verdict.met else " NOT met")
    sign = "<=" if verdict.at_most else ">="
    yield f"{word}: {verdict.name}: {verdict.value:.2f} {sign} {verdict.bound:.2f}"
    if verdict.explanation:
        yield f"    {verdict.explanation}"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Align: words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if cell[:1].isdigit() or cell in _HEAD[3:] else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        yield "  ".join(cells).rstrip()
