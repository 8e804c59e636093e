"""`taskmint policy replay`: requests of a real ledger file, answered by another policy."""

import asyncio
import io
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from ledger.lives import ledger_at
from taskmint.cli.main import main
from taskmint.cli.policy_replay import with_bar
from taskmint.errors import TaskmintError
from taskmint.model.scope import Json, RequestFacts
from taskmint.policy.shadow import Verdict
from taskmint.ports import Entry, Event
from taskmint.tasks.limits import TaskLimits
from taskmint.tasks.replay import replayed
from taskmint.tasks.task import IdempotencyKey

from tasks.world import REPORT, World, ask, caller, policy

GET = "GET database/creds/orders"
JOB = "spiffe://example.org/job"
WHEN = REPORT.replace("ends:", 'when: request.purpose == "nightly"\n    ends:')
AWAITED = REPORT.replace("ends:", 'approval: {from: ["group:leads"], within: 1h}\n    ends:')


async def recorded(text: str = REPORT) -> list[Entry]:
    """What a service writes: a grant, a change, and refusals by `who`, the deadline and a limit."""
    world = World()
    async with world.running(text, limits=TaskLimits(tasks=1)) as service:
        view = await service.start(caller(), ask(), None)
        await service.change(caller(), view.id, to_us, None)
        for who, request in (
            (caller("/other"), ask()),
            (caller(), ask(ttl=timedelta(hours=2))),
            (caller(), ask()),
        ):
            with pytest.raises(TaskmintError):
                await service.start(who, request, None)
    return world.ledger.entries


def to_us(before: RequestFacts) -> RequestFacts:
    """The other region."""
    return replace(before, parameters={"region": "us"})


async def in_file(directory: Path, *entries: Entry, purged: bool = False) -> Path:
    """Write entries into a ledger file, and purge what humans typed when told."""
    async with ledger_at(directory) as ledger:
        for entry in entries:
            await ledger.append(entry)
        if purged:
            assert await ledger.purge_older_than(datetime.now(UTC) + timedelta(days=1))
    return directory / "ledger.db"


async def replay(ledger: Path, text: str, *more: str) -> Result:
    """Answer a ledger's requests by a policy text."""
    path = ledger.parent / "new.yaml"
    await asyncio.to_thread(path.write_text, text)
    words = ["policy", "replay", str(ledger), "--policy", str(path), *more]
    return await asyncio.to_thread(CliRunner().invoke, main, words)


