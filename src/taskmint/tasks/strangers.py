"""
Callers who could not prove who they are, in the ledger: with the reason, without what they showed.

Everybody on the node may knock, so rows are few for each user and minute; what is left out is
counted, and the next row says how many. The metric of refusals counts every one.
"""

from collections import Counter
from typing import Final

from taskmint.errors import TaskmintError, Unavailable
from taskmint.model.peer import Peer
from taskmint.ports import Entry, Event

from .outside import Outside
from .owned import OwnedWork

ROWS_PER_UID: Final = 10  # each minute
ROWS_IN_ALL: Final = 100
_MINUTE: Final = 60.0


class Strangers:
    """Records refused identities, paced."""

    def __init__(self, outside: Outside, work: OwnedWork) -> None:
        self._outside = outside
        self._work = work
        self._until = 0.0
        self._rows: Counter[int] = Counter()
        self._left_out = 0

    def refused(self, peer: Peer, error: TaskmintError) -> None:
        """Note that this peer was refused; the row is written soon, and nobody waits for it."""
        now = self._outside.clock.boottime()
        if now >= self._until:
            self._until = now + _MINUTE
            self._rows.clear()
        if self._rows[peer.uid] >= ROWS_PER_UID or self._rows.total() >= ROWS_IN_ALL:
            self._left_out += 1
            return
        self._rows[peer.uid] += 1
        at = self._outside.clock.utcnow()
        facts = {
            "code": error.code.value,
            "detail": error.detail,
            "uid": peer.uid,
            "gid": peer.gid,
            "pid": peer.pid,
            "left_out": self._left_out,
        }
        self._left_out = 0
        self._work.start(self._record(Entry(Event.UNPROVEN, at, facts=facts)))

    async def _record(self, entry: Entry) -> None:
        try:
            await self._outside.ledger.append(entry)
        except Unavailable as error:
            # A refusal needs no record to be safe; the ledger's own alarm is raised elsewhere.
            self._outside.log.warning("refusal_not_recorded", code=error.code)
