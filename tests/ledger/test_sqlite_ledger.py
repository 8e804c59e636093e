"""The ledger as tasks see it: durable, ordered, bounded, and honest when it cannot write."""

import asyncio
import os
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import independent_verifier
from ledger.lives import (
    LIFE,
    NODE,
    START,
    a_task,
    accessor,
    active,
    ending,
    intent,
    ledger_at,
    left_behind,
    life,
    revoked,
    written,
)
from taskmint.errors import Code, Unavailable
from taskmint.failpoints import Failpoint, Failpoints
from taskmint.ledger import schema
from taskmint.ledger.connection import BUSY_SECONDS
from taskmint.ledger.group_commit import LARGEST_GROUP
from taskmint.ledger.sqlite import Patience, SqliteLedger
from taskmint.model.state import TERMINAL, TaskState
from taskmint.ports import Entry, Event

NOTICE_SECONDS = 10


class SlowDisk(Failpoints):
    """Holds every commit until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.released = threading.Event()

    def reach(self, point: Failpoint) -> None:
        """Wait before the commit."""
        if point is Failpoint.LEDGER_BEFORE_COMMIT:
            self.reached.set()
            self.released.wait(NOTICE_SECONDS)


class Changes:
    """What the ledger told of itself, and a way to wait for it."""

    def __init__(self) -> None:
        self.told: list[str | None] = []
        self._news = asyncio.Event()

    def __call__(self, reason: str | None) -> None:
        """Take it down."""
        self.told.append(reason)
        self._news.set()

    async def until(self, count: int) -> None:
        """Return when so much was told."""
        async with asyncio.timeout(NOTICE_SECONDS):
            while len(self.told) < count:
                self._news.clear()
                await self._news.wait()


def commits_in(wal: Path) -> int:
    """
    Count the transactions in a write-ahead log: frames whose header holds a database size.

    The format is from sqlite.org/fileformat2.html, section 4.
    """
    content = wal.read_bytes()
    (page_size,) = struct.unpack(">I", content[8:12])
    salts = content[16:24]
    frames = range(32, len(content) - 24 - page_size + 1, 24 + page_size)
    return sum(
        struct.unpack(">I", content[at + 4 : at + 8])[0] > 0
        for at in frames
        if content[at + 8 : at + 16] == salts
    )


def positions_and_events(path: Path) -> list[tuple[int, str]]:
    """Read the rows with SQLite alone."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute("SELECT position, event FROM entries ORDER BY position").fetchall()


async def test_entries_come_back_as_they_were_appended(tmp_path: Path) -> None:
    """P8: what an unfinished task wrote is what a restart reads: every field, in order."""
    going, over = a_task(), a_task()
    entries = [intent(going), accessor(going), active(going)]
    await written(tmp_path / "ledger", *life(over), *entries)

    async with ledger_at(tmp_path / "ledger") as ledger:
        assert (await ledger.unfinished()).tasks == [entries]


async def test_unfinished_tasks_come_in_the_order_of_their_beginning(tmp_path: Path) -> None:
    """The oldest task is taken up first, however rows of several tasks are mixed."""
    first, second = sorted((a_task(), a_task()), reverse=True)
    async with ledger_at(tmp_path / "ledger") as ledger:
        for entry in (intent(first), intent(second), accessor(second), accessor(first)):
            await ledger.append(entry)

    left = await left_behind(tmp_path / "ledger" / "ledger.db")
    assert [[entry.task for entry in entries] for entries in left] == [
        [first, first],
        [second, second],
    ]


async def test_p8_what_was_started_since_is_not_taken_for_left_behind(tmp_path: Path) -> None:
    """A task that begins while the ledger is replayed is the daemon's own, and not taken back."""
    before, since = a_task(), a_task()
    path = await written(tmp_path / "ledger", intent(before), accessor(before))
    async with ledger_at(path.parent) as ledger:
        for entry in (intent(since), accessor(since)):
            await ledger.append(entry)
        found = await ledger.unfinished()

    assert [[entry.task for entry in entries] for entries in found.tasks] == [[before, before]]
    assert len(await left_behind(path)) == 2


