"""The ledger's schema moves forward, whole or not at all, and the chain of before still holds."""

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ledger import independent_verifier
from ledger.former import written_in_schema_1
from ledger.lives import (
    NODE,
    a_task,
    accessor,
    active,
    intent,
    ledger_at,
    life,
    written,
)
from ledger.test_crash import command, environment
from taskmint.cli.audit import audit
from taskmint.errors import Unavailable
from taskmint.failpoints import Failpoint, Failpoints
from taskmint.ledger.chain import SCHEMA, Head
from taskmint.ledger.migrations import MIGRATIONS
from taskmint.ledger.sqlite import Patience, SqliteLedger
from taskmint.model.task_id import TaskId

TABLES = ("header", "entries", "handles", "free_text", "unfinished")


def rows(path: Path, statement: str) -> Sequence[tuple[Any, ...]]:
    """Ask the file by SQLite alone."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(statement).fetchall()


def contents(path: Path) -> tuple[bytes, bytes]:
    """Read the database and its write-ahead log."""
    return path.read_bytes(), Path(f"{path}-wal").read_bytes()


async def verified(path: Path, head: Head) -> dict[str, Any]:
    """Let both verifiers look, each with a head that was exported; return what ours says."""
    return await asyncio.to_thread(_verified, path, head)


def _verified(path: Path, head: Head) -> dict[str, Any]:
    assert independent_verifier.verify(path, {head.position: head.hash}) == []
    said = CliRunner().invoke(
        audit, ["verify", "--ledger", str(path), "--head", str(head), "--output", "json"]
    )
    assert said.exit_code == 0, said.output
    verdict: dict[str, Any] = json.loads(said.stdout)
    assert (said.exit_code, verdict["findings"]) == (0, [])
    return verdict


@pytest.fixture
def going() -> TaskId:
    """A task that was running when the daemon of before stopped."""
    return a_task()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger of schema 1 stands."""
    return tmp_path / "ledger" / "ledger.db"


@pytest.fixture
def head(path: Path, going: TaskId) -> Head:
    """Write the ledger of schema 1; its head, exported then."""
    entries = [*life(a_task()), intent(going), accessor(going), active(going)]
    return written_in_schema_1(path, entries)


def test_steps_rise_by_one_to_our_schema() -> None:
    """Every schema of before has its way to ours."""
    assert [migration.to for migration in MIGRATIONS] == list(range(2, SCHEMA + 1))


async def test_a_ledger_of_a_former_schema_is_taken_up_and_holds(
    path: Path, head: Head, going: TaskId, tmp_path: Path
) -> None:
    """P8: its tasks are all there, its old head still holds, and a row says what happened."""
    before = await verified(path, head)
    entries = rows(path, "SELECT * FROM entries")

    async with ledger_at(path.parent) as ledger:
        found = await ledger.unfinished()
        assert ledger.migrated_from == 1
        await ledger.append(intent(a_task()))

    after = await verified(path, head)
    assert [[entry.event for entry in task] for task in found.tasks] == [
        ["intent", "accessor", "active"]
    ]
    assert found.tasks[0][2].handles == active(going).handles
    assert rows(path, "SELECT * FROM entries")[: len(entries)] == entries
    assert rows(path, f"SELECT event, facts FROM entries WHERE position = {head.position + 1}") == [
        ("ledger_migrated", f'{{"from":1,"to":{SCHEMA}}}')
    ]
    assert (before["schema"], after["schema"], after["first_schema"]) == (1, SCHEMA, 1)
    assert before["genesis"] == after["genesis"]
    fresh = await written(tmp_path / "fresh", intent(a_task()))
    for table in TABLES:
        columns = f"SELECT name, type, pk FROM pragma_table_info('{table}')"
        assert rows(path, columns) == rows(fresh, columns)


async def test_a_ledger_is_migrated_once(path: Path, head: Head) -> None:
    """The next start finds our schema and writes nothing of its own."""
    for former in (1, None):
        async with ledger_at(path.parent) as ledger:
            assert ledger.migrated_from == former
            assert ledger.head.position == head.position + 1


