"""
The lives of one node's daemon, one after the other: started, worked with, killed with SIGKILL.

A life ends at an armed failpoint, or where chance has it. Callers go on with the tasks of the lives
before: what they were told must still hold, or be over.
"""

import asyncio
import random
import signal
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from taskmint.failpoints import Failpoint

from torture.nodes import Node
from torture.points import Hits, Shot

CALLERS = 3  # at once, for each node
MOST_TASKS = 6  # that live at once on one node
LONGEST_LIFE_SECONDS = 6.0
FULL_DISKS = 0.2  # of the lives that end at any moment
BROKEN = (OSError, aiohttp.ClientError, TimeoutError)


@dataclass
class Tally:
    """What was done, and what became of it."""

    kills: Counter[str] = field(default_factory=Counter)  # at a failpoint, or at any moment
    answers: Counter[str] = field(default_factory=Counter)  # by what was asked, and the status
    kept: int = 0  # tasks that outlived the kill of their daemon, as their caller saw
    lapsed: int = 0  # and those that did not: their end had begun, or the absence was too long
    full_disks: int = 0
    strange: list[str] = field(default_factory=list)  # what must never happen


@dataclass
class Life:
    """One node's daemon, again and again."""

    node: Node
    hits: Hits
    tally: Tally
    chance: random.Random

    async def once(self, *, at_failpoint: bool) -> None:
        """One life, from start to SIGKILL; hits and kills are counted."""
        shot = self.hits.next() if at_failpoint else None
        ready = await self.node.start(TASKMINT_FAILPOINT=shot.armed() if shot else self._full())
        if not ready and self.node.alive:
            self.tally.strange.append(f"{self.node.name} not ready: {self.node.lacking} {shot}")
        work = asyncio.create_task(self._work()) if ready else None
        killed = await self._until_dead(shot)
        if work is not None:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            if not work.cancelled() and (error := work.exception()) is not None:
                raise error
        status = await self.node.ended()
        if status != -signal.SIGKILL:
            self.tally.strange.append(f"{self.node.name} ended by itself with {status}, {shot}")
        elif shot is not None and not killed:
            self.hits.hit[shot] += 1
            self.tally.kills["failpoint"] += 1
        else:
            self.tally.kills["moment"] += 1

    def _full(self) -> str:
        """Now and then, a disk that is full when the n-th commit comes, and has room again."""
        if self.chance.random() < FULL_DISKS:
            self.tally.full_disks += 1
            return f"{Failpoint.LEDGER_BEFORE_COMMIT}:{self.chance.randint(2, 15)}:error"
        return ""

    async def _until_dead(self, shot: Shot | None) -> bool:
        """Whether it was us who killed it, because its time was up."""
        life = LONGEST_LIFE_SECONDS if shot else self.chance.uniform(0.0, 1.0)
        assert self.node.pid is not None
        end = self.node.zygote.end_of(self.node.pid)
        await asyncio.wait([end], timeout=life)
        if end.done():
            return False
        self.node.signal(signal.SIGKILL)
        return True

    # --- callers ---------------------------------------------------------------------------

    async def _work(self) -> None:
        await self._look_at_what_was_told()
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(self._call())

    async def _look_at_what_was_told(self) -> None:
        """Ask for each task of the lives before: it lives on, or it is over."""
        for told in tuple(self.node.told.values()):
            try:
                state = await self.node.state(told)
            except BROKEN:
                return
            if told.ulid in self.node.ends:
                continue
            if state == "active":
                self.tally.kept += 1
            else:
                self.tally.lapsed += 1
                self.node.told.pop(told.id, None)
                self.node.ends.setdefault(told.ulid, self.node.killed_at[-1])

    async def _call(self) -> None:
        while True:
            try:
                await self._one_call()
            except BROKEN:
                if not self.node.alive:
                    return
                self.tally.answers["no answer"] += 1
            await asyncio.sleep(self.chance.uniform(0.0, 0.02))

    async def _one_call(self) -> None:
        node, region = self.node, self.chance.choice(("eu", "us"))
        told = list(node.told.values())
        living = [one for one in told if one.ulid not in node.ends]
        if len(living) < MOST_TASKS and self.chance.random() < 0.6:
            definition = self.chance.choice(("torture-database", "torture-token", "torture-role"))
            self._count("start", await node.begin(definition, region))
            return
        if not told:
            return
        one = self.chance.choice(told)
        match self.chance.choice(("end", "end", "end", "change", "acknowledge")):
            case "end":
                self._count("end", await node.end(one))
            case "change":
                self._count("change", await node.change(one, region))
            case _:
                self._count("acknowledge", await node.acknowledge(one))

    def _count(self, what: str, status: int) -> None:
        self.tally.answers[f"{what} {status}"] += 1
        if status == 500:
            self.tally.strange.append(f"{what}: 500 from {self.node.name}")
