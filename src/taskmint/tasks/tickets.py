"""
Break-glass tasks live as long as their ticket is open: asked before a start, and again and again.

A ticket that nobody can say is open is not open.
"""

import asyncio
from datetime import timedelta
from typing import Final

from taskmint.errors import Code, Denied
from taskmint.model.caller import Caller
from taskmint.model.scope import DecisionInput, Scope
from taskmint.model.state import EndCause

from .deciding import Decider, Granted, Refused
from .ending import Ender
from .outside import Outside
from .register import Register
from .task import Task

CHECKS_AT_ONCE: Final = 8  # by the watch, and as many again by starts and changes
LONGEST_QUEUE_SECONDS: Final = 10.0


async def why_not_open(outside: Outside, given: DecisionInput, scope: Scope) -> str | None:
    """None when an emergency's ticket is open; else why not."""
    ticket, caller = given.request.ticket or "", str(given.caller.spiffe_id)
    return await outside.tickets.why_not_open(ticket, scope.definition, caller)


class TicketGate:
    """
    Asks for the tickets of starts and changes, a few at once: their crowd cannot use up the
    processes that the watch needs, by which a running task's ticket would seem closed.
    """

    def __init__(self, outside: Outside, decider: Decider) -> None:
        self._outside = outside
        self._decider = decider
        self._places = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def require_open(self, caller: Caller, granted: Granted, refused: Refused) -> None:
        """Raise Denied, once that is recorded, for an emergency whose ticket is not open."""
        scope = granted.scope
        if not scope.break_glass:
            return
        problem = await self._why_not_open(granted.given, scope)
        if problem is None:
            return
        self._outside.log.warning("ticket_not_open", definition=scope.definition, reason=problem)
        error = Denied(
            Code.NOT_PERMITTED,
            "the ticket is not open, or nobody can say that it is",
            fix="open the ticket; an operator sees the reason in the daemon's log",
        )
        await self._decider.refuse(caller, granted, error, refused)
        raise error

    async def _why_not_open(self, given: DecisionInput, scope: Scope) -> str | None:
        try:
            async with asyncio.timeout(LONGEST_QUEUE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            return "too many tickets are being asked for"
        try:
            return await why_not_open(self._outside, given, scope)
        finally:
            self._places.release()


class TicketWatch:
    """Asks for the tickets of running break-glass tasks."""

    def __init__(self, outside: Outside, register: Register, ender: Ender) -> None:
        self._outside = outside
        self._register = register
        self._ender = ender
        self._places = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def keep(self, interval: timedelta) -> None:
        """Look, then wait, for ever."""
        while True:
            watched = [task for task in self._register if task.scope.break_glass and task.lives()]
            await asyncio.gather(*map(self._look_at, watched))
            await asyncio.sleep(interval.total_seconds())

    async def _look_at(self, task: Task) -> None:
        async with self._places:
            problem = await why_not_open(self._outside, task.given, task.scope)
        if problem is not None:
            self._outside.log.warning("ticket_not_open", task=task.id, reason=problem)
            self._ender.end(task, EndCause.TICKET_CLOSED)
