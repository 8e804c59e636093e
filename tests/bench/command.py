"""
The benchmark as a command: what it measures is in arms.py, what it is held to in judge.py.

Exit status: 0; 1 when a gate is not met in a full run, or when the arms did not ask OpenBao the
same; 2 for a wrong option.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from taskmint.devstack.process import StackError

from . import identity, keeping, policy_cost, telemetry
from .audit import AuditTail, ListsDiffer
from .cold_start import cold_start
from .ground import POSTGRES, Ground
from .judge import Results, verdicts
from .load import LoadFailed
from .report import as_json, lines
from .rounds import checked_lists, measured
from .scopes import measured_scopes
from .section import Measure, Section
from .sizes import FULL, QUICK, Sizes
from .upkeep import CommandFailed, idle_memory, live_memory, wrapped

TASKS: Final = "tasks"
SCOPES: Final = "scopes"
SECTIONS: Final[Mapping[str, Measure]] = {
    "identity": identity.measure,
    "keeping": keeping.costs,
    "many": keeping.memory_of_many,
    "telemetry": telemetry.measure,
    "policy": policy_cost.measure,
}

_INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell has it


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute; judges no gate")
    parser.add_argument(
        "--output", type=Path, default=Path("bench.json"), help="default: bench.json"
    )
    parser.add_argument(
        "--only",
        choices=[TASKS, SCOPES, *SECTIONS],
        action="append",
        help="repeat it for more; all else",
    )
    options = parser.parse_args()
    chosen = options.only or [TASKS, SCOPES, *SECTIONS]
    sizes = QUICK if options.quick else FULL
    began = time.monotonic()

    def tell(what: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:5.1f} s] {what}\n")

    try:
        sections = {
            name: asyncio.run(_section(name, measure, sizes, tell))
            for name, measure in SECTIONS.items()
            if name in chosen
        }
        results: Results | None = None
        found: dict[str, Any] = {}
        if TASKS in chosen or SCOPES in chosen:
            results, found = asyncio.run(_run(sizes, chosen, sections, tell))
    except (StackError, ListsDiffer, LoadFailed, CommandFailed) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    except KeyboardInterrupt:  # everything has been stopped by now
        return _INTERRUPTED
    judged = [verdict for section in sections.values() for verdict in section.verdicts]
    if results is not None:
        judged += verdicts(results, found["live"], found["wrapped"], found["cold_start"])
    sys.stdout.write("\n".join(lines(sizes, results, sections, judged, found)) + "\n")
    written = as_json(sizes, results, sections, judged, found)
    options.output.write_text(json.dumps(written, indent=1) + "\n")
    tell(f"wrote {options.output}")
    failed = any(verdict.gate and not verdict.met for verdict in judged)
    return int(failed and not options.quick)


async def _section(
    name: str, measure: Measure, sizes: Sizes, tell: Callable[[str], None]
) -> Section:
    tell(name)
    return await measure(sizes)


async def _run(
    sizes: Sizes,
    chosen: Sequence[str],
    sections: dict[str, Section],
    tell: Callable[[str], None],
) -> tuple[Results | None, dict[str, Any]]:
    tell("starting OpenBao, PostgreSQL, the Workload API, the daemon and bao proxy")
    async with Ground.standing() as ground:
        audit = AuditTail(ground.stack.bao.audit_log)
        if SCOPES in chosen:
            tell(SCOPES)
            sections[SCOPES] = await measured_scopes(
                ground.load, ground.daemon_pid, audit, POSTGRES, sizes
            )
        if TASKS not in chosen:
            return None, {}
        audit.calls()
        tell("checking in the audit log that the arms ask the same")
        lists, words = await checked_lists(ground, audit)
        tell(f"memory without tasks, after {sizes.idle:g} s of silence")
        idle = await idle_memory(ground, sizes)
        cells = await measured(ground, audit, lists, sizes, tell)
        tell("the wrapped command")
        times = await wrapped(ground, sizes)
        tell("the start of a daemon")
        started = await cold_start(ground, sizes)
        tell(f"memory with {sizes.live} tasks, after {sizes.idle:g} s of silence")
        live = await live_memory(ground, sizes)
        tell("stopping")
    return Results(cells), {
        "calls": words,
        "idle": idle,
        "live": live,
        "wrapped": times,
        "cold_start": started,
    }
