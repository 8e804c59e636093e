"""Tasks as rows: what the tests write into ledgers, and the ledgers they write into."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from taskmint.failpoints import Failpoints
from taskmint.ledger.sqlite import SqliteLedger
from taskmint.model.scope import Json
from taskmint.model.state import TaskState
from taskmint.model.task_id import TaskId, new_task_id
from taskmint.ports import Entry, Event

NODE = "node-1"
START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

Facts: TypeAlias = Mapping[str, Json]

_COUNTER = itertools.count(1)


def a_task() -> TaskId:
    """Return an id that no other test has."""
    return new_task_id(1_795_000_000_000, next(_COUNTER).to_bytes(10))


def intent(task: TaskId, at: datetime = START) -> Entry:
    """Return a row like the one before the first call to Vault."""
    facts: Facts = {
        "definition": "orders-report",
        "spiffe_id": "spiffe://prod.example.org/ns/orders/sa/nightly",
        "uid": 1000,
        "method": "jwt-svid",
        "parameters": {"region": "eu", "größe": 1.5},
        "deadline_boottime": 12345.678,
        "scope": {"policy_digest": "ab" * 32, "entitlements": {"warehouse": {"ttl": 60.0}}},
    }
    free_text: Facts = {
        "purpose": "nightly totals",
        "ticket": "OPS-1",
        "context": {"run": "7"},
    }
    return Entry(Event.INTENT, at, task, TaskState.MINTING, facts, free_text=free_text)


def accessor(task: TaskId, at: datetime = START) -> Entry:
    """Return a row that holds a task token's accessor."""
    handles: Facts = {"accessor": f"accessor-of-{task}"}
    return Entry(Event.ACCESSOR, at, task, TaskState.MINTING, handles=handles)


def active(task: TaskId, at: datetime = START) -> Entry:
    """Return a row that holds a lease."""
    facts: Facts = {"entitlements": {"warehouse": {"kind": "lease", "user_name": "v-orders-1"}}}
    handles: Facts = {"warehouse": f"database/creds/orders-ro-eu/lease-of-{task}"}
    return Entry(Event.ACTIVE, at, task, TaskState.ACTIVE, facts, handles)


def ending(task: TaskId, at: datetime = START) -> Entry:
    """Return a row that says why a task ended."""
    return Entry(Event.ENDING, at, task, TaskState.REVOKING, {"cause": "succeeded"})


def revoked(task: TaskId, at: datetime = START) -> Entry:
    """Return a row that finishes a task."""
    facts: Facts = {
        "cause": "succeeded",
        "revocation_seconds": 0.0125,
        "lifetime_seconds": 42.5,
    }
    return Entry(Event.REVOKED, at, task, TaskState.REVOKED, facts)


LIFE: tuple[Callable[[TaskId, datetime], Entry], ...] = (
    intent, accessor, active, ending, revoked,
)  # fmt: skip


def life(task: TaskId, start: datetime = START) -> Iterator[Entry]:
    """Yield a task's five rows, a second apart."""
    for seconds, row in enumerate(LIFE):
        yield row(task, start + timedelta(seconds=seconds))


def ledger_at(directory: Path, failpoints: Failpoints | None = None) -> SqliteLedger:
    """Return a ledger in a directory of its own, not opened."""
    directory.mkdir(mode=0o700, exist_ok=True)
    return SqliteLedger(directory / "ledger.db", node=NODE, failpoints=failpoints or Failpoints())


async def written(directory: Path, *entries: Entry) -> Path:
    """Write entries into a ledger and close it; return its file."""
    async with ledger_at(directory) as ledger:
        for entry in entries:
            await ledger.append(entry)
    return directory / "ledger.db"


async def left_behind(path: Path) -> Sequence[Sequence[Entry]]:
    """Open a closed ledger as the next daemon does; return the tasks that it takes up."""
    async with ledger_at(path.parent) as ledger:
        found = await ledger.unfinished()
    assert found.doubt is None
    return found.tasks
