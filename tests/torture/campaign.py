"""
The run: several nodes before one OpenBao and one PostgreSQL, their daemons killed again and again,
the servers struck meanwhile; an auditor who knows nothing of taskmint counts what is left.
"""

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from taskmint.devstack.registration import Entry
from taskmint.devstack.stack import Stack
from taskmint.devstack.stack_files import WORKLOAD_ID
from taskmint.devstack.vault_setup import set_up_task_connection
from taskmint.policy.database import POSTGRESQL_REVOCATION

from auditor import Auditor, Inventory
from e2e.ground import CREATION
from faults.tcp_proxy import TcpProxy
from stack import auditor_of
from torture import ledgers
from torture.accounts import Accounts
from torture.leftovers import left_over
from torture.lives import BROKEN, Life, Tally
from torture.nodes import Node, nodes
from torture.points import Hits, Shot
from torture.weather import Weather

DEAD_MAN = timedelta(seconds=5)
# Unheard-of leases are waited for one dead-man interval and 5 s; then the last proof is due.
# A revocation that has met an outage is tried again after 45 s at the latest.
SETTLE_SECONDS = 2 * DEAD_MAN.total_seconds() + 60
HARMLESS_SECONDS = 20.0  # for what gives no access
HAND_POLICY = "torture-reader"

POLICY = """
version: 1
tasks:
  torture-database:
    owner: team-tests@example.org
    class: batch
    dead_man: 5s
    who: [spiffe://example.org/ns/orders/sa/report]
    parameters: {region: {enum: [eu, us]}}
    deadline: {default: 5m, max: 30m}
    ends: {deadline_only: true}
    scope:
      warehouse: {secret: {mount: database, path: "creds/orders-ro-{region}", proof: login}}
  torture-token:
    owner: team-tests@example.org
    class: batch
    dead_man: 5s
    who: [spiffe://example.org/ns/orders/sa/report]
    deadline: {default: 5m, max: 30m}
    ends: {deadline_only: true}
    scope:
      reader: {token: {policy: torture-reader}}
  torture-bound:
    owner: team-tests@example.org
    class: batch
    dead_man: 5s
    who: [spiffe://example.org/ns/orders/sa/report]
    deadline: {default: 5m, max: 30m}
    ends: {bind: [peer]}
    scope:
      reader: {token: {policy: torture-reader}}
  torture-role:
    owner: team-tests@example.org
    class: batch
    dead_man: 5s
    who: [spiffe://example.org/ns/orders/sa/report]
    deadline: {default: 5m, max: 30m}
    ends: {deadline_only: true}
    scope:
      books:
        database:
          mount: database
          connection: tasks
          creation: [CREATION, 'GRANT orders_ro_eu TO "{{name}}"']
          revocation: [REVOCATION]
          proof: login
"""


@dataclass(frozen=True)
class Terms:
    """What a run is to do; it ends when `kills` are done or `seconds` are over."""

    kills: int
    seconds: float
    nodes: int
    seed: int
    shots: list[Shot]
    weather: float | None  # the mean pause between two strikes at the servers; None: none
    audit_every: int  # kills between two audits


@dataclass
class Findings:
    """What a run has come to."""

    hits: Hits
    tally: Tally = field(default_factory=Tally)
    brought: Counter[str] = field(default_factory=Counter)
    gone: dict[str, list[float]] = field(default_factory=dict)
    audits: int = 0
    orphans: list[str] = field(default_factory=list)
    leftovers: set[str] = field(default_factory=set)  # without access, seen at any audit
    unrecorded: list[str] = field(default_factory=list)
    broken_ledgers: list[str] = field(default_factory=list)
    handed_out: int = 0
    rows: int = 0
    edits: ledgers.Edits = field(default_factory=ledgers.Edits)
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        """How often a daemon died of SIGKILL."""
        return self.tally.kills.total()

    def failures(self) -> list[str]:
        """Say everything that must not be."""
        return [
            *self.orphans,
            *self.unrecorded,
            *self.broken_ledgers,
            *self.edits.undetected,
            *self.tally.strange,
            *(f"never hit: {shot}" for shot in self.hits.missed()),
        ]


@asynccontextmanager
async def ground() -> AsyncIterator[Stack]:
    """Start the servers, with definitions whose dead-man interval is short."""
    async with Stack.running(dead_man=DEAD_MAN) as stack:
        async with stack.admin() as vault:
            rule = 'path "auth/token/lookup-self" { capabilities = ["read"] }'
            await vault.call("POST", f"sys/policies/acl/{HAND_POLICY}", {"policy": rule})
            await set_up_task_connection(vault, stack.postgres)
        policy = stack.paths.policy / "torture.yaml"
        text = POLICY.replace("CREATION", json.dumps(CREATION))
        text = text.replace("REVOCATION", json.dumps(POSTGRESQL_REVOCATION))
        await asyncio.to_thread(policy.write_text, text)
        await asyncio.to_thread(policy.chmod, 0o644)
        own = await asyncio.to_thread(Path("/proc/self/exe").resolve)
        await stack.workload_api.register(Entry(WORKLOAD_ID, str(own)))
        await stack.apply()
        yield stack


