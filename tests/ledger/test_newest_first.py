"""The newest rows of a ledger, for whoever counts what happened lately."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from ledger.lives import START, a_task, accessor, active, intent, ledger_at, life, written
from taskmint.errors import Code, Unavailable
from taskmint.ports import Entry, Event

COUNTED = {Event.INTENT, Event.REVISION_INTENT}


def until(count: int, seen: list[Entry]) -> Callable[[Entry], bool]:
    """Take so many rows."""

    def look(entry: Entry) -> bool:
        seen.append(entry)
        return len(seen) < count

    return look


def spoil(path: Path, position: int) -> None:
    """Change a row behind the daemon's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(
            "UPDATE entries SET facts = replace(facts, 'nightly', 'daily') WHERE position = ?",
            (position,),
        )


async def test_rows_are_shown_the_newest_first_without_what_is_beside_them(tmp_path: Path) -> None:
    """Those of the events that are asked for, of finished tasks as well."""
    over, going = a_task(), a_task()
    later = START + timedelta(minutes=1)
    path = await written(tmp_path / "l", *life(over), intent(going, later), accessor(going))
    seen: list[Entry] = []
    async with ledger_at(path.parent) as ledger:
        await ledger.append(active(going))
        await ledger.newest_first(COUNTED, until(9, seen))

    assert [(entry.task, entry.at) for entry in seen] == [(going, later), (over, START)]
    assert seen[0].facts == intent(going).facts
    assert all(not entry.free_text and not entry.handles for entry in seen)


async def test_a_row_that_is_not_what_was_written_stops_the_ledger(tmp_path: Path) -> None:
    """P12: who counts by it would count too few. What lies behind the last look is not read."""
    path = await written(tmp_path / "l", intent(a_task()), intent(a_task()), intent(a_task()))
    seen: list[Entry] = []
    async with ledger_at(path.parent) as ledger:
        spoil(path, 1)
        await ledger.newest_first(COUNTED, until(2, seen))
        assert (len(seen), ledger.ready()) == (2, None)

        await ledger.newest_first(COUNTED, until(9, seen))
        assert len(seen) == 4
        assert ledger.ready() == "row 1 of the ledger is not what was written"
        await ledger.newest_first(COUNTED, until(9, seen))
        assert len(seen) == 4
        assert (await ledger.unfinished()).doubt == ledger.ready()


async def test_a_file_that_cannot_be_read_now_shows_nothing_and_says_so(tmp_path: Path) -> None:
    """It is asked again; that is no damage."""
    path = await written(tmp_path / "l", intent(a_task()))
    seen: list[Entry] = []
    async with ledger_at(path.parent) as ledger:
        path.rename(away := path.with_name("away"))
        with pytest.raises(Unavailable) as refused:
            await ledger.newest_first(COUNTED, until(9, seen))
        away.rename(path)
        await ledger.newest_first(COUNTED, until(9, seen))

    assert refused.value.code is Code.LEDGER_UNAVAILABLE
    assert len(seen) == 1
