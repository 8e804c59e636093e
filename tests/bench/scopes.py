"""
What a start costs by what is in its scope: one credential, one whose role exists for the task, ten.

    CPU       the daemon's for a start, medians of interleaved rounds, ends left out
    calls     what a start asks OpenBao, counted in its audit log
    latency   of a start when nothing else happens

Ten are minted side by side, and the server decides how far that helps. A KV engine answers each at
once. The PostgreSQL plugin holds a lock while it makes an account, one for each configured
connection (`NewUser`, also in HashiCorp's), so ten accounts are held to the same calls made bare.
"""

from collections.abc import Mapping
from statistics import median
from typing import Final

from .audit import AuditTail
from .judge import Verdict
from .load import Load
from .measure import cpu_seconds
from .scope_definitions import READ, TEN, TEN_READ, WRITTEN
from .section import Figure, Section
from .sizes import Sizes

ONE: Final = "one"
AGAIN: Final = "one again"
BARE: Final = "bare one"
BARE_TEN: Final = "bare ten"
_ARMS: Final = (ONE, WRITTEN, TEN, READ, TEN_READ, AGAIN)
_BARE: Final = {BARE: ONE, BARE_TEN: TEN}


async def measured_scopes(
    load: Load, daemon: int, audit: AuditTail, one: str, sizes: Sizes
) -> Section:
    """Measure; `one` is the generator's name of the task with one credential."""
    names = {arm: arm for arm in _ARMS} | {ONE: one, AGAIN: one}
    count = sizes.tasks[8] // 4
    spent: dict[str, list[float]] = {arm: [] for arm in _ARMS}
    took: dict[str, list[float]] = {arm: [] for arm in (*_ARMS, *_BARE)}
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
        for arm, same in _BARE.items():
            cell = await load.cell("bare", names[same], 1, max(2, sizes.tasks[1] // 2))
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
    figures += (Figure(f"{arm}: latency of a start", latency[arm], "ms") for arm in latency)
    figures += (Figure(f"{arm}: calls of a start", calls[arm], "calls") for arm in _ARMS)
    noise = f"the same twice differs by {cpu[AGAIN] / cpu[ONE]:.2f} in CPU, "
    noise += f"{latency[AGAIN] / latency[ONE]:.2f} in latency"
    slower = {name: latency[ten] / latency[one] for name, one, ten in _TENS}
    serial = f"{noise}; bare, ten are {slower['bare']:.2f} of one, through taskmint "
    serial += f"{slower['accounts']:.2f}: OpenBao makes one account of a connection at a time"

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
            held("ten secrets: latency, of one", slower["secrets"], 2, gate=False),
            held(
                "ten accounts: latency, of ten made bare",
                latency[TEN] / latency[BARE_TEN],
                1 / 0.75,
                gate=False,
                because=serial,
            ),
        ],
    )


_TENS: Final = (("accounts", ONE, TEN), ("secrets", READ, TEN_READ), ("bare", BARE, BARE_TEN))
