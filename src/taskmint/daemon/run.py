"""
The daemon: every concrete thing, built in order and taken down in reverse.

Reading `run` is reading the boot. Nothing else in the project knows all the adapters.
"""

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from taskmint.api.connection import TlsDoor
from taskmint.api.metrics_listener import serving_metrics
from taskmint.api.serving import require_c_parser, serving_http
from taskmint.clock import SystemClock
from taskmint.config import Config
from taskmint.errors import Code, Unavailable
from taskmint.failpoints import Failpoints
from taskmint.identity.approvers import Approvers
from taskmint.identity.believer import Believer
from taskmint.identity.bindings import Bindings
from taskmint.identity.delegation import Delegation
from taskmint.identity.peers import PeerReader, PidfdSource
from taskmint.identity.prover import Prover
from taskmint.identity.tls import TlsTerms, check_tls_support
from taskmint.identity.workload_api import WorkloadApi
from taskmint.ledger.chain import SCHEMA
from taskmint.ledger.sqlite import SqliteLedger
from taskmint.ports import Clock, Entry, Event, Notice
from taskmint.tasks.outside import Outside
from taskmint.tasks.service import TaskService
from taskmint.telemetry.metrics import Metrics
from taskmint.telemetry.notices import Notices
from taskmint.telemetry.systemd import Systemd, fed
from taskmint.telemetry.traces import tracing
from taskmint.vault.stopwatch import Stopwatch

from . import from_config, measuring
from .announcing import Announcer
from .approvers import ApproverSource, tickets
from .approvers import channels as notice_channels
from .node_id import node_id
from .policy_source import policy_source
from .running import Parts, Running
from .sockets import listening_sockets
from .vault_client import vault_client

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# What one attempt to revoke may ask of Vault: twice a call, and each time its repetition after a
# look at the daemon's own token and a login; then some.
_CALLS_OF_AN_ATTEMPT: Final = 10
_AGENT_SECONDS: Final = 3.0  # how long a start waits for the agent before it goes on without


async def run(
    config: Config,
    environment: MutableMapping[str, str],
    log: structlog.stdlib.BoundLogger,
    *,
    revoke_on_stop: bool,
    signals: Callable[[Running], None],
) -> None:
    """
    Serve until told to stop; `signals` connects the process's signals to what is running.

    Raises TaskmintError when it cannot start; afterwards, whatever ended a part of it.
    """
    require_c_parser()
    check_tls_support()
    async with AsyncExitStack() as stack:
        parts = await _build(stack, config, environment, log)
        systemd = Systemd.of(environment)
        longest = config.vault.timeout * _CALLS_OF_AN_ATTEMPT
        healthy = partial(parts.service.standstill, longest)
        # To the very end: a drain may take longer than the watchdog waits.
        await stack.enter_async_context(fed(systemd, healthy, log))
        running = Running(parts, Announcer(systemd, parts.components(), log), log)
        signals(running)  # before anybody can be served: a stop must never find us deaf
        # Taken down after the sockets: requests finish first, then tasks end or are left.
        stack.push_async_callback(
            _stop,
            parts,
            revoke=revoke_on_stop or config.on_stop == "revoke",
            grace=config.shutdown_timeout,
        )
        sockets = await stack.enter_async_context(
            listening_sockets(config.sockets, environment, from_config.door(config))
        )
        page = measuring.page_of(parts, running)
        tasks = running.task_application(config.limits.body_bytes)
        admin = running.admin_application(from_config.roles(config), page)
        for door, sock, application, tls in (
            ("task", sockets.task, tasks, TlsDoor(parts.tls, running.unproven)),
            ("admin", sockets.admin, admin, None),
        ):
            page.doors[door] = await stack.enter_async_context(
                serving_http(
                    sock,
                    application,
                    limits=from_config.listener_limits(config, door),
                    reader=parts.reader,
                    inherited=sockets.inherited,
                    tls=tls,
                )
            )
        if config.metrics.listen is not None:
            await stack.enter_async_context(serving_metrics(config.metrics.listen, page))
        await running.until_stopped()


async def _stop(parts: Parts, *, revoke: bool, grace: timedelta) -> None:
    """
    Take the tasks down.

    Raises what crashed in the background until now; and Unavailable(vault_unavailable) when all
    was to be revoked and that is not proven: whoever stops us must not take it for done.
    """
    late = await parts.service.stop(revoke=revoke, grace=grace)
    if parts.crash.done():
        parts.crash.result()
    if revoke and late:
        raise Unavailable(
            Code.VAULT_UNAVAILABLE,
            f"stopped, and {late} revocations were not proven in {grace.total_seconds():g} s",
            fix="start the daemon, which goes on with them; else the dead-man interval ends them",
        )


async def _delegation(
    stack: AsyncExitStack,
    config: Config,
    workload_api: WorkloadApi,
    believer: Believer,
    clock: Clock,
) -> Delegation | None:
    """Callers that show nothing, where that was switched on."""
    if config.identity.delegation is None:
        return None
    return await stack.enter_async_context(
        Delegation(
            config.identity.delegation,
            workload_api.changes,
            believer.believes,
            clock,
            agent_uid=config.identity.agent_uid,
        )
    )


