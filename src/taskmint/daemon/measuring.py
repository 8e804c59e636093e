"""
What is asked for at each scrape: gauges, and counters that others keep.

Readiness, backlog, freshness, rights, descriptors, disk. `Host` asks the operating system, in a
thread, before the page is rendered; everything else is in memory.
"""

import asyncio
import importlib.metadata
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from taskmint.api.listener import Listener
from taskmint.api.readiness import Components
from taskmint.identity.workload_api import WorkloadApi
from taskmint.ledger.sqlite import SqliteLedger
from taskmint.model.state import TaskState
from taskmint.ports import Entry, Tracer
from taskmint.tasks.figures import Figures
from taskmint.telemetry.exposition import Read
from taskmint.telemetry.metrics import Metrics
from taskmint.vault.client import VaultClient

from .running import Parts, Running

_DESCRIPTORS: Final = Path("/proc/self/fd")
_LEDGER_FILES: Final = ("", "-wal", "-shm")


@contextmanager
def appending(metrics: Metrics, tracer: Tracer, entry: Entry) -> Iterator[None]:
    """Time and trace one append to the ledger; one that fails is not counted as durable."""
    began = time.perf_counter()
    with tracer.span("ledger append", {"row": entry.event.value}):
        yield
    metrics.recorded(time.perf_counter() - began)


class Host:
    """What the operating system says; numbers are those of the last `look`."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self.descriptors = 0.0
        self.ledger_bytes = 0.0
        self.disk_free_bytes = 0.0

    def look(self) -> None:
        """Ask; blocks."""
        with suppress(OSError):
            self.descriptors = sum(1 for _ in _DESCRIPTORS.iterdir())
        sizes = []
        for suffix in _LEDGER_FILES:
            with suppress(OSError):
                sizes.append(Path(f"{self._ledger}{suffix}").stat().st_size)
        self.ledger_bytes = sum(sizes)
        with suppress(OSError):
            found = os.statvfs(self._ledger.parent)
            self.disk_free_bytes = found.f_bavail * found.f_frsize

    def readings(self) -> tuple[Read, ...]:
        """What it adds to the page."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (
            Read("taskmint_open_descriptors", "Descriptors in use.", lambda: self.descriptors),
            Read("taskmint_descriptors_limit", "Descriptors allowed.", lambda: float(limit)),
            Read(
                "taskmint_ledger_bytes", "What the ledger's files take.", lambda: self.ledger_bytes
            ),
            Read(
                "taskmint_ledger_disk_free_bytes",
                "What is free where the ledger stands.",
                lambda: self.disk_free_bytes,
            ),
        )


class Tasks:
    """How many tasks there are, and what is not proven; numbers are those of the last `look`."""

    def __init__(self, figures: Callable[[], Figures], mounts: Callable[[], Iterable[str]]) -> None:
        self._count = figures
        self._figures = figures()
        self._mounts = mounts

    def look(self) -> None:
        """Count once for the whole page: there may be ten thousand."""
        self._figures = self._count()

    def readings(self) -> tuple[Read, ...]:
        """What it adds to the page."""
        return (
            Read(
                "taskmint_tasks",
                "Tasks that are not over.",
                self._by_definition,
                labels=("definition", "state"),
            ),
            Read(
                "taskmint_tasks_live",
                "Active tasks.",
                lambda: self._figures.in_state(TaskState.ACTIVE),
            ),
            Read(
                "taskmint_revocations_unproven",
                "Tasks whose revocation was tried and is not proven yet.",
                lambda: self._figures.unproven,
            ),
            Read(
                "taskmint_revocations_unproven_oldest_seconds",
                "Since the end of the first of them began; 0 when there is none.",
                lambda: self._figures.oldest_unproven,
            ),
            Read(
                "taskmint_revocations_unproven_at_mount",
                "Leases and tokens that could not be taken back at the first attempt.",
                self._at_mounts,
                labels=("mount",),
            ),
            Read(
                "taskmint_mints_waiting",
                "Starts that wait for Vault.",
                lambda: self._figures.waiting.mints,
            ),
            Read(
                "taskmint_approvals_waiting",
                "Requests that wait for an approval.",
                lambda: self._figures.waiting.approvals,
            ),
        )

    def _by_definition(self) -> Mapping[tuple[str, ...], float]:
        tasks = self._figures.tasks.items()
        return {(name, state.value): count for (name, state), count in tasks}

    def _at_mounts(self) -> Mapping[tuple[str, ...], float]:
        """Nought where nothing has failed yet, so that an alarm does not wait for a series."""
        found = dict.fromkeys(self._mounts(), 0) | dict(self._figures.unproven_at)
        return {(at,): count for at, count in found.items()}