class Torture:
    """`async with Torture.prepared(stack, terms) as run: await run.go()`, then `run.findings`."""

    def __init__(
        self, stack: Stack, terms: Terms, made: list[Node], weather: Weather, before: Inventory
    ) -> None:
        self.findings = Findings(Hits(terms.shots))
        self._stack = stack
        self._terms = terms
        self._nodes = made
        self._weather = weather
        self._auditor: Auditor = auditor_of(stack)
        self._before = before
        self._accounts = Accounts(stack.postgres, made)
        self._chance = random.Random(terms.seed)
        self._over = asyncio.Event()
        self.stopped = False  # by somebody, before its time
        self._begun = time.monotonic()
        self._busy = len(made)
        self._all_quiet = asyncio.Condition()
        self._audited = 0

    @classmethod
    @asynccontextmanager
    async def prepared(cls, stack: Stack, terms: Terms) -> AsyncIterator["Torture"]:
        """Lay out the nodes behind a proxy; look at what there is before."""
        address = urlsplit(stack.bao.address)
        assert address.hostname is not None
        assert address.port is not None
        async with TcpProxy.before(address.hostname, address.port) as proxy:
            before = await asyncio.to_thread(auditor_of(stack).inventory)
            vault = f"http://127.0.0.1:{proxy.port}"
            async with nodes(stack, terms.nodes, vault) as made:
                chance = random.Random(terms.seed + 1)
                yield cls(stack, terms, made, Weather(stack, proxy, made, chance), before)

    def stop(self) -> None:
        """End soon; what is under way is seen through and audited."""
        self.stopped = True
        self._over.set()

    @property
    def nodes(self) -> list[Node]:
        """The nodes, for whoever looks at their ledgers."""
        return self._nodes

    async def go(self) -> None:
        """Kill until it is enough, audit now and then and at the end."""
        watching = asyncio.create_task(self._accounts.watch())
        try:
            while not self._enough():
                await self._until_audit()
                await self._audit()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        self.findings.brought = self._weather.brought
        self.findings.gone = self._accounts.gone
        self.findings.seconds = time.monotonic() - self._begun

    async def _until_audit(self) -> None:
        """Kill until the next audit is due, under the weather."""
        until = min(self.findings.kills + self._terms.audit_every, self._terms.kills)
        fair = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            if self._terms.weather is not None:
                group.create_task(self._weather.blow(self._terms.weather, fair))
            lives = [group.create_task(self._live(node, until)) for node in self._nodes]
            await asyncio.wait(lives)
            fair.set()

    async def _live(self, node: Node, until: int) -> None:
        chance = random.Random(self._chance.random())
        life = Life(node, self.findings.hits, self.findings.tally, chance)
        while self.findings.kills < until and not self._enough():
            missed = bool(self.findings.hits.missed())
            await life.once(at_failpoint=missed or chance.random() < 0.5)

    def _enough(self) -> bool:
        late = time.monotonic() - self._begun > self._terms.seconds
        return self._over.is_set() or late or self.findings.kills >= self._terms.kills

    # --- audits ----------------------------------------------------------------------------

    async def _audit(self) -> None:
        """
        1. every node runs, unharmed, and what its callers were told of is ended;
        2. whatever is left is given what the promise allows: the dead-man interval, and a margin;
        3. the auditor compares with what there was before the run.
        """
        await asyncio.gather(*(self._end_everything(node) for node in self._nodes))
        begun = time.monotonic()
        while True:
            orphans, harmless = await asyncio.to_thread(left_over, self._before, self._auditor)
            waited, known = time.monotonic() - begun, self.findings.leftovers
            patience = SETTLE_SECONDS if orphans else HARMLESS_SECONDS
            if waited > patience or not (orphans or set(harmless) - known):
                break
            await asyncio.sleep(0.5)
        self.findings.orphans += orphans
        self.findings.leftovers |= set(harmless)
        self.findings.audits += 1
        for node in self._nodes:
            node.signal(signal.SIGTERM)
        await asyncio.gather(*(node.ended() for node in self._nodes))
        await asyncio.to_thread(self._read_ledgers)

    async def _end_everything(self, node: Node) -> None:
        if not await node.start():
            self.findings.tally.strange.append(f"{node.name} does not start")
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS / 2):
                while node.told:
                    for told in tuple(node.told.values()):
                        with suppress(*BROKEN):
                            await node.end(told)
        self._accounts.end_all_of(node)
        if problem := await node.pull_kill_switch(SETTLE_SECONDS):
            self.findings.tally.strange.append(f"{node.name} does not prove every end: {problem}")
        node.told.clear()

    def _read_ledgers(self) -> None:
        """No secret without a record; every ledger whole, by both verifiers."""
        findings = self.findings
        findings.handed_out = findings.rows = 0
        for node in self._nodes:
            recorded = ledgers.handed_out(node.paths.ledger)
            findings.unrecorded += [
                f"{node.name}: {task} revision {number} was handed out without a record"
                for task, number in node.handed_out
                if (task, number) not in recorded
            ]
            exported = ledgers.head(node.paths.ledger)
            findings.handed_out += len(node.handed_out)
            findings.rows += exported[0]
            if ledgers.verdicts(node.paths.ledger, exported) != (True, True):
                findings.broken_ledgers.append(f"the ledger of {node.name} is not intact")

    async def tamper(self, each: int, report: Callable[[str], None]) -> None:
        """Edit copies of each ledger, `each` times in every way; both verifiers must notice."""
        for node in self._nodes:
            scratch = node.paths.directory / "edited.db"
            edits = await asyncio.to_thread(
                ledgers.tamper, node.paths.ledger, scratch, self._chance, each
            )
            for kind, count in edits.tried.items():
                self.findings.edits.tried[kind] = self.findings.edits.tried.get(kind, 0) + count
            self.findings.edits.undetected += edits.undetected
            report(f"ledger of {node.name}: {sum(edits.tried.values())} edits")
