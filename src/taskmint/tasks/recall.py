"""
The ledger's rows of the last hour to the history that policies count by, after a restart.

Rows come the newest first. Nothing is lost by a wall clock that was set while the node ran: within
one boot the boot clock says how old a row is. Over a reboot the wall clock has to do, for the
newest row of each boot; what it places in the future has happened just now.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import count
from typing import Any, Final, cast

from taskmint.model.spiffe import SpiffeId
from taskmint.ports import Clock, Entry, Event

from .history import HOUR_SECONDS, MOST_REMEMBERED, History, Process

GRANTS: Final = frozenset({Event.INTENT, Event.REVISION_INTENT})
ASKED: Final = GRANTS | {Event.DENIED, Event.REVISION_DENIED}
# A row is written some time after its decision: when a mint has waited, behind younger ones.
SLACK_SECONDS: Final = 600.0


class LastHour:
    """
    Collects, row by row, what counts now; `unreadable` rows can be counted for nobody.

    Of each identity no more is kept than a History remembers. Rows that do not say which process
    asked, of older versions, count as a process each.
    """

    def __init__(self, clock: Clock, boot_id: str) -> None:
        self.unreadable = 0
        self._boot_id = boot_id
        self._now = clock.boottime()
        self._wall = clock.utcnow()
        # By boot, of a moment of its clock, how many seconds ago that was.
        self._known = {boot_id: (self._now, 0.0)}
        self._asked: defaultdict[tuple[SpiffeId, bool], list[tuple[float, Process]]]
        self._asked = defaultdict(list)
        self._nameless = count()

    def __len__(self) -> int:
        """How many requests are kept; some may prove to be older than an hour."""
        return sum(map(len, self._asked.values()))

    def look(self, entry: Entry) -> bool:
        """Take one row; return False when what is older than it cannot be of the last hour."""
        try:
            identity = SpiffeId.parse(str(entry.facts["spiffe_id"]))
            asked_by = cast("Mapping[str, Any] | None", entry.facts.get("asked_by"))
            age = self._age(entry, asked_by)
            process = self._process(asked_by)
        except (KeyError, TypeError, ValueError):
            self.unreadable += 1
            return True
        kept = self._asked[identity, entry.event in GRANTS]
        if len(kept) < MOST_REMEMBERED:
            kept.append((self._now - age, process))
        return age < HOUR_SECONDS + SLACK_SECONDS

    def into(self, history: History) -> None:
        """Record all of it, the oldest first."""
        for (identity, granted), kept in self._asked.items():
            for at, process in sorted(kept, key=lambda asked: asked[0]):
                history.record(identity, process, at, granted=granted)

    def _age(self, entry: Entry, asked_by: Mapping[str, Any] | None) -> float:
        by_wall = max(0.0, (self._wall - entry.at).total_seconds())
        if asked_by is None:
            return by_wall
        moment = float(asked_by["boottime"])
        known, ago = self._known.setdefault(str(asked_by["boot_id"]), (moment, by_wall))
        return max(0.0, ago + known - moment)

    def _process(self, asked_by: Mapping[str, Any] | None) -> Process:
        if asked_by is None:
            return "unknown", next(self._nameless)
        process = int(asked_by["pid"]), asked_by["start_time"]
        boot_id = str(asked_by["boot_id"])
        return process if boot_id == self._boot_id else (boot_id, *process)