class Page:
    """The page of metrics: `await page()` looks around, then renders. `doors` are by name."""

    def __init__(self, metrics: Metrics, tasks: Tasks, host: Host) -> None:
        self._metrics = metrics
        self._tasks = tasks
        self._host = host
        self.doors: dict[str, Listener] = {}
        for read in (*tasks.readings(), *host.readings(), *of_sockets(self.doors)):
            metrics.show(read)

    async def __call__(self) -> bytes:
        """Return what a scrape gets."""
        await asyncio.to_thread(self._host.look)
        self._tasks.look()
        return self._metrics.text().encode()


def of_daemon(
    version: str, started: float, components: Components, reload_failed: Callable[[], bool]
) -> tuple[Read, ...]:
    """Which daemon this is, since when, and whether it can do its work."""
    return (
        Read("taskmint_build_info", "Always 1.", lambda: {(version,): 1.0}, labels=("version",)),
        Read("taskmint_start_time_seconds", "Unix time of the daemon's start.", lambda: started),
        Read(
            "taskmint_component_ready",
            "1 when a component can do its part in a start.",
            lambda: {(name,): float(ask() is None) for name, ask in components.items()},
            labels=("component",),
        ),
        Read(
            "taskmint_policy_reload_failed",
            "1 when the last reload was refused and the older policy is in force.",
            lambda: float(reload_failed()),
        ),
    )


def of_ledger(ledger: SqliteLedger) -> tuple[Read, ...]:
    """How the record does."""
    return (
        Read("taskmint_ledger_queue", "Rows waiting for a commit.", lambda: ledger.waiting),
        Read(
            "taskmint_ledger_position",
            "The newest durable row; a fall means that it was replaced.",
            lambda: ledger.head.position,
        ),
    )


def of_outside(workload_api: WorkloadApi, vault: VaultClient) -> tuple[Read, ...]:
    """How fresh and how narrow what we depend on is."""
    return (
        Read(
            "taskmint_workload_api_bundle_age_seconds",
            "Since the agent last stood behind its bundles; 0 while it does.",
            workload_api.age,
        ),
        Read(
            "taskmint_vault_rights_wider",
            "Rights of the daemon in Vault that are not in the plan.",
            lambda: len(vault.wider()),
        ),
        Read(
            "taskmint_vault_definitions_unapplied",
            "Definitions that Vault lacks something for.",
            lambda: len(vault.unapplied()),
        ),
    )


def of_sockets(listeners: Mapping[str, Listener]) -> tuple[Read, ...]:
    """What came in at each door."""
    labels = ("socket",)

    def counter(name: str, meaning: str, field: str) -> Read:
        def read() -> Mapping[tuple[str, ...], float]:
            return {(door,): getattr(one.counts, field) for door, one in listeners.items()}

        return Read(name, meaning, read, labels=labels, kind="counter")

    return (
        Read(
            "taskmint_connections",
            "Open connections.",
            lambda: {(door,): one.connections for door, one in listeners.items()},
            labels=labels,
        ),
        counter("taskmint_connections_accepted_total", "Connections accepted.", "accepted"),
        counter("taskmint_connections_refused_total", "Connections over a cap.", "refused"),
        counter("taskmint_connections_timed_out_total", "Connections cut by a clock.", "timed_out"),
        counter(
            "taskmint_requests_unreadable_total",
            "Requests that could not be read, or asked for what HTTP here has not.",
            "unreadable",
        ),
        counter(
            "taskmint_accept_failures_total",
            "Pauses in accepting, for want of descriptors mostly.",
            "accept_failures",
        ),
    )


def page_of(parts: Parts, running: Running) -> Page:
    """Put the whole page together; whoever opens a door adds it to the page's `doors`."""
    version = importlib.metadata.version("taskmint")
    for read in (
        *of_daemon(version, time.time(), parts.components(), lambda: running.reload_failed),
        *of_ledger(parts.ledger),
        *of_outside(parts.workload_api, parts.vault),
    ):
        parts.metrics.show(read)
    tasks = Tasks(parts.service.operators.figures, lambda: parts.in_force.plan.mounts)
    return Page(parts.metrics, tasks, Host(parts.ledger_path))