async def test_an_appended_row_is_on_disk_before_append_returns(tmp_path: Path) -> None:
    """P7: another process sees the row, and the head says it, as soon as append has returned."""
    async with ledger_at(tmp_path / "ledger") as ledger:
        for position, entry in enumerate(life(a_task()), 1):
            await ledger.append(entry)

            seen = await asyncio.to_thread(positions_and_events, tmp_path / "ledger" / "ledger.db")
            assert seen[-1] == (position, entry.event)
            assert ledger.head.position == position
    assert independent_verifier.verify(tmp_path / "ledger" / "ledger.db") == []


async def test_handles_are_purged_with_the_row_that_finishes_their_task(tmp_path: Path) -> None:
    """Lease ids and accessors stand in no file once their task is revoked; others' stay."""
    over, going = a_task(), a_task()
    directory = tmp_path / "ledger"
    await written(directory, *life(over), intent(going), accessor(going))

    content = b"".join(
        file.read_bytes() for file in await asyncio.to_thread(lambda: list(directory.iterdir()))
    )
    assert f"lease-of-{over}".encode() not in content
    assert f"accessor-of-{over}".encode() not in content
    assert f"accessor-of-{going}".encode() in content


async def test_a_failed_start_purges_its_handles_too(tmp_path: Path) -> None:
    """Every terminal state finishes a task."""
    task = a_task()
    failed = Entry(Event.FAILED, START, task, TaskState.FAILED, {"code": "vault_error"})
    async with ledger_at(tmp_path / "ledger") as ledger:
        for entry in (intent(task), accessor(task), failed):
            await ledger.append(entry)

    assert await left_behind(tmp_path / "ledger" / "ledger.db") == []


async def test_a_finished_task_stays_finished(tmp_path: Path) -> None:
    """A row that comes late neither revives its task nor leaves its handles behind."""
    task = a_task()
    path = await written(tmp_path / "ledger", *life(task), active(task))

    async with ledger_at(path.parent) as ledger:
        assert (await ledger.unfinished()).tasks == []
    assert f"lease-of-{task}".encode() not in await asyncio.to_thread(path.read_bytes)


def test_the_tables_know_the_terminal_states() -> None:
    """The states that finish a task are the same in the model and in SQL."""
    states = ", ".join(f"'{state}'" for state in sorted(TERMINAL))

    assert f"state IN ({states})" in schema.PROJECTION
    assert f"state IN ({states})" in schema.APPEND_ROW


async def test_free_text_is_purged_by_age_except_of_running_tasks(tmp_path: Path) -> None:
    """Purpose, ticket and context go at the end of retention; a running task keeps its own."""
    old, running, young = a_task(), a_task(), a_task()
    path = tmp_path / "ledger" / "ledger.db"
    async with ledger_at(tmp_path / "ledger") as ledger:
        for entry in (*life(old), intent(running), *life(young, START + timedelta(days=31))):
            await ledger.append(entry)
        purged = [await ledger.purge_older_than(START + timedelta(days=30)) for _ in range(2)]
    ((kept,),) = await left_behind(path)

    assert purged == [1, 0]
    assert kept.free_text == intent(running).free_text
    assert independent_verifier.verify(path) == []


