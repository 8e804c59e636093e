"""What goes on while the daemon runs: recovery, readiness, reloads, and waiting for the end."""

import asyncio
import importlib.metadata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from taskmint.api.admin_api import AdminApi
from taskmint.api.admin_bodies import ReloadReply, Standing
from taskmint.api.approvals_api import ApprovalsApi
from taskmint.api.gate import Serving
from taskmint.api.readiness import Components
from taskmint.api.roles import Holders, Members, Role
from taskmint.api.task_api import TaskApi
from taskmint.errors import ConfigError, TaskmintError, Unavailable
from taskmint.identity.approvers import Approvers
from taskmint.identity.peers import PeerReader, require_present
from taskmint.identity.tls import TlsTerms
from taskmint.identity.workload_api import WorkloadApi
from taskmint.ledger.housekeeping import export_heads, keep_retention
from taskmint.ledger.sqlite import SqliteLedger
from taskmint.model.peer import Peer
from taskmint.model.scope import Json
from taskmint.ports import Authorities, Clock, Entry, Event, Identity, Tracer
from taskmint.tasks.service import TaskService
from taskmint.telemetry.metrics import Metrics
from taskmint.vault.client import VaultClient

from .announcing import Announcer
from .approvers import ApproverSource
from .policy_source import InForce, PolicySource
from .policy_watch import Fingerprint, watch

_WATCH_SECONDS: Final = 1.0
_FINDINGS_RECORDED: Final = 20
_REPLAY_SECONDS: Final = 5.0  # how long a stop waits for a replay that it came into
_HEAD_INTERVAL: Final = timedelta(minutes=1)


@dataclass(slots=True)
class Parts:
    """Everything below the sockets; `seen` and `in_force` are replaced by a reload."""

    source: PolicySource
    seen: Fingerprint
    watched: bool
    ticket_interval: timedelta | None
    in_force: InForce
    approver_source: ApproverSource
    approvers: Approvers
    node: str
    clock: Clock
    ledger: SqliteLedger
    ledger_path: Path
    retention: timedelta
    row_retention: timedelta | None
    vault: VaultClient
    prover: Identity
    authorities: Authorities
    tls: TlsTerms
    reader: PeerReader
    workload_api: WorkloadApi
    metrics: Metrics
    tracer: Tracer
    service: TaskService
    crash: "asyncio.Future[None]"

    def components(self) -> Components:
        """What must be there for a task to start, by name."""
        return {
            "identity": self.prover.ready,
            "mutual_tls": self.tls.ready,
            "vault": self.vault.ready,
            "ledger": self.ledger.ready,
        }


