"""Heads told elsewhere, and retention that leaves the chain verifiable."""

import asyncio
import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from ledger import independent_verifier
from ledger.lives import START, a_task, accessor, active, intent, ledger_at, life, written
from ledger.test_audit_cli import run
from ledger.test_tampering import both_find, change, head_of
from taskmint.errors import Unavailable
from taskmint.failpoints import Failpoint, Failpoints
from taskmint.ledger.chain import Head
from taskmint.ledger.housekeeping import export_head, export_heads, keep_retention
from taskmint.ledger.sqlite import ROWS_AT_ONCE

DAY = timedelta(days=1)
WAIT_SECONDS = 5


class Log:
    """A structured log that can be read back."""

    def __init__(self) -> None:
        self.text = io.StringIO()
        self.logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            structlog.WriteLogger(self.text),
            processors=[structlog.processors.JSONRenderer()],
            wrapper_class=structlog.stdlib.BoundLogger,
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of a name."""
        events = map(json.loads, self.text.getvalue().splitlines())
        return [event for event in events if event["event"] == name]

    async def until(self, name: str, count: int) -> None:
        """Return when an event has been logged so often."""
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.events(name)) < count:
                await asyncio.sleep(0.001)


class At:
    """A clock that says what it is told."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def utcnow(self) -> datetime:
        """Wall-clock time."""
        return self._now()

    def boottime(self) -> float:
        """Seconds of the same."""
        return self._now().timestamp()


def bounds(path: Path) -> tuple[int, int, int]:
    """Return first and last position and the number of rows."""
    query = "SELECT min(position), max(position), count(*) FROM entries"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        first, last, count = database.execute(query).fetchone()
        return first, last, count


# --- heads -----------------------------------------------------------------------------------


async def test_heads_are_exported_when_they_move(tmp_path: Path) -> None:
    """At the start, at intervals with news, and at the end; each names its ledger."""
    log = Log()
    async with ledger_at(tmp_path / "ledger") as ledger:
        exporting = asyncio.create_task(export_heads(ledger, log.logger, timedelta(milliseconds=5)))
        await log.until("ledger_head", 1)
        await ledger.append(intent(a_task()))
        await log.until("ledger_head", 2)
        await asyncio.sleep(0.02)
        await ledger.append(intent(a_task()))
        exporting.cancel()
        await asyncio.gather(exporting, return_exceptions=True)
        heads = log.events("ledger_head")

        assert [int(head["head"].partition(":")[0]) for head in heads] == [0, 1, 2]
        assert heads[-1]["head"] == str(ledger.head)
        assert {head["ledger"] for head in heads} == {ledger.genesis}


@pytest.mark.parametrize("prefix", ["", "<6>", "Nov 22 01:02:03 host taskmint[7]: "])
async def test_verify_takes_heads_from_the_log(tmp_path: Path, prefix: str) -> None:
    """Every head of this ledger in the daemon's log is checked; a truncation shows."""
    log = Log()
    path = tmp_path / "ledger" / "ledger.db"
    async with ledger_at(tmp_path / "ledger") as ledger:
        for entry in (*life(a_task()), *life(a_task())):
            await ledger.append(entry)
            export_head(ledger, log.logger)
    journal = tmp_path / "journal.log"
    other = {"event": "ledger_head", "head": f"99:{'0' * 64}", "ledger": "another"}
    lines = [*log.text.getvalue().splitlines(), json.dumps(other), "no JSON", "{"]
    await asyncio.to_thread(journal.write_text, "".join(f"{prefix}{line}\n" for line in lines))
    words = ("verify", "--ledger", path, "--heads", journal)

    def truncate_and_look() -> None:
        assert run(*words).exit_code == 0
        change(path, "DELETE FROM entries WHERE position > 5")
        change(path, "DELETE FROM free_text WHERE position > 5")
        assert run("verify", "--ledger", path).exit_code == 0
        result = run(*words)
        assert result.exit_code == 1
        assert result.stdout.count("truncated") == 5

    await asyncio.to_thread(truncate_and_look)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no head of this ledger"),
        ('{"event": "ledger_head", "ledger": "%s", "head": "junk"}', "POSITION:HASH"),
    ],
)
async def test_a_log_without_heads_is_no_proof(tmp_path: Path, text: str, said: str) -> None:
    """Nothing to compare with is wrong usage, not an intact ledger."""
    async with ledger_at(tmp_path / "ledger") as ledger:
        genesis = ledger.genesis
    log = tmp_path / "log"
    await asyncio.to_thread(log.write_text, text.replace("%s", genesis))
    words = ("verify", "--ledger", tmp_path / "ledger" / "ledger.db", "--heads", log)
    result = await asyncio.to_thread(run, *words)

    assert result.exit_code == 2
    assert said in result.stderr


# --- retention -------------------------------------------------------------------------------


async def test_old_rows_go_and_the_chain_stays_verifiable(tmp_path: Path) -> None:
    """Removed rows are vouched for; a head from before the removal is still no finding."""
    path = await written(
        tmp_path / "ledger",
        *life(a_task()),
        *life(a_task(), START + DAY),
        *life(a_task(), START + 10 * DAY),
    )
    early = await asyncio.to_thread(head_of, path)
    async with ledger_at(path.parent) as ledger:
        removed = await ledger.remove_older_than(START + 5 * DAY, now=START + 11 * DAY)
        again = await ledger.remove_older_than(START + 5 * DAY, now=START + 11 * DAY)
        late = ledger.head

    assert (removed, again) == (10, 0)
    assert await asyncio.to_thread(bounds, path) == (11, 16, 6)
    assert not await asyncio.to_thread(both_find, path, Head(3, "00" * 32), early, late)
    async with ledger_at(path.parent) as ledger:
        await ledger.append(intent(a_task()))
        assert await ledger.remove_older_than(START + 11 * DAY, now=START + 12 * DAY) == 5
    assert await asyncio.to_thread(bounds, path) == (16, 18, 3)
    assert not await asyncio.to_thread(both_find, path, early, late)