async def told(ledger: Path, text: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON."""
    result = await replay(ledger, text, "--output", "json")
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture
async def ledger(tmp_path: Path) -> Path:
    """A ledger of two grants and three refusals, decided by REPORT."""
    return await in_file(tmp_path / "ledger", *await recorded())


async def test_the_same_policy_answers_the_same(ledger: Path) -> None:
    """Nothing changed: exit 0, and every decision was looked at; other rows are none."""
    code, answer = await told(ledger, REPORT)

    assert code == 0
    assert answer == {"requests": 5, "counts": {"same": 5}, "answers": []}


async def test_what_would_be_refused_is_told_with_its_clause(ledger: Path) -> None:
    """The grant for eu, and the start in eu that only a limit refused."""
    code, answer = await told(ledger, REPORT.replace("enum: [eu, us]", "enum: [us]"))

    assert code == 1
    assert answer["counts"] == {"same": 3, "would_refuse": 2}
    assert answer["answers"][0] | {"task": "", "at": ""} == {
        "task": "",
        "at": "",
        "definition": "report",
        "spiffe_id": JOB,
        "verdict": "would_refuse",
        "reason": 'parameters: parameter "region" must be one of: us',
        "differences": [],
    }


async def test_what_would_be_granted_is_told(ledger: Path) -> None:
    """Wider by a caller and by a deadline; what a limit refused stays the same."""
    wider = REPORT.replace("example.org/job]", "example.org/*]").replace("max: 30m", "max: 3h")
    code, answer = await told(ledger, wider)

    assert code == 1
    assert answer["counts"] == {"same": 3, "would_grant": 2}
    assert {each["spiffe_id"] for each in answer["answers"]} == {JOB, "spiffe://example.org/other"}


async def test_what_would_wait_for_an_approval_is_told(ledger: Path) -> None:
    """Also of the request that a limit refused."""
    code, answer = await told(ledger, AWAITED)

    assert code == 1
    assert answer["counts"] == {"same": 2, "would_wait": 3}
    assert answer["answers"][0]["reason"] == "approval: needed, 1 of group:leads"


async def test_a_request_that_waited_and_waits_still_is_the_same(tmp_path: Path) -> None:
    """A request for an approval is told from a refusal."""
    world = World()
    async with world.running(AWAITED) as service:
        await service.start(caller(), ask(), IdempotencyKey("key", "body"))
    path = await in_file(tmp_path / "ledger", *world.ledger.entries)

    assert (await told(path, AWAITED))[1]["counts"] == {"same": 1}
    assert (await told(path, REPORT))[1]["counts"] == {"would_grant": 1}


@pytest.mark.parametrize(
    ("old", "new", "differences"),
    [
        (
            '"group:leads"], within: 1h',
            '"group:everybody"], within: 1h',
            ["waits for 1 of group:everybody, was 1 of group:leads"],
        ),
        (
            "within: 1h",
            "within: 1h, quorum: 2",
            ["waits for 2 of group:leads, was 1 of group:leads"],
        ),
        ("within: 1h", "within: 100h", ["waits for 100h, was 1h"]),
        ("default: 5m", "default: 4m", ["runs for 4m, was 5m"]),
    ],
)
async def test_a_request_that_waits_on_other_terms_is_told(
    tmp_path: Path, old: str, new: str, differences: list[str]
) -> None:
    """Whose approval, how many, how long, and what it would give."""
    world = World()
    async with world.running(AWAITED) as service:
        await service.start(caller(), ask(), IdempotencyKey("key", "body"))
    path = await in_file(tmp_path / "ledger", *world.ledger.entries)
    code, answer = await told(path, AWAITED.replace(old, new))
    (waiting,) = answer["answers"]

    assert code == 1
    assert (waiting["verdict"], waiting["differences"]) == ("other_terms", differences)


@pytest.mark.parametrize(
    ("was", "difference"),
    [(True, "no longer for emergencies only"), (False, "for emergencies only")],
)
async def test_an_emergency_that_is_one_no_longer_is_told(was: bool, difference: str) -> None:
    """And one that becomes one."""
    glass = REPORT.replace("ends:", "break_glass: true\n    ends:")
    world = World()
    async with world.running() as service:
        await service.start(caller(), ask(ticket="INC-1"), None)
    row = world.ledger.entries[0]
    scope = cast("dict[str, Json]", row.facts["scope"])
    row = replace(row, facts={**row.facts, "scope": {**scope, "break_glass": was}})
    answer = replayed(policy(REPORT if was else glass), row)

    assert answer is not None
    assert (answer.verdict, answer.differences) == (Verdict.OTHER_TERMS, (difference,))


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("default: 5m", "default: 4m", "runs for 4m, was 5m"),
        ("class: batch", "class: batch\n    dead_man: 30s", "on a lease of 30s, was 1m"),
        ("heartbeat: 60s", "heartbeat: 30s", "ends otherwise"),
        (
            "creds/orders-ro-{region}",
            "creds/orders-rw-{region}",
            f"another warehouse: {GET}-rw-eu, was {GET}-ro-eu",
        ),
        ('      archive:\n        secret: {mount: kv, path: "data/archive"}\n', "", "no archive"),
        (
            "      archive:",
            '      log: {secret: {mount: kv, path: "data/log"}}\n      archive:',
            "log as well",
        ),
        (
            "region: {enum: [eu, us]}",
            "region: {type: segment}",
            "by the Vault policy taskmint-task-report, was taskmint-task-report.eu",
        ),
    ],
)
async def test_other_terms_are_told_in_words(
    ledger: Path, old: str, new: str, difference: str
) -> None:
    """Each thing that a grant would give otherwise."""
    code, answer = await told(ledger, REPORT.replace(old, new, 1))

    assert code == 1
    assert answer["answers"][0]["verdict"] == "other_terms"
    assert answer["answers"][0]["differences"] == [difference]


async def test_purged_claims_make_a_request_undecidable(tmp_path: Path) -> None:
    """Said, and not taken for a change: nobody can know. Those of a task that lives are kept."""
    path = await in_file(tmp_path / "ledger", *await recorded(), purged=True)
    result = await replay(path, WHEN)

    assert result.exit_code == 0
    assert "undecidable" in result.stdout
    assert "is purged" in result.stdout
    assert (await told(path, WHEN))[1]["counts"] == {"same": 2, "undecidable": 3}


async def test_what_was_claimed_is_decided_again(ledger: Path) -> None:
    """Purpose, ticket and context come from the ledger while they are kept."""
    assert (await told(ledger, WHEN))[1]["counts"] == {"same": 5}
    assert (await told(ledger, WHEN.replace("nightly", "daily")))[1]["counts"] == {
        "same": 2,
        "would_refuse": 3,
    }


async def test_an_edited_row_is_undecidable(ledger: Path) -> None:
    """What is not what was written is not decided from."""

    def edit() -> None:
        with sqlite3.connect(ledger) as connection:
            connection.execute("DROP TRIGGER IF EXISTS entries_are_not_changed")
            connection.execute("UPDATE entries SET facts = '{}' WHERE event = 'intent'")
        connection.close()

    await asyncio.to_thread(edit)
    code, answer = await told(ledger, REPORT)

    assert code == 0
    assert answer["counts"] == {"same": 4, "undecidable": 1}
    assert "not what was written" in answer["answers"][0]["reason"]


@pytest.mark.parametrize(
    "facts", [{}, {"spiffe_id": 7}, {"definition": "report", "parameters": None}]
)
def test_a_row_that_lacks_its_input_is_undecidable(facts: dict[str, Any]) -> None:
    """As an older version may have written it."""
    entry = Entry(Event.INTENT, datetime.now(UTC), facts=facts, free_text={"purpose": ""})
    answer = replayed(policy(), entry)

    assert answer is not None
    assert answer.verdict is None
    assert "does not hold" in answer.reason


def test_other_rows_are_no_decisions() -> None:
    """Nothing is told of them."""
    assert replayed(policy(), Entry(Event.POLICY_LOADED, datetime.now(UTC))) is None


async def test_alike_answers_are_told_once(tmp_path: Path) -> None:
    """For people: what would change, how often, and the newest of it."""
    world = World()
    async with world.running() as service:
        for _ in range(3):
            await service.start(caller(), ask(), None)
        newest = world.ledger.entries[-1].task
    path = await in_file(tmp_path / "ledger", *world.ledger.entries)
    result = await replay(path, REPORT.replace("enum: [eu, us]", "enum: [us]"))

    assert result.exit_code == 1
    first, second, last = result.stdout.splitlines()
    assert first == (
        "would_refuse  report for spiffe://example.org/job, 3 times: "
        'parameters: parameter "region" must be one of: us'
    )
    assert second.endswith(f", {newest}")
    assert last == "3 requests: 3 would_refuse"


async def test_no_ledger_exits_3_and_no_policy_4(ledger: Path) -> None:
    """Each with a line that says what cannot be read."""
    absent = await replay(ledger.with_name("absent.db"), REPORT)
    assert absent.exit_code == 3
    assert "absent.db cannot be read" in absent.stderr
    broken = await replay(ledger, REPORT.replace("owner", "ovner"))
    assert broken.exit_code == 4
    assert "did you mean" in broken.stderr


class Terminal(io.StringIO):
    """A stream that says it is a terminal, or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        """As told."""
        return self._terminal


def ticking(seconds: float) -> Iterator[float]:
    """A clock that goes on by so much each time it is read."""
    now = 0.0
    while True:
        yield now
        now += seconds


@pytest.mark.parametrize(
    ("terminal", "seconds", "shown"), [(True, 0.5, True), (True, 0.1, False), (False, 0.5, False)]
)
def test_the_bar_shows_on_a_terminal_when_it_takes_long(
    *, terminal: bool, seconds: float, shown: bool
) -> None:
    """Not within the first two seconds, and never into a pipe; every item comes through."""
    stream, clock = Terminal(terminal=terminal), ticking(seconds)
    with redirect_stderr(stream):
        assert list(with_bar(range(10), 10, lambda: next(clock))) == list(range(10))

    assert ("replaying" in stream.getvalue()) is shown
    assert sys.stderr is not stream
