"""`taskmint demo`, run as a person would run it; its demo.json is read again and not believed."""

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from taskmint.devstack.bao_http import BaoHttp
from taskmint.model.secret import Secret

from plugins.canaries import Canaries

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

STEPS = [
    "before",
    "denied",
    "granted",
    "ended",
    "workload-killed",
    "daemon-killed",
    "ledger",
    "after",
]
USER = re.compile(r"taskmint-dev-[0-9a-z]{26}-[0-9a-z]{6}")


@dataclass(frozen=True)
class Told:
    """A finished demo."""

    status: int
    lines: list[str]
    story: Mapping[str, Any]
    directory: Path
    kept: Mapping[str, str]

    def step(self, name: str) -> Mapping[str, Any]:
        """Find a step of demo.json."""
        found: Mapping[str, Any] = next(s for s in self.story["steps"] if s["name"] == name)
        return found

    def answers(self, name: str, source: str) -> str:
        """Everything that one source answered in a step."""
        evidence = self.step(name)["evidence"]
        return "\n".join(e["answer"] for e in evidence if e["source"] == source)


async def started(output: Path, *options: str) -> asyncio.subprocess.Process:
    """Start a demo without a terminal."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", "demo", "--output", str(output), *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )


async def lines_until(process: asyncio.subprocess.Process, beginning: str) -> list[str]:
    """Read lines up to one that begins so, or to the end."""
    lines: list[str] = []
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode():
        lines.append(line.rstrip("\n"))
        if lines[-1].startswith(beginning):
            break
    return lines


def directory_in(lines: list[str]) -> Path:
    """Find where the stack stands."""
    return Path(next(line for line in lines if line.startswith("The stack stands in")).split()[-1])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def told(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> AsyncIterator[Told]:
    """One demo with --keep, asked while it is kept, then ended with Ctrl-C's signal."""
    output = tmp_path_factory.mktemp("demo") / "demo.json"
    process = await started(output, "--keep")
    try:
        lines = await lines_until(process, "The stack stays up")
        exports = [shlex.split(line) for line in lines if line.startswith("export ")]
        variables = dict(words[1].split("=", 1) for words in exports)
        token = Path(variables["TASKMINT_DEV_ROOT_TOKEN_FILE"]).read_text()
        canaries.plant(token, "the demo's root token")
        async with BaoHttp(variables["VAULT_ADDR"], Secret(token)) as bao:
            leases = await bao.send("GET", "sys/leases/lookup/database/creds?list=true")
        kept = {"leases": str(leases.status), **variables}
        process.send_signal(signal.SIGINT)
        lines += await lines_until(process, "nothing")
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    canaries.search_bytes("\n".join(lines).encode(), "the demo's output")
    yield Told(status, lines, json.loads(output.read_text()), directory_in(lines), kept)


async def test_it_is_told_whole_and_in_time(told: Told) -> None:
    """Every step in its order, each with evidence that holds, in less than a minute; exit 0."""
    assert [step["name"] for step in told.story["steps"]] == STEPS
    assert all(step["held"] and step["evidence"] for step in told.story["steps"])
    assert told.story["held"]
    assert told.story["broken"] is None
    assert told.story["seconds"] < 60
    assert told.status == 0


async def test_without_a_terminal_there_are_plain_lines(told: Told) -> None:
    """No colour, no cursor moved; each step's title stands on a line of its own."""
    assert not [line for line in told.lines if "\x1b" in line or "\r" in line]
    titles = [f"{n}. {step['title']}" for n, step in enumerate(told.story["steps"], 1)]
    assert [line for line in told.lines if line in titles] == titles


async def test_nothing_stands_before_and_after(told: Told) -> None:
    """Two accounts, no lease; the daemon's own rights read no secret."""
    for name in ("before", "after"):
        assert told.answers(name, "PostgreSQL") == "postgres, vault"
        assert told.answers(name, "OpenBao").startswith("none\n")
    assert told.answers("before", "OpenBao").endswith("403 Forbidden")


async def test_a_denial_has_its_reason_and_reaches_no_server(told: Told) -> None:
    """A caller without identity, and one whose identity is not named; OpenBao hears of neither."""
    words = told.answers("denied", "the caller")
    assert "no identity" in words
    assert "(not_permitted)" in words
    assert told.answers("denied", "OpenBao's audit device") == "none"


async def test_the_grant_is_for_one_task_and_narrow(told: Told) -> None:
    """The task's own token asked for the account; one region is read, nothing is written."""
    audit = told.answers("granted", "OpenBao's audit device").splitlines()
    assert audit[-1] == (
        "read database/creds/orders-ro-eu, by a token with taskmint-task-orders-report.eu"
    )
    assert told.answers("granted", "psql").splitlines()[0] == "40 orders, regions: eu"
    assert "42501" in told.answers("granted", "psql")


@pytest.mark.parametrize("name", ["ended", "workload-killed", "daemon-killed"])
async def test_postgresql_refuses_what_ended(told: Told, name: str) -> None:
    """Its log has the SQLSTATE and the account's name; the milliseconds are in the figures."""
    refusals = told.answers(name, "PostgreSQL's log").splitlines()
    assert len(refusals) == 2
    assert refusals[1].startswith("SQLSTATE 28P01: password authentication failed for user")
    users = {match[0] for line in refusals if (match := USER.search(line))}
    assert len(users) == 1
    limit = told.story["dead_man_seconds"] + 5 if name == "daemon-killed" else 5
    assert 0 < told.step(name)["figures"]["refused_after_ms"] < limit * 1e3


async def test_each_task_had_an_account_of_its_own(told: Told) -> None:
    """Three tasks, three accounts."""
    names = ("ended", "workload-killed", "daemon-killed")
    users = [USER.findall(told.answers(name, "PostgreSQL's log"))[0] for name in names]
    assert len(set(users)) == 3


async def test_the_ledger_tells_every_end(told: Told) -> None:
    """The denial, and each end by its own cause; the chain is intact."""
    words = told.answers("ledger", "the ledger")
    for cause in ("denied, not_permitted", "(succeeded)", "(process_exited)", "(not_recovered)"):
        assert cause in words
    assert "intact" in words


async def test_keep_leaves_the_stack_up_and_then_nothing(told: Told) -> None:
    """While it is kept OpenBao answers (404: no lease); after Ctrl-C the directory is gone."""
    assert told.kept["leases"] == "404"
    assert not told.directory.exists()


async def test_ctrl_c_in_the_middle_stops_everything(tmp_path: Path) -> None:
    """Told to stop it stops, says so, leaves no directory, and exits as a signal does."""
    process = await started(tmp_path / "demo.json")
    lines = await lines_until(process, "1. Before")
    process.send_signal(signal.SIGINT)
    lines += await lines_until(process, "nothing")

    assert await process.wait() == 128 + signal.SIGINT
    assert lines[-1] == "interrupted; everything is stopped"
    assert not directory_in(lines).exists()


async def test_a_stack_that_does_not_start_is_a_sentence(tmp_path: Path) -> None:
    """A directory too long for a socket: exit 1, demo.json says so, and there is no traceback."""
    long = tmp_path / ("a" * 100)
    long.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", "demo", "--output", str(tmp_path / "demo.json")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(long)},
    )
    out, errors = await process.communicate()

    story = json.loads((tmp_path / "demo.json").read_text())
    assert process.returncode == 1
    assert not story["held"]
    assert story["broken"] in out.decode()
    assert "Traceback" not in (out + errors).decode()