async def _build(
    stack: AsyncExitStack,
    config: Config,
    environment: Mapping[str, str],
    log: structlog.stdlib.BoundLogger,
) -> Parts:
    """Build everything below the sockets; `stack` takes it down."""
    clock, metrics = SystemClock(), Metrics()
    source = policy_source(config)
    seen = await asyncio.to_thread(source.fingerprint)
    in_force = await asyncio.to_thread(source.load)
    approver_source = ApproverSource(config.approvals)
    directory = await asyncio.to_thread(approver_source.load)
    channels = await asyncio.to_thread(notice_channels, config.notices)
    node = await asyncio.to_thread(node_id, config.node.id, Path(config.ledger.path).parent)
    asked = await asyncio.to_thread(tickets, config.break_glass, node)
    boot_id = (await asyncio.to_thread(_BOOT_ID.read_text)).strip()
    tracer = await stack.enter_async_context(tracing(config.tracing.endpoint, node))
    failpoints = Failpoints.from_text(environment.get("TASKMINT_FAILPOINT", ""))
    ledger = await stack.enter_async_context(
        SqliteLedger(
            Path(config.ledger.path),
            node=node,
            failpoints=failpoints,
            changed=partial(_ledger_changed, log),
            appending=partial(measuring.appending, metrics, tracer),
        )
    )
    _tell_of(ledger, log)
    workload_api = await stack.enter_async_context(
        WorkloadApi(
            config.identity.workload_api,
            clock,
            max_age=config.identity.max_bundle_age.total_seconds(),
            agent_uid=config.identity.agent_uid,
        )
    )
    with suppress(TimeoutError):
        async with asyncio.timeout(_AGENT_SECONDS):
            await workload_api.first_bundles()

    vault = await stack.enter_async_context(
        vault_client(
            config,
            in_force.plan,
            workload_api,
            log,
            stopwatch=Stopwatch(metrics.vault_called, tracer),
        )
    )
    believer = Believer(workload_api, frozenset(config.identity.trust_domains))
    approvers = Approvers(
        directory, lambda: believer.now().x509, clock, local=config.approvals.local_uid
    )
    notices = await stack.enter_async_context(
        Notices(channels, node, log, partial(_notice_failed, ledger, clock, log), metrics.noticed)
    )
    reader = PeerReader(PidfdSource(config.peer.pidfd))
    crash: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    service = TaskService(
        in_force.policy,
        Outside(
            *(vault, ledger, Bindings(reader), clock, metrics, log, failpoints),
            approvers=approvers,
            notifier=notices,
            tickets=asked,
        ),
        from_config.task_settings(config, node, boot_id),
        partial(_crashed, crash, log),
    )
    prover = Prover(
        believer,
        clock,
        from_config.jwt_rules(config),
        owners=from_config.owner_rules(config),
        delegation=await _delegation(stack, config, workload_api, believer, clock),
    )
    return Parts(
        source=source,
        seen=seen,
        ticket_interval=config.break_glass.ticket_interval if config.break_glass else None,
        watched=config.policy.watch,
        in_force=in_force,
        approver_source=approver_source,
        approvers=approvers,
        node=node,
        clock=clock,
        ledger=ledger,
        ledger_path=Path(config.ledger.path),
        retention=config.ledger.retention,
        row_retention=config.ledger.row_retention,
        vault=vault,
        prover=prover,
        authorities=prover,
        tls=TlsTerms(prover),
        reader=reader,
        workload_api=workload_api,
        metrics=metrics,
        tracer=tracer,
        service=service,
        crash=crash,
    )


async def _notice_failed(
    ledger: SqliteLedger,
    clock: Clock,
    log: structlog.stdlib.BoundLogger,
    notice: Notice,
    reason: str,
) -> None:
    """Record that people were not told."""
    facts = {"kind": notice.kind, "reason": reason}
    entry = Entry(Event.NOTICE_FAILED, clock.utcnow(), notice.task, facts=facts)
    try:
        await ledger.append(entry)
    except Unavailable as error:
        log.warning("ledger_append_failed", row=entry.event, code=error.code)


def _tell_of(ledger: SqliteLedger, log: structlog.stdlib.BoundLogger) -> None:
    """A ledger that is new never passes in silence: the old one may have been taken away."""
    if ledger.created:
        log.warning("ledger_created", ledger=ledger.genesis)
    if ledger.migrated_from is not None:
        log.info("ledger_migrated", schema=SCHEMA, former=ledger.migrated_from)


def _crashed(
    crash: "asyncio.Future[None]", log: structlog.stdlib.BoundLogger, error: BaseException
) -> None:
    """The first is what the daemon goes down with; its words may hold what a log must not."""
    log.error("background_work_crashed", error=type(error).__name__)
    if not crash.done():
        crash.set_exception(error)


def _ledger_changed(log: structlog.stdlib.BoundLogger, reason: str | None) -> None:
    if reason is None:
        log.info("ledger_works_again")
    else:
        log.error("ledger_failed", reason=reason)
