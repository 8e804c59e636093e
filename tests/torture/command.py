"""
`make torture`: thousands of kills on real servers, counted by an auditor; exit 0 when none failed.

    python tests/torture [--kills 2000] [--minutes 80] [--nodes 5] [--seed N] [--edits 6]
                         [--machine-minutes 10]

Ends when the kills are done, when the time is up, or at Ctrl-C; whichever it was, what was done is
audited and summed up. Then, but after Ctrl-C, the state machine (machine.py) has its minutes. Exits
1 when anything was found, or when a failpoint was never hit.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from source_tree import REPOSITORY

from torture.accounts import percentiles
from torture.campaign import Findings, Terms, Torture, ground
from torture.machine import explore
from torture.points import all_shots

PROGRESS_SECONDS = 20.0
WEATHER_SECONDS = 15.0


def say(line: str) -> None:
    """Print at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    """Read what TORTURE_ARGS holds."""
    parser = argparse.ArgumentParser(prog="make torture", description="Kill the daemon, often.")
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=80.0)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--edits", type=int, default=6, help="of each kind, for each ledger")
    parser.add_argument("--machine-minutes", type=float, default=10.0, help="0: no stories")
    parser.add_argument("--audit-every", type=int, default=250, help="kills between two audits")
    return parser.parse_args()


async def progress(findings: Findings, kills: int) -> None:
    """Say how far it is, until cancelled."""
    begun = time.monotonic()
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        seconds = time.monotonic() - begun
        say(
            f"{seconds / 60:5.1f} min  {findings.kills}/{kills} kills"
            f"  {len(findings.hits.missed())} of {len(findings.hits.shots)} failpoints to hit"
            f"  {findings.audits} audits  {len(findings.orphans)} orphans"
            f"  kept {findings.tally.kept}  strange {len(findings.tally.strange)}"
        )


def machine() -> str:
    """Say what it ran on."""
    cores = len(os.sched_getaffinity(0))
    commit = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return (
        f"commit {commit}; {cores} cores {platform.machine()}; Linux {platform.release()};"
        f" Python {platform.python_version()}"
    )


def summary(findings: Findings, words: argparse.Namespace) -> Iterator[str]:
    """Tell what was done and what was found."""
    tally, edits = findings.tally, findings.edits
    given = f"--kills {words.kills} --nodes {words.nodes} --seed {words.seed}"
    yield f'command: make torture TORTURE_ARGS="{given}"'
    yield machine()
    yield f"took {findings.seconds / 60:.1f} min; {findings.audits} audits"
    yield f"kill -9: {findings.kills} ({dict(tally.kills)})"
    hit = len(findings.hits.shots) - len(findings.hits.missed())
    yield f"failpoints hit: {hit} of {len(findings.hits.shots)}"
    yield f"servers struck: {sum(findings.brought.values())}"
    for what, times in sorted(findings.brought.items()):
        yield f"  {what}: {times}"
    yield f"ledgers whose disk was full for a commit: {tally.full_disks}"
    yield f"credentials handed out: {findings.handed_out}; ledger rows: {findings.rows}"
    yield f"live tasks seen to outlive a kill: {tally.kept}; lapsed: {tally.lapsed}"
    for why, values in findings.gone.items():
        p50, p99, most = percentiles(values)
        seconds = f"p50 {p50:.2f} p99 {p99:.2f} max {most:.2f}"
        yield f"time to gone in seconds, {why}: {seconds} ({len(values)} accounts)"
    yield f"ledger edits: {sum(edits.tried.values())} ({edits.tried})"
    yield f"left over without access, for Vault or an administrator: {len(findings.leftovers)}"
    yield from (f"  {line}" for line in sorted(findings.leftovers))
    yield f"orphans: {len(findings.orphans)}"
    yield f"secrets without a record: {len(findings.unrecorded)}"
    yield f"undetected ledger edits: {len(edits.undetected)}"
    for line in findings.failures():
        yield f"FOUND {line}"


async def run(words: argparse.Namespace) -> tuple[bool, bool]:
    """Run, audit, tamper, sum up; whether nothing was found, and whether it was broken off."""
    say(f"seed {words.seed}")
    terms = Terms(
        kills=words.kills,
        seconds=words.minutes * 60,
        nodes=words.nodes,
        seed=words.seed,
        shots=all_shots(),
        weather=WEATHER_SECONDS,
        audit_every=words.audit_every,
    )
    async with ground() as stack, Torture.prepared(stack, terms) as torture:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, torture.stop)
        telling = asyncio.create_task(progress(torture.findings, words.kills))
        try:
            await torture.go()
            await torture.tamper(words.edits, say)
        finally:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling
        for line in summary(torture.findings, words):
            say(line)
        return not torture.findings.failures(), torture.stopped


def stories(words: argparse.Namespace) -> bool:
    """Let the state machine have its time, and say what came of it; whether no story failed."""
    told = explore(words.machine_minutes * 60, words.seed)
    say(f"stories of the state machine: {told.stories}, in {told.seconds / 60:.1f} min")
    for what, times in sorted(told.done.items()):
        say(f"  {what}: {times}")
    if told.failure:
        say(f"FOUND {told.failure}")
    return told.failure is None


def main() -> int:
    """Run on a loop of its own, and then the machine on its own."""
    words = arguments()
    well, broken_off = asyncio.run(run(words))
    if words.machine_minutes > 0 and not broken_off:
        well = stories(words) and well
    return 0 if well else 1
