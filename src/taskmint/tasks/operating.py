"""What operators do to tasks, whoever started them: see them, end one, pull the kill switch."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from taskmint.errors import Code, NotFound
from taskmint.model.state import EndCause
from taskmint.model.task_id import TaskId
from taskmint.policy.pattern import build_index, parse_pattern
from taskmint.ports import Clock

from .approving import Approving
from .ending import Ender
from .figures import Figures, Waiting, figures_of
from .recording import LONGEST_APPEND
from .register import Register
from .requests import Request
from .task import EndedBy, Task
from .views import (
    OperatorDetail,
    OperatorView,
    TaskView,
    operators_detail,
    operators_view,
    owners_view,
    request_view,
)

ORDERS_REMEMBERED: Final = 16
SHOWN: Final = 20

Selector = Callable[[Task | Request], bool]


def by_task(task_id: TaskId) -> Selector:
    """One task."""
    return lambda task: task.id == task_id


def by_identity(pattern: str) -> Selector:
    """Tasks of every SPIFFE ID that a pattern matches (policy/pattern.py). Raises ValueError."""
    index, _ = build_index([parse_pattern(pattern)])
    return lambda task: index.match(task.owner.spiffe_id) is not None


def by_definition(name: str) -> Selector:
    """Every run of one definition."""
    return lambda task: task.scope.definition == name


def by_ticket(ticket: str) -> Selector:
    """Tasks that were started, or last changed, under a ticket."""
    return lambda task: task.given.request.ticket == ticket


def everything() -> Selector:
    """All there are."""
    return lambda _task: True


@dataclass(frozen=True, slots=True)
class OrderView:
    """
    How far an order to revoke has come; `waiting` are the first of those not proven yet.

    `unrecorded` ends are in no ledger, because it cannot be written: a crash would forget them.
    """

    number: int
    matched: int
    proven: int
    unrecorded: int
    waiting: tuple[OperatorView, ...]


class Operators:
    """The operators' side of the register."""

    def __init__(
        self,
        clock: Clock,
        register: Register,
        ender: Ender,
        approving: Approving,
        mints_waiting: Callable[[], int],
    ) -> None:
        self._clock = clock
        self._register = register
        self._ender = ender
        self._approving = approving
        self._mints_waiting = mints_waiting
        self._numbers = itertools.count(1)
        self._orders: deque[tuple[int, tuple[Task, ...]]] = deque(maxlen=ORDERS_REMEMBERED)

    def overview(self) -> Sequence[OperatorView]:
        """Every task that is not over, oldest first."""
        return [operators_view(task, self._clock) for task in self._register if not task.over]

    def figures(self) -> Figures:
        """Count what there is."""
        unproven = self._register.admission.unproven
        waiting = Waiting(self._mints_waiting(), len(self._approving.waiting_now()))
        return figures_of(self._register, unproven, waiting, self._clock.boottime())

    async def show(self, task_id: str) -> OperatorDetail:
        """Show one task, live or lately ended. Raises NotFound, Unavailable."""
        return operators_detail(await self._known(task_id), self._clock)

    async def end(self, task_id: str, by: EndedBy, wait: timedelta) -> TaskView:
        """End one task and wait for the proof. Raises NotFound, Unavailable."""
        if (request := await self._approving.waiting(task_id)) is not None:
            await self._approving.cancel(request, EndCause.OPERATOR, by)
            return request_view(request, self._clock)
        task = await self._known(task_id)
        self._ender.end(task, EndCause.OPERATOR, by)
        await task.changed.until(partial(_is_told, task))
        await task.changed.until(lambda: task.over, wait)
        return owners_view(task, self._clock, delivering=False)

    async def revoke(self, select: Selector, cause: EndCause, by: EndedBy) -> OrderView:
        """
        End every task that is selected, and every request that waits for an approval; what is
        ending already is waited for as well.

        Returns, with the order's number, when a crash of the daemon would not undo it: when the row
        of each end is durable, or the ledger has refused it. Ends begin at once, whatever it says.
        Raises Unavailable while the ledger of before a restart has not been read; and when the end
        of a request could not be written: the same order, repeated, waits for that.
        """
        await self._register.replayed()
        tasks = tuple(task for task in self._register if not task.over and select(task))
        for task in tasks:
            self._ender.end(task, cause, by)
        await self._approving.cancel_all(select, cause, by)  # nothing stands for those in Vault
        order = next(self._numbers), tasks
        self._orders.append(order)
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_APPEND.total_seconds()):
                for task in tasks:
                    await task.changed.until(partial(_is_told, task))
        return self._view(*order)

    async def order(self, number: int, wait: timedelta) -> OrderView:
        """Show how far an order has come, once it has come further. Raises NotFound."""
        order = next((one for one in self._orders if one[0] == number), None)
        if order is None:
            raise NotFound(
                Code.TASK_NOT_FOUND, "no such order", fix="see `taskmint tasks` for what is left"
            )
        left = next((task for task in order[1] if not task.over), None)
        if left is not None:
            await left.changed.until(lambda: left.over, wait)
        return self._view(*order)

    async def _known(self, task_id: str) -> Task:
        task = await self._register.find(task_id)
        if task is None:
            raise NotFound(
                Code.TASK_NOT_FOUND,
                "the daemon knows no such task",
                fix="see `taskmint tasks`; what ended long ago stands in `taskmint audit show`",
            )
        return task

    def _view(self, number: int, tasks: tuple[Task, ...]) -> OrderView:
        waiting = [task for task in tasks if not task.over]
        unrecorded = sum(not task.outlasts_a_crash() for task in tasks)
        shown = tuple(operators_view(task, self._clock) for task in waiting[:SHOWN])
        return OrderView(number, len(tasks), len(tasks) - len(waiting), unrecorded, shown)


def _is_told(task: Task) -> bool:
    return task.outlasts_a_crash() is not None
