"""
Planned restarts under load: nobody who calls may notice, and nothing that runs may end.

The listening sockets stay open throughout, as systemd keeps them. Before each restart a request is
under way, and while there is no daemon the callers go on coming and stand in the socket's queue.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from restarts.activated import ActivatedDaemon
from restarts.callers import Caller, OpenLoop
from restarts.lasting import Follower, Session, states
from taskmint.devstack.registration import Entry
from taskmint.devstack.stack import Stack
from taskmint.devstack.stack_files import WORKLOAD_ID
from taskmint.model.secret import Secret

from plugins.canaries import Canaries

DEAD_MAN: Final = timedelta(seconds=60)
BETWEEN_RESTARTS: Final = 1.0
HAND_POLICY: Final = "restarts-reader"
POLICY: Final = f"""
version: 1
tasks:
  lasting-process:
    owner: team-tests@example.org
    class: batch
    dead_man: {DEAD_MAN.total_seconds():.0f}s
    who: [spiffe://example.org/ns/orders/sa/report]
    deadline: {{default: 1h, max: 2h}}
    ends: {{bind: [peer], heartbeat: 120s}}
    scope:
      warehouse: {{secret: {{mount: database, path: creds/orders-ro-eu, proof: sessions}}}}
  lasting-connection:
    owner: team-tests@example.org
    class: batch
    dead_man: {DEAD_MAN.total_seconds():.0f}s
    who: [spiffe://example.org/ns/orders/sa/report]
    deadline: {{default: 1h, max: 2h}}
    ends: {{connection: true}}
    scope:
      reader: {{token: {{policy: {HAND_POLICY}}}}}
  brief:
    owner: team-tests@example.org
    class: batch
    dead_man: {DEAD_MAN.total_seconds():.0f}s
    who: [spiffe://example.org/ns/orders/sa/report]
    deadline: {{default: 5m, max: 30m}}
    ends: {{deadline_only: true}}
    scope:
      reader: {{token: {{policy: {HAND_POLICY}}}}}
"""


@dataclass(frozen=True)
class Report:
    """
    What came of it. `in_flight` are the requests under way when each restart began, `queued`
    those under way when the new process began; `gaps` and `latencies` are seconds.
    """

    restarts: int
    rate: float
    in_flight: list[int]
    queued: list[int]
    gaps: list[float]
    sent: dict[str, int]
    latencies: dict[str, dict[str, float]]
    failures: list[str]
    lost: list[str]
    sessions: list[str]
    streams: int

    @property
    def valid(self) -> bool:
        """Whether it proves anything: requests were under way in nine of ten restarts."""
        return sum(map(bool, self.in_flight)) >= 0.9 * self.restarts

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self) | {"valid": self.valid}


@contextlib.asynccontextmanager
async def stack_with_tasks() -> AsyncIterator[Stack]:
    """The embedded stack with this test's definitions, and this process known as a workload."""
    async with Stack.running(dead_man=DEAD_MAN) as stack:
        async with stack.admin() as vault:
            rule = 'path "auth/token/lookup-self" { capabilities = ["read"] }'
            await vault.call("POST", f"sys/policies/acl/{HAND_POLICY}", {"policy": rule})
        await asyncio.to_thread((stack.paths.policy / "restarts.yaml").write_text, POLICY)
        await stack.workload_api.register(Entry(WORKLOAD_ID, os.path.realpath("/proc/self/exe")))
        await stack.apply()
        yield stack


async def restarted_under_load(
    stack: Stack,
    *,
    restarts: int,
    rate: float,
    tell: Callable[[str], None],
    canaries: Canaries | None = None,
) -> Report:
    """Restart the daemon so often; everything that runs ends in good order afterwards."""
    endpoint = stack.workload_api.endpoint
    async with (
        ActivatedDaemon.running(stack) as daemon,
        Caller.on(str(stack.paths.task_socket), endpoint, canaries) as caller,
    ):
        lasting = await caller.start("lasting-process")
        followed = await caller.start("lasting-connection")
        follower = Follower(caller, followed["id"])
        following = asyncio.create_task(follower.follow(), name="follower")
        data = lasting["credentials"]["warehouse"]["data"]
        dsn = stack.postgres.dsn(data["username"], Secret(data["password"]))
        loop = OpenLoop(caller, rate, lasting["id"], "brief")
        in_flight, queued, sessions = [], [], []
        try:
            async with Session.opened(dsn) as session, loop:
                sessions.append(await session.who())
                for number in range(restarts):
                    await asyncio.sleep(BETWEEN_RESTARTS)
                    await loop.until_in_flight()
                    in_flight.append(loop.in_flight)
                    await daemon.restart()
                    queued.append(loop.under_way.total())
                    await caller.ask("GET", "/v1/health", 200)
                    sessions.append(await session.who())
                    tell(f"{number + 1} of {restarts}: {daemon.gaps[-1]:.2f} s")
            left = await states(caller, lasting, followed)
        finally:
            following.cancel()
        for task in (lasting, followed):
            await caller.end(task["id"])
    return Report(
        restarts=restarts,
        rate=rate,
        in_flight=in_flight,
        queued=queued,
        gaps=daemon.gaps,
        sent=dict(loop.sent),
        latencies={kind: _quantiles(values) for kind, values in loop.latencies.items()},
        failures=loop.failures + follower.failures,
        lost=[state for state in left if state != "active"],
        sessions=sorted(set(sessions)),
        streams=follower.streams,
    )


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }
