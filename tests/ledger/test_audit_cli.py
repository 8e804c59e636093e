"""`taskmint audit`: what an auditor reads, beside a daemon that writes."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ledger import independent_verifier
from ledger.lives import (
    START,
    a_task,
    accessor,
    active,
    intent,
    ledger_at,
    life,
    written,
)
from ledger.test_tampering import change, head_of
from taskmint.cli.audit import audit
from taskmint.model.state import TaskState
from taskmint.ports import Entry, Event


def run(*words: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(audit, [str(word) for word in words], catch_exceptions=False)


def printed(*words: str | Path) -> Any:
    """Return the JSON that the command prints."""
    return json.loads(run(*words, "--output", "json").stdout)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Return a ledger with two finished tasks."""
    return await written(tmp_path / "ledger", *life(a_task()), *life(a_task()))


def test_verify_says_what_it_looked_at(path: Path) -> None:
    """An intact ledger: exit 0, the count, the node, the head to keep."""
    head = head_of(path)
    result = run("verify", "--ledger", path, "--head", str(head))

    assert (result.exit_code, result.stdout) == (
        0, f"intact: 10 rows of node node-1, head {head}\n",
    )  # fmt: skip


def test_verify_exits_1_with_every_finding(path: Path) -> None:
    """An edited row and a missing one: both are said, with positions."""
    head = head_of(path)
    change(path, "UPDATE entries SET state = 'active' WHERE position = 2")
    change(path, "DELETE FROM entries WHERE position = 10")
    words = ("verify", "--ledger", path, "--head", str(head))
    result = run(*words)

    assert result.exit_code == 1
    assert "row 2: edited" in result.stdout
    assert "row 10: truncated" in result.stdout
    found = {(finding["kind"], finding["position"]) for finding in printed(*words)["findings"]}
    assert {("edited", 2), ("truncated", 10)} <= found


def test_a_damaged_file_is_a_finding_not_a_traceback(path: Path) -> None:
    """Zeroes in place of a page: exit 1 or 3 with one line."""
    content = bytearray(path.read_bytes())
    content[2 * 4096 : 3 * 4096] = bytes(4096)
    path.write_bytes(content)
    result = run("verify", "--ledger", path)

    assert result.exit_code in {1, 3}
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["verify", "export", "tail"])
def test_an_absent_ledger_is_unreachable(tmp_path: Path, command: str) -> None:
    """No file: exit 3 and its name."""
    result = run(command, "--ledger", tmp_path / "absent.db")

    assert result.exit_code == 3
    assert "absent.db cannot be read" in result.stderr


@pytest.mark.parametrize(
    "words", [("verify", "--head", "junk"), ("show", "tm_junk"), ("verify", "--nonsense")]
)
def test_wrong_usage_exits_2(path: Path, words: tuple[str, ...]) -> None:
    """What cannot be meant is said before anything is read."""
    assert run(*words, "--ledger", path).exit_code == 2


async def test_show_tells_the_whole_story(tmp_path: Path) -> None:
    """Who, why, what was decided and by which policy, how it ended, how long both took."""
    task = a_task()
    path = await written(tmp_path / "ledger", *life(a_task()), *life(task))
    story = await asyncio.to_thread(printed, "show", task, "--ledger", path)
    text = (await asyncio.to_thread(run, "show", task, "--ledger", path)).stdout

    assert [row["event"] for row in story.pop("rows")] == [
        "intent", "accessor", "active", "ending", "revoked",
    ]  # fmt: skip
    assert story == {
        "task": task,
        "state": "revoked",
        "definition": "orders-report",
        "spiffe_id": "spiffe://prod.example.org/ns/orders/sa/nightly",
        "uid": 1000,
        "method": "jwt-svid",
        "parameters": {"region": "eu", "größe": 1.5},
        "purpose": "nightly totals",
        "ticket": "OPS-1",
        "context": {"run": "7"},
        "decision": "granted",
        "shadow": None,
        "policy_digest": "ab" * 32,
        "requested_at": "2026-11-21T12:00:00.000000Z",
        "active_at": "2026-11-21T12:00:02.000000Z",
        "user_names": ["v-orders-1"],
        "serials": [],
        "name_in_vault": f"taskmint-node-1-{task[3:]}",
        "ended_at": "2026-11-21T12:00:03.000000Z",
        "cause": "succeeded",
        "revoked_at": "2026-11-21T12:00:04.000000Z",
        "disabled": None,
        "lived_seconds": 42.5,
        "revocation_seconds": 0.0125,
        "revisions": [],
    }
    assert "purpose             nightly totals\n" in text
    assert "lived seconds       42.5\n" in text


async def test_show_tells_of_denials_failures_and_what_is_not_over(tmp_path: Path) -> None:
    """The decision is said whatever it was; what has not happened is not said."""
    denied, failed, going = a_task(), a_task(), a_task()
    path = await written(
        tmp_path / "ledger",
        Entry(Event.DENIED, START, denied, TaskState.DENIED, {"code": "not_permitted"}),
        intent(failed),
        Entry(Event.FAILED, START, failed, TaskState.FAILED, {"code": "vault_error"}),
        intent(going),
        accessor(going),
        active(going, START + timedelta(seconds=2)),
    )
    stories = [
        await asyncio.to_thread(printed, "show", task, "--ledger", path)
        for task in (denied, failed, going)
    ]

    assert [story["decision"] for story in stories] == [
        "denied: not_permitted", "granted, then failed: vault_error", "granted",
    ]  # fmt: skip
    assert stories[2]["state"] == "active"
    assert stories[2]["ended_at"] is None
    assert stories[2]["lived_seconds"] is None


async def test_durations_come_from_the_rows_when_nothing_else_is_known(tmp_path: Path) -> None:
    """A task that is still being taken back: how long it lived follows from the rows' times."""
    task = a_task()
    path = await written(tmp_path / "ledger", *list(life(task))[:4])
    story = await asyncio.to_thread(printed, "show", task, "--ledger", path)

    assert (story["state"], story["lived_seconds"]) == ("revoking", 3.0)
    assert story["revocation_seconds"] is None

    await asyncio.to_thread(change, path, "UPDATE entries SET at = 'x' WHERE event = 'ending'")
    story = await asyncio.to_thread(printed, "show", task, "--ledger", path)
    assert story["lived_seconds"] is None


async def test_purged_texts_say_so(tmp_path: Path) -> None:
    """After retention the story lacks what humans typed, and says why."""
    task = a_task()
    async with ledger_at(tmp_path / "ledger") as ledger:
        for entry in life(task):
            await ledger.append(entry)
        await ledger.purge_older_than(START + timedelta(days=1))
    path = tmp_path / "ledger" / "ledger.db"
    story = await asyncio.to_thread(printed, "show", task, "--ledger", path)

    assert (story["purpose"], story["ticket"]) == ("[purged]", "[purged]")
    assert story["spiffe_id"] == "spiffe://prod.example.org/ns/orders/sa/nightly"


def test_an_unknown_task_is_a_no(path: Path) -> None:
    """No row of it: exit 1 and a sentence."""
    result = run("show", a_task(), "--ledger", path)

    assert result.exit_code == 1
    assert "no row of" in result.stderr


async def test_export_can_be_verified_line_by_line_and_holds_no_handles(tmp_path: Path) -> None:
    """Each line carries what its hash is made of; lease ids and accessors are not in it."""
    going = a_task()
    path = await written(
        tmp_path / "ledger", *life(a_task()), intent(going), accessor(going), active(going)
    )
    output = (await asyncio.to_thread(run, "export", "--ledger", path)).stdout
    header, *rows = map(json.loads, output.splitlines())

    assert "accessor-of-" not in output
    assert "lease-of-" not in output
    previous = header["genesis"]
    for row in rows:
        assert row.pop("previous") == previous
        hashed, clear = row.pop("hash"), row.pop("free_text_clear", None)
        body = independent_verifier.canonical(row).encode()
        assert sha256(bytes.fromhex(previous) + body).hexdigest() == hashed
        previous = hashed
        if clear:
            text = independent_verifier.canonical(clear["value"]).encode()
            assert sha256(bytes.fromhex(clear["salt"]) + text).hexdigest() == row["free_text"]
    assert len(rows) == 8


def test_export_goes_on_behind_a_position(path: Path) -> None:
    """A collector fetches what it has not got."""
    lines = run("export", "--ledger", path, "--after", "7").stdout.splitlines()

    assert [json.loads(line).get("position") for line in lines] == [None, 8, 9, 10]


def test_tail_shows_the_newest_rows(path: Path) -> None:
    """The last rows, oldest first; control characters cannot reach the terminal."""
    change(path, "UPDATE entries SET event = 'x' || char(27) || '[2J' WHERE position = 10")
    lines = run("tail", "-n", "2", "--ledger", path).stdout.splitlines()

    assert len(lines) == 2
    assert " 9 ending " in lines[0]
    assert "\x1b" not in lines[1]


async def test_tail_follows_a_running_daemon(tmp_path: Path) -> None:
    """Rows show while the daemon goes on writing; an interrupt ends it well."""
    async with ledger_at(tmp_path / "ledger") as ledger:
        await ledger.append(intent(a_task()))
        follower = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "taskmint", "audit", "tail", "-f", "--output", "json"),
            *("--ledger", str(tmp_path / "ledger" / "ledger.db")),
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert follower.stdout is not None
        seen = [json.loads(await follower.stdout.readline())["position"]]
        await ledger.append(intent(a_task()))
        seen.append(json.loads(await follower.stdout.readline())["position"])
        follower.terminate()
        await follower.wait()

    assert seen == [1, 2]


async def test_a_running_ledger_is_verified_beside_its_writer(tmp_path: Path) -> None:
    """Reading takes no lock that the writer notices."""
    async with ledger_at(tmp_path / "ledger") as ledger:
        for _ in range(3):
            await ledger.append(intent(a_task()))
            path = tmp_path / "ledger" / "ledger.db"
            words = ("verify", "--ledger", path, "--head", str(ledger.head))
            assert (await asyncio.to_thread(run, *words)).exit_code == 0
