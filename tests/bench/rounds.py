"""
The interleaved rounds: every arm, task and concurrency once a round, each round in another order.

Two shared cores measure the neighbours, so arms that are compared stand next to each other in
time, and one of them stands there twice: the difference of the twins is the noise.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from .audit import AuditTail, Call, ListsDiffer, difference, per_task
from .figures import Cell
from .ground import KINDS, Ground
from .measure import cpu_seconds, family, machine_busy_seconds
from .sizes import Sizes

BARE: Final = "bare"
PROXY: Final = "proxy"
TWIN: Final = "proxy again"
TWO_CALL: Final = "two-call"
TASKMINT: Final = "taskmint"
# Name in the table -> the generator's arm.
ARMS: Final[Mapping[str, str]] = {
    BARE: "bare",
    PROXY: "proxy",
    TWIN: "proxy",
    TWO_CALL: "two_call",
    TASKMINT: "taskmint",
}
SAME_LIST: Final = (BARE, PROXY, TWIN, TASKMINT)
_CHECKED_TASKS: Final = 3

Lists = Mapping[tuple[str, str], Counter[Call]]


async def checked_lists(ground: Ground, audit: AuditTail) -> tuple[Lists, dict[str, list[str]]]:
    """
    Make a few tasks with each arm, one after another, and read in the audit log what they asked.

    Returns what one task asks, by task and arm, and the list of each task in words. Raises
    ListsDiffer unless `bare`, `proxy` and `taskmint` asked the same, in the same order.
    """
    lists: dict[tuple[str, str], Counter[Call]] = {}
    words: dict[str, list[str]] = {}
    for kind in KINDS:
        orders: dict[str, list[Call]] = {}
        for name, arm in ARMS.items():
            audit.calls()
            await ground.load.cell(arm, kind.name, 1, _CHECKED_TASKS)
            calls = audit.calls()
            lists[kind.name, name] = per_task(calls, _CHECKED_TASKS)
            orders[name] = calls
        for name in SAME_LIST[1:]:
            differs = difference(lists[kind.name, BARE], lists[kind.name, name])
            if differs or orders[name] != orders[BARE]:
                raise ListsDiffer(f"{kind.name}: bare and {name}: {differs or 'another order'}")
        one = len(orders[BARE]) // _CHECKED_TASKS
        words[kind.name] = [str(call) for call in orders[BARE][:one]]
        two = len(orders[TWO_CALL]) // _CHECKED_TASKS
        words[f"{kind.name}, two-call"] = [str(call) for call in orders[TWO_CALL][:two]]
    return lists, words


async def measured(
    ground: Ground, audit: AuditTail, lists: Lists, sizes: Sizes, tell: Callable[[str], None]
) -> list[Cell]:
    """Measure all rounds; each cell's calls are counted in the audit log. Raises ListsDiffer."""
    names = list(ARMS)
    cells: list[Cell] = []
    for number in range(sizes.rounds):
        tell(f"round {number + 1} of {sizes.rounds}")
        shift = number % len(names)
        order = names[shift:] + names[:shift]
        if number % 2:
            order.reverse()
        for kind in KINDS:
            for concurrency, count in sizes.tasks.items():
                for name in order:
                    cell = await _cell(ground, name, kind.name, (number, concurrency, count))
                    _check(audit, cell, lists[kind.name, name])
                    cells.append(cell)
    return cells


async def _cell(ground: Ground, name: str, task: str, size: tuple[int, int, int]) -> Cell:
    number, concurrency, count = size
    used = _Used.now(ground, name)
    answer = await ground.load.cell(ARMS[name], task, concurrency, count)
    after = _Used.now(ground, name)
    return Cell(
        arm=name,
        task=task,
        concurrency=concurrency,
        round=number,
        count=count,
        seconds=answer["seconds"],
        latencies=tuple(answer["latencies"]),
        starts=tuple(answer["starts"]),
        middle_cpu=after.middle - used.middle,
        server_cpu=after.server - used.server,
        database_cpu=after.database - used.database,
        generator_cpu=answer["cpu"],
        machine_cpu=after.machine - used.machine,
    )


@dataclass(frozen=True, slots=True)
class _Used:
    """CPU seconds used so far: by what stands in the middle, by the two servers, by everybody."""

    middle: float
    server: float
    database: float
    machine: float

    @classmethod
    def now(cls, ground: Ground, name: str) -> Self:
        """Read the clocks; Vault keeps its connections, so the database's processes stay."""
        middle = ground.daemon_pid if name == TASKMINT else ground.proxy_pid
        return cls(
            middle=0.0 if name == BARE else cpu_seconds(middle),
            server=cpu_seconds(ground.bao_pid),
            database=sum(map(cpu_seconds, family(ground.postgres_pid))),
            machine=machine_busy_seconds(),
        )


def _check(audit: AuditTail, cell: Cell, expected: Counter[Call]) -> None:
    asked = per_task(audit.calls(), cell.count)
    if differs := difference(expected, asked):
        raise ListsDiffer(f"{cell.task}, {cell.arm}, {cell.concurrency} at once: {differs}")
