"""
What telemetry costs of a task's CPU: what it does with it, and nothing without it.

The daemon makes token tasks, and its own page and log say how many calls it timed, rows it counted
and lines it wrote for each. What each of these costs is measured here, with and without: medians of
interleaved rounds, of this process's CPU. The sum is held against what the daemon spent on a task.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import aiohttp
import structlog
from structlog.contextvars import bound_contextvars

from scrape import read
from taskmint.daemon.measuring import appending
from taskmint.ports import UNTRACED, Entry, Event, VaultCall
from taskmint.telemetry.logs import configure
from taskmint.telemetry.metrics import Metrics
from taskmint.vault.responses import Reply
from taskmint.vault.stopwatch import Stopwatch

from .ground import TOKEN, Ground
from .judge import Verdict
from .measure import cpu_seconds
from .section import Figure, Section
from .sizes import Sizes

Work: TypeAlias = Callable[[], Awaitable[object]]

SHARE: Final = "telemetry: of the daemon's CPU for a token task"
_GOAL: Final = 0.05
_REPEATED: Final = 2000
_REQUESTS: Final = 2  # a start and an end
_COUNTED: Final = {
    "calls": "taskmint_vault_request_seconds_count",
    "rows": "taskmint_ledger_append_seconds_count",
}
_ENTRY: Final = Entry(Event.ACTIVE, datetime.now(UTC))
_REPLY: Final = Reply(200, {}, {"data": {}})


@dataclass(frozen=True, slots=True)
class _Spent:
    """What the daemon had spent, counted and written at one moment."""

    cpu: float
    counted: Mapping[str, float]

    @classmethod
    async def now(cls, ground: Ground) -> "_Spent":
        """Read the daemon's clock, its page and its log."""
        connector = aiohttp.UnixConnector(str(ground.stack.paths.admin_socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://taskmint/metrics", headers={"X-Taskmint-Request": "true"}) as page,
        ):
            samples = read(await page.text())
        log = (ground.stack.paths.directory / "daemon.log").read_bytes()
        counted = {
            name: sum(sample.value for sample in samples if sample.name == metric)
            for name, metric in _COUNTED.items()
        }
        return cls(cpu_seconds(ground.daemon_pid), {**counted, "lines": float(log.count(b"\n"))})


async def measure(sizes: Sizes) -> Section:
    """Measure all of it."""
    tasks = 400 if sizes.name == "full" else 40
    async with Ground.standing() as ground:
        await ground.load.cell("taskmint", TOKEN, 1, tasks)  # what is warm stays warm
        before = await _Spent.now(ground)
        await ground.load.cell("taskmint", TOKEN, 1, tasks)
        after = await _Spent.now(ground)
    each = {name: (after.counted[name] - before.counted[name]) / tasks for name in before.counted}
    each |= {"requests": _REQUESTS}
    costs = await _costs(9 if sizes.name == "full" else 3)
    spent = (after.cpu - before.cpu) / tasks
    whole = sum(each[name] * costs[name] for name in each)
    figures = [
        *(Figure(f"{name} of a task", count, "") for name, count in each.items()),
        *(
            Figure(f"CPU of one of the {name}", seconds * 1e6, "us")
            for name, seconds in costs.items()
        ),
        Figure("CPU of a task's telemetry", whole * 1e6, "us"),
        Figure("CPU of a token task in the daemon", spent * 1e6, "us"),
        Figure(SHARE, whole / spent, "x"),
    ]
    verdict = Verdict(
        SHARE,
        gate=False,
        value=whole / spent,
        bound=_GOAL,
        at_most=True,
        explanation="costs with it less those without, times what the daemon's own page counts",
    )
    return Section(figures, [verdict])


async def _costs(rounds: int) -> dict[str, float]:
    """What one call, row, line and request cost with telemetry, less what they do without."""
    metrics = Metrics()
    stopwatch = Stopwatch(metrics.vault_called, UNTRACED)
    with tempfile.TemporaryDirectory() as directory, (Path(directory) / "log").open("w") as stream:
        log = configure("info", stream, {})
        arms: Mapping[str, tuple[Work, Work]] = {
            "calls": (partial(stopwatch.timed, "database", VaultCall.MINT, _call), _call),
            "rows": (partial(_row, metrics), _nothing),
            "lines": (partial(_line, log), _nothing),
            "requests": (_request, _nothing),
        }
        found: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(rounds):
            for name, (with_it, without) in arms.items():
                found[name].append(await _spent(with_it) - await _spent(without))
        structlog.reset_defaults()
    return {name: statistics.median(values) for name, values in found.items()}


async def _spent(work: Callable[[], Awaitable[object]]) -> float:
    began = time.process_time()
    for _ in range(_REPEATED):
        await work()
    return (time.process_time() - began) / _REPEATED


async def _call() -> Reply:
    return _REPLY


async def _nothing() -> None:
    await asyncio.sleep(0)


async def _row(metrics: Metrics) -> None:
    with appending(metrics, UNTRACED, _ENTRY):
        await asyncio.sleep(0)


async def _line(log: structlog.stdlib.BoundLogger) -> None:
    log.info("task_started", task="tm_01k00000000000000000000000", definition="orders-report")
    await asyncio.sleep(0)


async def _request() -> None:
    with bound_contextvars(request="0123456789abcdef"):
        await asyncio.sleep(0)