async def test_what_waits_together_is_committed_together(tmp_path: Path) -> None:
    """Group commit: a hundred appends behind a slow disk are three transactions, not a hundred."""
    disk = SlowDisk()
    async with ledger_at(tmp_path / "ledger", disk) as ledger:
        first = asyncio.create_task(ledger.append(intent(a_task())))
        await asyncio.to_thread(disk.reached.wait, NOTICE_SECONDS)
        before = await asyncio.to_thread(commits_in, tmp_path / "ledger" / "ledger.db-wal")
        others = [asyncio.create_task(ledger.append(intent(a_task()))) for _ in range(100)]
        await asyncio.sleep(0)
        disk.released.set()
        await asyncio.gather(first, *others)
        after = await asyncio.to_thread(commits_in, tmp_path / "ledger" / "ledger.db-wal")

    assert after - before == 1 + -(-100 // LARGEST_GROUP)


@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=20), max_size=5))
@settings(max_examples=20, deadline=None)
async def test_any_mixture_of_appends_is_one_ordered_chain(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[int, int]]]
) -> None:
    """Rows stand in the order in which append was called; the projection follows from them."""
    directory = tmp_path_factory.mktemp("mixture")
    tasks = [a_task() for _ in range(5)]
    appended = []
    async with ledger_at(directory) as ledger:
        for together in rounds:
            entries = [LIFE[step](tasks[task], START) for task, step in together]
            appended += entries
            await asyncio.gather(*map(ledger.append, entries))
    unfinished = {entries[0].task for entries in await left_behind(directory / "ledger.db")}

    finished = {entry.task for entry in appended if entry.state is TaskState.REVOKED}
    path = directory / "ledger.db"
    assert await asyncio.to_thread(positions_and_events, path) == [
        (position, entry.event) for position, entry in enumerate(appended, 1)
    ]
    assert unfinished == {entry.task for entry in appended} - finished
    assert independent_verifier.verify(path) == []


async def test_a_value_that_json_cannot_carry_fails_its_own_append_only(tmp_path: Path) -> None:
    """One caller's bad value is that caller's error and leaves no trace."""
    bad = replace(intent(a_task()), facts={"deadline": float("nan")})
    async with ledger_at(tmp_path / "ledger") as ledger:
        outcomes = await asyncio.gather(
            ledger.append(intent(a_task())),
            ledger.append(bad),
            ledger.append(intent(a_task())),
            return_exceptions=True,
        )

        assert [isinstance(outcome, ValueError) for outcome in outcomes] == [False, True, False]
        assert ledger.head.position == 2
        for wrong, said in (
            (replace(intent(a_task()), at=START.replace(tzinfo=None)), "zone"),
            (replace(accessor(a_task()), task=None), "handles belong to a task"),
        ):
            with pytest.raises(ValueError, match=said):
                await ledger.append(wrong)


# --- whose file it is ------------------------------------------------------------------------


async def test_files_are_ours_alone(tmp_path: Path) -> None:
    """The ledger, its write-ahead log and its lock are mode 0600 whatever the umask."""
    old = os.umask(0)
    try:
        async with ledger_at(tmp_path / "ledger") as ledger:
            await ledger.append(intent(a_task()))
            modes = {
                file.name: stat.S_IMODE(file.stat().st_mode)
                for file in (tmp_path / "ledger").iterdir()
            }
    finally:
        os.umask(old)

    assert modes == dict.fromkeys(
        ("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"), 0o600
    )


async def test_a_second_writer_is_refused_and_told_whom_to_look_for(tmp_path: Path) -> None:
    """Two daemons never write one ledger, in one process or in two."""
    async with ledger_at(tmp_path / "ledger"):
        with pytest.raises(Unavailable, match=f"pid {os.getpid()}") as refused:
            async with ledger_at(tmp_path / "ledger"):
                pass
        other = await asyncio.to_thread(open_elsewhere, tmp_path / "ledger" / "ledger.db")

    assert refused.value.code == Code.LEDGER_UNAVAILABLE
    assert f"pid {os.getpid()}" in other
    async with ledger_at(tmp_path / "ledger") as ledger:
        assert ledger.ready() is None


def open_elsewhere(path: Path) -> str:
    """Open the ledger in another process; return what it was told."""
    program = (
        "import asyncio, sys, pathlib\n"
        "from taskmint.errors import Unavailable\n"
        "from taskmint.failpoints import Failpoints\n"
        "from taskmint.ledger.sqlite import Patience, SqliteLedger\n"
        "async def main():\n"
        "    path, node = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "    async with SqliteLedger(path, node=node, failpoints=Failpoints()):\n"
        "        return 'opened'\n"
        "try:\n"
        "    print(asyncio.run(main()))\n"
        "except Unavailable as error:\n"
        "    print(error)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program, str(path), NODE], capture_output=True, text=True, check=True
    ).stdout


@contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    """Give a file other mode bits for a while."""
    old = stat.S_IMODE(path.stat().st_mode)
    path.chmod(bits)
    try:
        yield
    finally:
        path.chmod(old)


async def test_unsafe_places_are_refused(tmp_path: Path) -> None:
    """Others could read or swap the file: no start, and the command that mends it."""
    path = await written(tmp_path / "ledger", intent(a_task()))

    for place, bits, said in (
        (path.parent, 0o777, "can be written by others"),
        (path.parent, 0o770, "can be written by others"),
        (path, 0o640, "open to others"),
        (path, 0o606, "open to others"),
    ):
        with mode(place, bits), pytest.raises(Unavailable, match=said) as refused:
            async with ledger_at(path.parent):
                pass
        assert "chmod" in refused.value.fix


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """No directory: the reason, and how to make it."""
    ledger = SqliteLedger(tmp_path / "absent" / "ledger.db", node=NODE, failpoints=Failpoints())
    with pytest.raises(Unavailable, match="does not exist") as refused:
        async with ledger:
            pass
    assert "install -d -m 0700" in refused.value.fix


async def test_a_file_in_the_directorys_place_is_named(tmp_path: Path) -> None:
    """The ledger's directory is a file, or the lock is a link: the reason, no traceback."""
    await asyncio.to_thread((tmp_path / "file").write_text, "")
    for path, said in (
        (tmp_path / "file" / "ledger.db", "not a directory"),
        (tmp_path / "ledger.db", "cannot be used"),
    ):
        (tmp_path / "ledger.db.lock").unlink(missing_ok=True)
        (tmp_path / "ledger.db.lock").symlink_to(tmp_path / "file")
        with pytest.raises(Unavailable, match=said):
            async with SqliteLedger(path, node=NODE, failpoints=Failpoints()):
                pass


async def test_links_and_other_things_are_no_ledger(tmp_path: Path) -> None:
    """A symbolic link or a directory in the file's place is refused, not followed."""
    path = await written(tmp_path / "ledger", intent(a_task()))
    path.rename(tmp_path / "elsewhere.db")
    path.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(Unavailable, match="not a plain file"):
        async with ledger_at(path.parent):
            pass
    path.unlink()
    path.mkdir()
    with pytest.raises(Unavailable, match="not a plain file"):
        async with ledger_at(path.parent):
            pass


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE header SET node = 'node-2'", "belongs to node 'node-2'"),
        ("PRAGMA application_id = 7", "not a ledger of taskmint"),
    ],
)
async def test_other_ledgers_are_refused(tmp_path: Path, statement: str, said: str) -> None:
    """Another schema, another node, another database: refused with what it is."""
    path = await written(tmp_path / "ledger", intent(a_task()))
    await asyncio.to_thread(execute, path, statement)

    with pytest.raises(Unavailable, match=said):
        async with ledger_at(path.parent):
            pass


def execute(path: Path, statement: str) -> None:
    """Run one statement on the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)


async def test_a_file_that_is_no_database_is_neither_written_to_nor_silently_empty(
    tmp_path: Path,
) -> None:
    """Text in the ledger's place: it stays as it is, and the daemon knows that it knows nothing."""
    (tmp_path / "ledger").mkdir(mode=0o700)
    path = tmp_path / "ledger" / "ledger.db"
    os.close(os.open(path, os.O_CREAT, 0o600))
    text = "not a database, and rather longer than a header\n" * 9
    await asyncio.to_thread(path.write_text, text)

    async with ledger_at(path.parent) as ledger:
        with pytest.raises(Unavailable, match="not a database"):
            await ledger.append(intent(a_task()))
        found = await ledger.unfinished()

    assert not found.tasks
    assert "not a database" in (found.doubt or "")
    assert await asyncio.to_thread(path.read_text) == text


async def test_a_refused_start_holds_nothing(tmp_path: Path) -> None:
    """After a refusal the lock is free again: the next start with the right node works."""
    path = await written(tmp_path / "ledger", intent(a_task()))
    with pytest.raises(Unavailable):
        async with SqliteLedger(path, node="node-2", failpoints=Failpoints()):
            pass

    async with ledger_at(path.parent) as ledger:
        assert len((await ledger.unfinished()).tasks) == 1