async def test_a_newer_schema_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    """The daemon and the auditor say which schema it is; not a byte of it or its log changes."""
    origin = await written(tmp_path / "origin", intent(a_task()))
    directory = tmp_path / "ledger"
    directory.mkdir(mode=0o700)
    with closing(sqlite3.connect(origin, isolation_level=None)) as database:
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute(f"UPDATE header SET schema = {SCHEMA + 1}")
        for file in origin.parent.glob("*"):  # as a crash leaves it: what is newest in the log
            shutil.copy(file, directory)
    path = directory / "ledger.db"
    assert path.with_name("ledger.db-wal").stat().st_size > 0
    before = contents(path)

    with pytest.raises(Unavailable, match=f"has schema {SCHEMA + 1}; .* up to {SCHEMA}") as refused:
        async with ledger_at(directory):
            pass
    said = await asyncio.to_thread(CliRunner().invoke, audit, ["verify", "--ledger", str(path)])

    assert "run the version of taskmint that wrote it" in refused.value.fix
    assert said.exit_code == 3
    assert f"schema {SCHEMA + 1}" in said.output
    assert contents(path) == before


async def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    """Not even its journal becomes a write-ahead log."""
    path = tmp_path / "ledger" / "ledger.db"
    path.parent.mkdir(mode=0o700)
    path.touch(0o600)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (one)")
    before = await asyncio.to_thread(path.read_bytes)

    with pytest.raises(Unavailable, match="not a ledger of taskmint"):
        async with ledger_at(path.parent):
            pass

    assert await asyncio.to_thread(path.read_bytes) == before


@pytest.mark.parametrize(
    ("point", "schema"), [(Failpoint.LEDGER_BEFORE_COMMIT, 1), (Failpoint.LEDGER_AFTER_COMMIT, 2)]
)
async def test_kill_9_in_the_middle_of_a_migration(
    path: Path, head: Head, going: TaskId, point: Failpoint, schema: int
) -> None:
    """P8: every statement done and nothing committed is nothing done; the next start does it."""
    killed = await asyncio.to_thread(
        subprocess.run,
        command(path.parent, 1),
        env=environment(TASKMINT_FAILPOINT=f"{point}:1:kill"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout == ""
    assert (await verified(path, head))["schema"] == schema
    async with ledger_at(path.parent) as ledger:
        assert ledger.migrated_from == (1 if schema == 1 else None)
        assert [task[0].task for task in (await ledger.unfinished()).tasks] == [going]
        assert ledger.head.position == head.position + 1
    assert (await verified(path, head))["schema"] == SCHEMA


async def test_a_full_disk_delays_a_migration_and_no_revocation(
    path: Path, head: Head, going: TaskId
) -> None:
    """What is to be taken back is read from the old tables; the migration comes with the room."""
    told: asyncio.Queue[str | None] = asyncio.Queue()
    async with SqliteLedger(
        path,
        node=NODE,
        failpoints=Failpoints(Failpoint.LEDGER_BEFORE_COMMIT, 1, "error"),
        changed=told.put_nowait,
        patience=Patience(retry_seconds=0.05),
    ) as ledger:
        assert "disk says" in (await told.get() or "")
        assert [task[0].task for task in (await ledger.unfinished()).tasks] == [going]
        assert await told.get() is None
        await ledger.append(intent(a_task()))
        assert (ledger.migrated_from, ledger.head.position) == (1, head.position + 2)
    assert (await verified(path, head))["schema"] == SCHEMA


async def test_a_damaged_ledger_is_not_migrated(path: Path, head: Head) -> None:
    """No row of ours behind the damage, no table changed: the evidence stays as it is."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE entries SET task = 'tm_x' WHERE position = ?", (head.position,))

    async with ledger_at(path.parent) as ledger:
        assert f"row {head.position} of the ledger is edited" in (ledger.ready() or "")

    assert rows(path, "SELECT schema FROM header") == [(1,)]
    assert rows(path, "SELECT count(*) FROM entries") == [(head.position,)]


async def test_a_header_that_names_no_schema_is_damage(path: Path, head: Head) -> None:
    """It is ours, so what it lists is taken back; nothing is written."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE header SET schema = 0")

    async with ledger_at(path.parent) as ledger:
        assert "no header that can be read" in (ledger.ready() or "")
        assert (await ledger.unfinished()).doubt is not None
    assert rows(path, "SELECT max(position) FROM entries") == [(head.position,)]