class Running:
    """The daemon between its start and its stop."""

    def __init__(
        self, parts: Parts, announcer: Announcer, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._parts = parts
        self._announcer = announcer
        self._log = log
        self._stop = asyncio.Event()
        self._reload_asked = asyncio.Event()
        self._reloading = asyncio.Lock()
        self.reload_failed = False  # what lies on disk; an older policy is in force

    # --- what signals do -------------------------------------------------------------------

    def stop(self) -> None:
        """SIGTERM, SIGINT."""
        self._stop.set()

    def ask_reload(self) -> None:
        """SIGHUP: one reload at a time, however many signals come."""
        self._reload_asked.set()

    # --- what is served --------------------------------------------------------------------

    def task_application(self, body_bytes: int) -> Callable[[Serving], web.Application]:
        """The task socket's application, still without its door."""
        parts = self._parts
        api = TaskApi(
            parts.service,
            parts.prover,
            parts.components(),
            parts.metrics,
            self._log,
            tracer=parts.tracer,
        )
        return lambda serving: api.application(serving, body_bytes)

    def admin_application(
        self, roles: Mapping[Role, Members], page: Callable[[], Awaitable[bytes]]
    ) -> Callable[[Serving], web.Application]:
        """The admin socket's application, still without its door."""
        parts = self._parts
        started = parts.clock.boottime()
        holders = Holders(roles, require_present, parts.service.unproven)
        return AdminApi(
            operators=parts.service.operators,
            approvals=ApprovalsApi(parts.service.approving, parts.clock, holders, self._log),
            holders=holders,
            components=parts.components(),
            reload=self.reload,
            explain_as=parts.service.explain_as,
            policy_digest=lambda: parts.in_force.policy.digest,
            standing=lambda: Standing(
                parts.clock.boottime() - started,
                parts.ledger.waiting,
                parts.vault.wider(),
                parts.vault.unapplied(),
            ),
            metrics=page,
            node=parts.node,
            version=importlib.metadata.version("taskmint"),
            observer=parts.metrics,
            log=self._log,
        ).application

    def unproven(self, peer: Peer, error: TaskmintError) -> None:
        """Count and record a peer whose TLS handshake proved nobody."""
        self._parts.metrics.refused(error.code)
        self._parts.service.unproven(peer, error)

    # --- the time in between ---------------------------------------------------------------

    async def until_stopped(self) -> None:
        """
        Recover, announce readiness, reload when asked; return at the stop.

        When one of these dies, all end and its error is raised: issuing while nobody can revoke
        is worse than being down, and systemd starts us again.
        """
        parts = self._parts
        await self._record(Event.DAEMON_STARTED)
        try:
            async with asyncio.TaskGroup() as group:
                recovery = group.create_task(self._recover(), name="recovery")
                background = [
                    recovery,
                    group.create_task(
                        export_heads(parts.ledger, self._log, _HEAD_INTERVAL), name="heads"
                    ),
                    group.create_task(
                        keep_retention(
                            parts.ledger,
                            parts.clock,
                            self._log,
                            free_text=parts.retention,
                            rows=parts.row_retention,
                        ),
                        name="retention",
                    ),
                    group.create_task(self._announcer.follow(parts.node), name="readiness"),
                    group.create_task(self._parts.service.keep_swept(), name="sweeping"),
                    group.create_task(self._reload_when_asked(), name="reloads"),
                    group.create_task(self._watch_policy(), name="policy watch"),
                    group.create_task(self._fail_on_crash(), name="crash"),
                    group.create_task(self._watch_tickets(), name="tickets"),
                    group.create_task(self._follow_authorities(), name="authorities"),
                ]
                await self._stop.wait()
                # Who has asked for a task of before still gets an answer.
                await asyncio.wait((recovery,), timeout=_REPLAY_SECONDS)
                for task in background:
                    task.cancel()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several
        self._log.info("stopping")
        self._announcer.stopping()
        self._parts.service.hang_up()
        await self._record(Event.DAEMON_STOPPED)

    async def _recover(self) -> None:
        await self._parts.service.recover()
        if astray := self._parts.ledger.repaired:
            self._log.error("ledger_projection_made_anew", tasks=astray)

    async def reload(self) -> ReloadReply:
        """
        Load the policy and the approvers' keys again, all or nothing; end what is now refused.

        Raises ConfigError and leaves everything as it is.
        """
        async with self._reloading:
            parts = self._parts
            parts.seen = await asyncio.to_thread(parts.source.fingerprint)
            try:
                in_force = await asyncio.to_thread(parts.source.load)
                directory = await asyncio.to_thread(parts.approver_source.load)
            except ConfigError as error:
                await self._refuse(error)
                raise
            parts.in_force, self.reload_failed = in_force, False
            parts.approvers.replace(directory)
            parts.vault.swap_plan(in_force.plan)
            ended = parts.service.adopt_policy(in_force.policy)
            await self._record(Event.POLICY_LOADED)
            self._log.info("policy_loaded", digest=in_force.policy.digest, ended=ended)
            return ReloadReply(policy_digest=in_force.policy.digest, ended=ended)

    async def _refuse(self, error: ConfigError) -> None:
        """Keep the policy of before, and raise the alarm: log, gauge and ledger."""
        self.reload_failed = True
        findings: list[Json] = [str(finding) for finding in error.findings]
        self._log.error("policy_refused", findings=findings)
        recorded = findings[:_FINDINGS_RECORDED]
        await self._record(Event.POLICY_REFUSED, {"findings": recorded, "count": len(findings)})

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            await self._reload_quietly()

    async def _reload_quietly(self) -> None:
        """Reload for whoever gets no answer: a signal, a change of the files."""
        self._announcer.reloading()
        try:
            await self.reload()
        except ConfigError:  # told already, where it was found
            self._announcer.reloaded("a policy was refused, the old one is in force")
        else:
            self._announcer.reloaded()

    async def _watch_policy(self) -> None:
        parts = self._parts
        if parts.watched:
            source, quietly = parts.source, self._reload_quietly
            await watch(source.fingerprint, lambda: parts.seen, quietly, _WATCH_SECONDS)

    async def _watch_tickets(self) -> None:
        """End emergencies whose ticket is closed; a daemon without any has nothing to watch."""
        if self._parts.ticket_interval is not None:
            await self._parts.service.tickets.keep(self._parts.ticket_interval)

    async def _follow_authorities(self) -> None:
        """End what rests on an authority that the agent withdraws (P4)."""
        parts, seen = self._parts, 0
        while True:
            seen = await parts.authorities.changed(seen)
            ended = parts.service.end_withdrawn(parts.authorities.stands)
            if ended:
                self._log.warning("authority_withdrawn", tasks_ended=ended)

    async def _fail_on_crash(self) -> None:
        await asyncio.shield(self._parts.crash)  # a stop must not cancel what others may set

    async def _record(self, event: Event, more: Mapping[str, Json] | None = None) -> None:
        parts = self._parts
        facts: dict[str, Json] = {
            "policy_digest": parts.in_force.policy.digest,
            "plan_digest": parts.in_force.plan.digest,
            "version": importlib.metadata.version("taskmint"),
            **(more or {}),
        }
        try:
            await parts.ledger.append(Entry(event, parts.clock.utcnow(), facts=facts))
        except Unavailable as error:
            self._log.warning("ledger_append_failed", row=event, code=error.code)