# --- when it cannot write --------------------------------------------------------------------


async def test_a_passing_fault_refuses_at_once_and_heals_by_itself(tmp_path: Path) -> None:
    """P7: a full disk means a refusal with the reason; when it is over, appending works again."""
    changes = Changes()
    failpoints = Failpoints(Failpoint.LEDGER_BEFORE_COMMIT, 2, "error")
    going = a_task()
    directory = (await written(tmp_path / "ledger", intent(going))).parent
    async with SqliteLedger(
        directory / "ledger.db",
        node=NODE,
        failpoints=failpoints,
        changed=changes,
        patience=Patience(retry_seconds=0.05),
    ) as ledger:
        await ledger.append(intent(a_task()))
        for _ in range(2):
            with pytest.raises(Unavailable, match="disk says") as refused:
                await ledger.append(intent(a_task()))
            assert refused.value.code == Code.LEDGER_UNAVAILABLE
        assert ledger.ready() is not None
        assert [entries[0].task for entries in (await ledger.unfinished()).tasks] == [going]

        await changes.until(2)
        assert ledger.ready() is None
        await ledger.append(accessor(going))

    assert [reason is None for reason in changes.told] == [False, True]
    assert independent_verifier.verify(directory / "ledger.db") == []
    assert len(await asyncio.to_thread(positions_and_events, directory / "ledger.db")) == 3


async def test_an_unknown_outcome_is_read_back_from_the_disk(tmp_path: Path) -> None:
    """A commit that failed after it was durable: refused, yet the next row follows from it."""
    changes = Changes()
    failpoints = Failpoints(Failpoint.LEDGER_AFTER_COMMIT, 1, "error")
    directory = tmp_path / "ledger"
    directory.mkdir(mode=0o700)
    async with SqliteLedger(
        directory / "ledger.db",
        node=NODE,
        failpoints=failpoints,
        changed=changes,
        patience=Patience(retry_seconds=0.05),
    ) as ledger:
        with pytest.raises(Unavailable):
            await ledger.append(intent(a_task()))
        await changes.until(2)
        await ledger.append(intent(a_task()))
        assert ledger.head.position == 2

    assert independent_verifier.verify(directory / "ledger.db") == []


async def test_somebody_elses_lock_is_a_passing_fault(tmp_path: Path) -> None:
    """An operator's open transaction stops appending, through several attempts, and no longer."""
    changes = Changes()
    directory = tmp_path / "ledger"
    directory.mkdir(mode=0o700)
    path = directory / "ledger.db"
    async with SqliteLedger(
        path,
        node=NODE,
        failpoints=Failpoints(),
        changed=changes,
        patience=Patience(retry_seconds=0.01),
    ) as ledger:
        operator = await asyncio.to_thread(
            sqlite3.connect, path, isolation_level=None, check_same_thread=False
        )
        await asyncio.to_thread(operator.execute, "BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="database is locked"):
            await ledger.purge_older_than(START)
        await asyncio.sleep(2 * BUSY_SECONDS)
        for refused in (ledger.append(intent(a_task())), ledger.purge_older_than(START)):
            with pytest.raises(Unavailable, match="database is locked"):
                await refused
        await asyncio.to_thread(operator.execute, "ROLLBACK")
        operator.close()
        await changes.until(2)
        await ledger.append(intent(a_task()))

    assert [reason is None for reason in changes.told] == [False, True]
    assert independent_verifier.verify(path) == []


async def test_a_row_from_another_writer_is_a_lasting_fault(tmp_path: Path) -> None:
    """Somebody inserted a row: nothing is appended behind it until a restart has looked."""
    async with ledger_at(tmp_path / "ledger") as ledger:
        await ledger.append(intent(a_task()))
        statement = (
            "INSERT INTO entries SELECT position + 1, event, task, state, at, facts, handles, "
            "free_text, previous, hash FROM entries"
        )
        await asyncio.to_thread(execute, tmp_path / "ledger" / "ledger.db", statement)
        for _ in range(2):
            with pytest.raises(Unavailable, match="UNIQUE constraint"):
                await ledger.append(intent(a_task()))
    async with ledger_at(tmp_path / "ledger") as again:
        assert "row 2 of the ledger is" in (again.ready() or "")


async def test_a_disk_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    """A hanging commit: whoever waits is told in time, newcomers at once; then it heals."""
    changes = Changes()
    disk = SlowDisk()
    directory = tmp_path / "ledger"
    directory.mkdir(mode=0o700)
    async with SqliteLedger(
        directory / "ledger.db",
        node=NODE,
        failpoints=disk,
        changed=changes,
        patience=Patience(commit_seconds=0.05),
    ) as ledger:
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"not finished a commit within 0\.05 s"):
                await ledger.append(intent(a_task()))
        assert changes.told == [ledger.ready()]
        assert changes.told[0] is not None
        disk.released.set()
        await changes.until(2)
        await ledger.append(intent(a_task()))

    assert changes.told[1:] == [None]
    assert independent_verifier.verify(directory / "ledger.db") == []


