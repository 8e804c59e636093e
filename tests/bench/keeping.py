"""
What keeping many tasks costs.

    renew  CPU of renewing tokens and leases, of a bare loop that makes the same calls
    end    CPU and time of taking back with proof, of the same bare calls one after another
    many   memory of the daemon with ten thousand live token tasks, on the real servers

`renew` and `end` are measured inside one process, against a stub that answers at once (keeper.py):
nothing hides what we add. `again` rows are the same thing twice, which is the noise.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

from vault.ground import POLICY

from .ground import TOKEN, Ground
from .judge import Verdict
from .measure import memory
from .section import Figure, Section
from .sizes import Sizes

RENEW: Final = "renew: CPU, of a bare loop with the same calls"
END: Final = "end: CPU until it is proven, of the same bare calls"
PROVEN: Final = "end: time until it is proven, of the same bare calls"
PER_TASK: Final = "many: PSS for each live task"
TOTAL: Final = "many: PSS with live tasks"
_AT_ONCE: Final = 500  # starts between two answers of the load generator


async def costs(sizes: Sizes) -> Section:
    """Measure `renew` and `end`."""
    tasks, rounds = (500, 9) if sizes.name == "full" else (60, 3)
    found = await _kept(tasks, rounds)
    figures = []
    for name, what, unit in (
        (RENEW, "renew", "cpu"),
        (END, "end", "cpu"),
        (PROVEN, "end", "seconds"),
    ):
        again = _ratio(found, what, "bare again", unit)
        figures += [
            Figure(name, _ratio(found, what, "taskmint", unit), "x"),
            Figure(f"{what}: bare again, of bare, {unit}", again, "x"),
        ]
    values = {figure.name: figure.value for figure in figures}
    bounds = (
        (RENEW, 1.5, "renew: bare again, of bare, cpu"),
        (PROVEN, 1.3, "end: bare again, of bare, seconds"),
    )
    return Section(
        figures,
        [
            Verdict(
                name,
                gate=False,
                value=values[name],
                bound=bound,
                at_most=True,
                explanation=f"the same twice differs by {abs(values[noise] - 1):.2f}",
            )
            for name, bound, noise in bounds
        ],
    )


async def memory_of_many(sizes: Sizes) -> Section:
    """Measure `many`: started by the load generator, then left alone."""
    count = 10_000 if sizes.name == "full" else 100
    async with Ground.standing() as ground:
        await asyncio.sleep(sizes.idle)
        before = await asyncio.to_thread(memory, ground.daemon_pid)
        for _ in range(0, count, min(_AT_ONCE, count)):
            await ground.load.hold(TOKEN, min(_AT_ONCE, count))
        await asyncio.sleep(sizes.idle)
        after = await asyncio.to_thread(memory, ground.daemon_pid)
    each = (after["pss"] - before["pss"]) / count
    words = f"{count} tasks, each held by its process and renewed"
    return Section(
        [
            Figure("many: PSS without tasks", before["pss"] / 1e6, "MB"),
            Figure(TOTAL, after["pss"] / 1e6, "MB"),
            Figure(PER_TASK, each / 1024, "KiB"),
        ],
        [
            Verdict(
                TOTAL,
                gate=False,
                value=after["pss"] / 1e6,
                bound=170.0,
                at_most=True,
                explanation=words,
            ),
            Verdict(
                PER_TASK, gate=False, value=each / 1024, bound=4.0, at_most=True, explanation=words
            ),
        ],
    )


async def _kept(tasks: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run keeper.py in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        policy = Path(directory) / "policy.yaml"
        policy.write_text(POLICY.replace("MOUNT", "warehouse"))
        keeper = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.keeper", str(policy), str(tasks), str(rounds)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        try:
            out, _ = await keeper.communicate()
        finally:
            if keeper.returncode is None:
                keeper.kill()
                await keeper.wait()
    if keeper.returncode:
        raise RuntimeError(f"keeper.py ended with {keeper.returncode}")
    found: dict[str, Any] = json.loads(out)
    return found


def _ratio(found: dict[str, list[dict[str, float]]], what: str, arm: str, unit: str) -> float:
    """Divide round by round; the median of the rounds."""
    pairs = zip(found[f"{what}, {arm}"], found[f"{what}, bare"], strict=True)
    return median(mine[unit] / theirs[unit] for mine, theirs in pairs)
