"""Ten thousand live tasks through the service, in virtual time: no herd, every end (P4, P6)."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import pytest
import structlog

from taskmint.errors import BackendFailed, Code
from taskmint.model.state import EndCause
from taskmint.ports import Revocable
from taskmint.tasks.limits import TaskLimits
from taskmint.tasks.operating import everything
from taskmint.tasks.outside import Outside, Settings
from taskmint.tasks.renewal import PARALLEL_RENEWALS
from taskmint.tasks.service import TaskService
from taskmint.tasks.task import EndedBy

from fakes.ledger import MemoryLedger
from fakes.observer import Seen
from fakes.processes import FakeProcesses
from fakes.vault import FakeVault, away
from fakes.virtual_time import VirtualClock, VirtualTimeLoop
from tasks.world import ask, caller, policy

TASKS: Final = 10_000
UNLUCKY: Final = 100
LIFE: Final = 60.0
ROUND: Final = LIFE / 3
POLICY: Final = """
version: 1
tasks:
  report:
    owner: team-orders@example.org
    class: batch
    who: [spiffe://example.org/job]
    parameters: {region: {enum: [eu, us]}}
    deadline: {default: 1h, max: 2h}
    ends: {deadline_only: true}
    scope:
      warehouse: {secret: {mount: database, path: "creds/orders-ro-{region}"}}
"""


@dataclass
class Crowded(FakeVault):
    """Notes when each handle was to be renewed; renews none that is `unlucky`."""

    asked: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    unlucky: set[str] = field(default_factory=set)

    async def renew(self, revocable: Revocable, increment: timedelta) -> timedelta:
        """Grant it, a hundredth of a second later."""
        self.in_flight["renew"] += 1
        self.peak["renew"] = max(self.peak["renew"], self.in_flight["renew"])
        self.asked[revocable.id].append(self.now())
        await asyncio.sleep(0.01)
        self.in_flight["renew"] -= 1
        if revocable.id in self.unlucky:
            raise away()
        if not self._works(revocable.id):
            raise BackendFailed(Code.VAULT_ERROR, "no such lease")
        self.things[revocable.id].expires = self.now() + increment.total_seconds()
        return increment

    async def revoke(self, revocable: Revocable) -> None:
        """End a thing; what it owns does not work without it."""
        self.things[revocable.id].alive = False


@pytest.mark.timeout(300)  # twelve seconds of work, on whatever share of a core
def test_p6_ten_thousand_live_tasks_are_renewed_without_a_herd_and_all_end() -> None:
    """
    P4, P6: all started at once. Renewals are spread and bounded; whose renewals fail gets at least
    three more attempts before its credentials lapse, and ends with them; the kill switch ends all.
    """
    loop = VirtualTimeLoop()
    clock = VirtualClock(loop)
    vault, seen = Crowded(now=clock.boottime), Seen()
    log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        None, processors=[_dropped], wrapper_class=structlog.stdlib.BoundLogger
    )
    outside = Outside(vault, MemoryLedger(), FakeProcesses(), clock, seen, log)
    crashes: list[BaseException] = []

    async def live() -> None:
        unlimited = TaskLimits(TASKS, TASKS, 10 * TASKS, 10 * TASKS)
        settings = Settings("node-a", "boot-1", limits=unlimited)
        service = TaskService(policy(POLICY), outside, settings, crashes.append)
        await service.recover()
        for _ in range(TASKS):
            await service.start(caller(), ask(), None)
        begun = loop.time()
        vault.unlucky = set(vault.accessors[:UNLUCKY])
        await asyncio.sleep(LIFE + ROUND)
        for number in range(3):
            _no_herd(vault, begun + (0.5 + number) * ROUND)
        _three_more_attempts(vault)
        assert seen.events.count(f"ended report {EndCause.RENEWAL_LOST}") == UNLUCKY
        live = service.operators.overview()
        assert len(live) == TASKS - UNLUCKY
        assert all(view.state == "active" for view in live)
        order = await service.operators.revoke(everything(), EndCause.OPERATOR, EndedBy(0))
        while order.proven < order.matched:
            order = await service.operators.order(order.number, timedelta(seconds=10))
        assert (order.matched, order.unrecorded) == (TASKS - UNLUCKY, 0)
        assert vault.alive == set()
        await service.stop(revoke=False, grace=timedelta(seconds=10))

    try:
        loop.run_until_complete(asyncio.wait_for(live(), 3600))
    finally:
        loop.close()
    assert crashes == []
    assert vault.peak["renew"] <= 2 * PARALLEL_RENEWALS


def _dropped(_logger: object, _method: str, _event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Print nothing: it would be forty thousand lines."""
    raise structlog.DropEvent


def _no_herd(vault: Crowded, since: float) -> None:
    """In the time of a round every second has its share of the calls, or little more."""
    calls = [at for times in vault.asked.values() for at in times if since <= at < since + ROUND]
    assert len(calls) > TASKS
    assert max(Counter(map(int, calls)).values()) < 3 * len(calls) / ROUND


def _three_more_attempts(vault: Crowded) -> None:
    """Count those before the credentials lapsed: the first that failed, and three at least."""
    for accessor in vault.unlucky:
        in_time = [at for at in vault.asked[accessor] if at < vault.things[accessor].expires]
        assert len(in_time) >= 1 + 3