async def test_the_queue_is_bounded(tmp_path: Path) -> None:
    """P10: behind a slow disk so many wait and no more; the others are refused at once."""
    disk = SlowDisk()
    directory = tmp_path / "ledger"
    directory.mkdir(mode=0o700)
    async with SqliteLedger(
        directory / "ledger.db", node=NODE, failpoints=disk, patience=Patience(longest_queue=3)
    ) as ledger:
        waiting = [asyncio.create_task(ledger.append(intent(a_task()))) for _ in range(3)]
        await asyncio.sleep(0)
        assert ledger.waiting == 3
        with pytest.raises(Unavailable, match="3 entries already wait"):
            await ledger.append(intent(a_task()))
        disk.released.set()
        await asyncio.gather(*waiting)
        await ledger.append(intent(a_task()))
        assert ledger.head.position == 4


async def test_an_append_that_nobody_waits_for_any_more_is_still_written(tmp_path: Path) -> None:
    """A cancelled request leaves its row; a row is never half there."""
    disk = SlowDisk()
    async with ledger_at(tmp_path / "ledger", disk) as ledger:
        waiting = asyncio.create_task(ledger.append(intent(a_task())))
        await asyncio.to_thread(disk.reached.wait, NOTICE_SECONDS)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        disk.released.set()
        await ledger.append(ending(a_task()))
        assert ledger.head.position == 2


class Broken(Failpoints):
    """A bug of ours on the writer's thread."""

    def reach(self, point: Failpoint) -> None:
        """Raise what nobody foresaw."""
        raise ZeroDivisionError(point)


@pytest.fixture
def thread_failures() -> Iterator[list[type[BaseException]]]:
    """Collect what ends threads, instead of failing the test for it."""
    failures: list[type[BaseException]] = []
    old = threading.excepthook
    threading.excepthook = lambda told: failures.append(told.exc_type)
    yield failures
    threading.excepthook = old


async def test_a_bug_in_the_writer_is_told_to_everybody_who_waits(
    tmp_path: Path, thread_failures: list[type[BaseException]]
) -> None:
    """The writer's end is no hang: those who wait and those who come are refused."""
    async with ledger_at(tmp_path / "ledger", Broken()) as ledger:
        for _ in range(2):
            with pytest.raises(Unavailable, match="writer has ended"):
                await ledger.append(revoked(a_task()))
        assert ledger.ready() == "the ledger's writer has ended"
        while not thread_failures:
            await asyncio.sleep(0.001)

    assert thread_failures == [ZeroDivisionError]


async def test_outside_its_context_it_is_not_open(tmp_path: Path) -> None:
    """Before it is opened and after it is closed it refuses."""
    ledger = ledger_at(tmp_path / "ledger")
    for _ in range(2):
        assert ledger.ready() == "the ledger is not open"
        with pytest.raises(Unavailable, match="not open"):
            await ledger.append(intent(a_task()))
        with pytest.raises(Unavailable, match="not open"):
            await ledger.purge_older_than(START)
        async with ledger:
            assert ledger.ready() is None
