"""
What a start costs by what is in its scope: one credential, one whose role exists for the task, ten.

    CPU       the daemon's for a start, medians of interleaved rounds, ends left out
    calls     what a start asks OpenBao, counted in its audit log
    latency   of a start when nothing else happens
"""

from collections.abc import Mapping
from statistics import median
from typing import Final

from .audit import AuditTail
from .judge import Verdict
from .load import Load
from .measure import cpu_seconds
from .scope_definitions import TEN, WRITTEN
from .section import Figure, Section
from .sizes import Sizes

ONE: Final = "one"
AGAIN: Final = "one again"
_ARMS: Final = (ONE, WRITTEN, TEN, AGAIN)


async def measured_scopes(
    load: Load, daemon: int, audit: AuditTail, one: str, sizes: Sizes
) -> Section:
    """Measure; `one` is the generator's name of the task with one credential."""
    names = {ONE: one, AGAIN: one, WRITTEN: WRITTEN, TEN: TEN}
    count = sizes.tasks[8] // 4
    spent: dict[str, list[float]] = {arm: [] for arm in _ARMS}
    took: dict[str, list[float]] = {arm: [] for arm in _ARMS}
    calls: dict[str, float] = {}
    for number in range(sizes.rounds):
        for arm in _ARMS[:: -1 if number % 2 else 1]:
            audit.calls()
            before = cpu_seconds(daemon)
            await load.hold(names[arm], count)
            spent[arm].append((cpu_seconds(daemon) - before) / count * 1e3)
            calls[arm] = len(audit.calls()) / count
            await load.release(names[arm])
            cell = await load.cell("taskmint", names[arm], 1, max(2, sizes.tasks[1] // 2))
            took[arm].append(median(cell["starts"]) * 1e3)
    return _section(
        {arm: median(values) for arm, values in spent.items()},
        {arm: median(values) for arm, values in took.items()},
        calls,
    )


def _section(
    cpu: Mapping[str, float], latency: Mapping[str, float], calls: Mapping[str, float]
) -> Section:
    figures = [Figure(f"{arm}: CPU of a start", cpu[arm], "ms") for arm in _ARMS]
    figures += (Figure(f"{arm}: latency of a start", latency[arm], "ms") for arm in _ARMS)
    figures += (Figure(f"{arm}: calls of a start", calls[arm], "calls") for arm in _ARMS)
    noise = f"the same twice differs by {cpu[AGAIN] / cpu[ONE]:.2f} in CPU, "
    noise += f"{latency[AGAIN] / latency[ONE]:.2f} in latency"

    # GRANT holds a lock on the group role until its transaction has been committed.
    serial = f"{noise}; PostgreSQL grants one group role to one account at a time"

    def held(name: str, value: float, bound: float, *, gate: bool, because: str = noise) -> Verdict:
        return Verdict(name, gate=gate, value=value, bound=bound, at_most=True, explanation=because)

    return Section(
        figures,
        [
            held(
                "a role for the task: CPU, of one credential",
                cpu[WRITTEN] / cpu[ONE],
                1.3,
                gate=True,
            ),
            held("a role for the task: calls more", calls[WRITTEN] - calls[ONE], 2, gate=True),
            held(
                "a role for the task: latency, of one credential",
                latency[WRITTEN] / latency[ONE],
                2,
                gate=False,
            ),
            held(
                "ten entitlements: latency, of one",
                latency[TEN] / latency[ONE],
                2,
                gate=False,
                because=serial,
            ),
        ],
    )
