"""A task service among fakes that behave, and callers for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from taskmint.config import DEFAULT_CLASSES
from taskmint.model.caller import Caller, IdentityMethod
from taskmint.model.peer import Peer, PeerProof
from taskmint.model.scope import RequestFacts
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.load import Policy, load_policy
from taskmint.ports import Approvers, Tickets
from taskmint.tasks.limits import TaskLimits
from taskmint.tasks.outside import NoApprovers, NoTickets, Outside, Settings
from taskmint.tasks.service import TaskService

from fakes.clock import SteppedClock
from fakes.ledger import MemoryLedger
from fakes.notifier import Heard
from fakes.observer import Seen
from fakes.processes import FakeProcesses
from fakes.vault import FakeVault

ISSUED = datetime.now(UTC)  # when the callers' first SVIDs were

REPORT = """
version: 1
tasks:
  report:
    owner: team-orders@example.org
    class: batch
    who: [spiffe://example.org/job]
    parameters: {region: {enum: [eu, us]}}
    deadline: {default: 5m, max: 30m}
    ends: {bind: [peer, parent], heartbeat: 60s}
    scope:
      warehouse:
        secret: {mount: database, path: "creds/orders-ro-{region}", proof: login}
      archive:
        secret: {mount: kv, path: "data/archive"}
"""

SHORT = """
version: 1
tasks:
  report:
    owner: team-orders@example.org
    class: batch
    dead_man: 3s
    who: [spiffe://example.org/job]
    parameters: {region: {enum: [eu, us]}}
    deadline: {default: DEADLINE, max: 30m}
    ends: ENDS
    scope:
      warehouse: {secret: {mount: database, path: "creds/orders-ro-{region}"}}
"""


def policy(text: str = REPORT) -> Policy:
    """Load one policy text."""
    return load_policy([("policy.yaml", text.encode())], DEFAULT_CLASSES)


def caller(
    path: str = "/job", *, uid: int = 1000, pid: int = 4242, issued: timedelta = timedelta()
) -> Caller:
    """A proven caller, as the identity package would build it; `issued` is its SVID's time."""
    peer = Peer(pid, uid, uid, None, 1, 1, PeerProof.PIDFD)
    until = ISSUED + issued + timedelta(minutes=5)
    spiffe_id = SpiffeId("example.org", path)
    return Caller(spiffe_id, IdentityMethod.JWT_SVID, peer, until, f"issued {issued}")


def ask(task: str = "report", **more: object) -> RequestFacts:
    """A request for the report."""
    return RequestFacts(task=task, parameters={"region": "eu"}, purpose="nightly", **more)  # type: ignore[arg-type] # keyword pass-through


@dataclass
class World:
    """Everything around the service; `service` is made by `running`."""

    vault: FakeVault = field(default_factory=FakeVault)
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    processes: FakeProcesses = field(default_factory=FakeProcesses)
    clock: SteppedClock = field(default_factory=SteppedClock)
    seen: Seen = field(default_factory=Seen)
    crashes: list[BaseException] = field(default_factory=list)
    boot_id: str = "boot-1"
    approvers: Approvers = field(default_factory=NoApprovers)
    notifier: Heard = field(default_factory=Heard)
    tickets: Tickets = field(default_factory=NoTickets)

    def outside(self) -> Outside:
        """The ports."""
        log = structlog.stdlib.get_logger()
        return Outside(
            self.vault,
            self.ledger,
            self.processes,
            self.clock,
            self.seen,
            log,
            approvers=self.approvers,
            notifier=self.notifier,
            tickets=self.tickets,
        )

    async def seen_problem(self, service: TaskService, beginning: str) -> None:
        """Wait until the one task that is not over tells of this problem."""
        async with asyncio.timeout(10):
            while not service.operators.overview()[0].last_problem.startswith(beginning):
                await asyncio.sleep(0.01)  # it is a text that nobody rings a bell for

    @asynccontextmanager
    async def running(
        self,
        text: str = REPORT,
        *,
        limits: TaskLimits | None = None,
        delivery_window: timedelta = timedelta(seconds=60),
        reconnect_grace: timedelta = timedelta(seconds=10),
        recovered: bool = True,
    ) -> AsyncIterator[TaskService]:
        """A service, recovered unless the test does that; whatever crashed in it fails the test."""
        settings = Settings(
            "node-a",
            self.boot_id,
            limits=limits or TaskLimits(),
            delivery_window=delivery_window,
            reconnect_grace=reconnect_grace,
        )
        loaded = policy(text)
        async with TaskService(loaded, self.outside(), settings, self.crashes.append) as service:
            if recovered:
                await service.recover()
            yield service
        assert self.crashes == []