async def test_what_an_unfinished_task_wrote_stays(tmp_path: Path) -> None:
    """However old: a restart needs it, and so does whatever stands behind it in the chain."""
    going = a_task()
    entries = (*life(a_task()), intent(going), accessor(going), active(going), *life(a_task()))
    path = await written(tmp_path / "ledger", *entries)
    async with ledger_at(path.parent) as ledger:
        assert await ledger.remove_older_than(START + DAY, now=START + DAY) == 5
        assert [list(rows) for rows in (await ledger.unfinished()).tasks] == [list(entries[5:8])]
    assert not await asyncio.to_thread(both_find, path)


async def test_a_stepped_clock_removes_nothing_young(tmp_path: Path) -> None:
    """Where times do not rise with positions, removal stops at the first row that is young."""
    path = await written(
        tmp_path / "ledger",
        *life(a_task()),
        *life(a_task(), START + 9 * DAY),
        *life(a_task()),
        *life(a_task(), START + 9 * DAY),
    )
    async with ledger_at(path.parent) as ledger:
        assert await ledger.remove_older_than(START + DAY, now=START + 9 * DAY) == 5
    assert not await asyncio.to_thread(both_find, path)


async def test_an_empty_ledger_has_nothing_to_remove(tmp_path: Path) -> None:
    """No rows, no retention row."""
    async with ledger_at(tmp_path / "ledger") as ledger:
        assert await ledger.remove_older_than(START, now=START) == 0
        assert await ledger.purge_older_than(START) == 0
        assert ledger.head.position == 0


async def test_more_rows_than_go_at_once_go_by_and_by(tmp_path: Path) -> None:
    """Each step is a transaction of its own, so that appends in between do not wait."""
    rows = 2 * ROWS_AT_ONCE + 50
    async with ledger_at(tmp_path / "ledger") as ledger:
        lives = [entry for _ in range(rows // 5) for entry in life(a_task())]
        await asyncio.gather(*map(ledger.append, lives))
        removing = asyncio.create_task(ledger.remove_older_than(START + DAY, now=START + DAY))
        await ledger.append(intent(a_task(), START + DAY))
        assert await removing == rows
    assert not await asyncio.to_thread(both_find, tmp_path / "ledger" / "ledger.db")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM entries WHERE position = 6",
        "UPDATE entries SET facts = replace(facts, '5', '6') WHERE event = 'retention'",
        "DELETE FROM entries WHERE event = 'retention'",
        "UPDATE header SET epoch = '00'",
        "UPDATE entries SET previous = hash WHERE position = 6",
    ],
)
async def test_a_beginning_that_nothing_vouches_for_shows(tmp_path: Path, statement: str) -> None:
    """After retention the first row still cannot be cut, moved or brought to another file."""
    path = await written(tmp_path / "ledger", *life(a_task()), *life(a_task(), START + 9 * DAY))
    async with ledger_at(path.parent) as ledger:
        assert await ledger.remove_older_than(START + DAY, now=START + 9 * DAY) == 5
    await asyncio.to_thread(change, path, statement)

    assert await asyncio.to_thread(both_find, path)


async def test_retention_runs_by_the_clock(tmp_path: Path) -> None:
    """Free texts at their age, rows at theirs; what it did is logged."""
    log, now = Log(), START + 31 * DAY
    async with ledger_at(tmp_path / "ledger") as ledger:
        for entry in (*life(a_task()), *life(a_task(), START + 5 * DAY)):
            await ledger.append(entry)
        keeping = asyncio.create_task(
            keep_retention(
                ledger,
                At(lambda: now),
                log.logger,
                free_text=20 * DAY,
                rows=30 * DAY,
                interval=timedelta(milliseconds=5),
            )
        )
        await log.until("ledger_retention", 1)
        now += 10 * DAY
        await log.until("ledger_retention", 2)
        keeping.cancel()

    assert [(told["free_texts"], told["rows"]) for told in log.events("ledger_retention")] == [
        (2, 5), (0, 5),
    ]  # fmt: skip
    assert independent_verifier.verify(tmp_path / "ledger" / "ledger.db") == []


async def test_rows_are_kept_for_ever_unless_configured(tmp_path: Path) -> None:
    """Without an age for rows only free texts go."""
    log = Log()
    async with ledger_at(tmp_path / "ledger") as ledger:
        for entry in life(a_task()):
            await ledger.append(entry)
        keeping = asyncio.create_task(
            keep_retention(
                ledger, At(lambda: START + 900 * DAY), log.logger, free_text=DAY, rows=None
            )
        )
        await log.until("ledger_retention", 1)
        keeping.cancel()
        assert ledger.head.position == 5


async def test_a_ledger_that_cannot_write_is_left_alone(tmp_path: Path) -> None:
    """Retention logs why it did nothing, and comes again."""
    log = Log()
    failpoints = Failpoints(Failpoint.LEDGER_BEFORE_COMMIT, 1, "error")
    async with ledger_at(tmp_path / "ledger", failpoints) as ledger:
        with pytest.raises(Unavailable):
            await ledger.append(intent(a_task()))
        keeping = asyncio.create_task(
            keep_retention(
                ledger,
                At(lambda: START),
                log.logger,
                free_text=DAY,
                rows=DAY,
                interval=timedelta(milliseconds=5),
            )
        )
        await log.until("ledger_retention_failed", 2)
        keeping.cancel()
        failed = log.events("ledger_retention_failed")
    assert "disk says" in failed[0]["reason"]
