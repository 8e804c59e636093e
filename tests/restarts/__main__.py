"""
`python tests/restarts` restarts the daemon under load, prints what came of it, and judges it.

Exit status: 0; 1 when a caller failed, a task was lost, or too few requests were under way.
"""

import argparse
import asyncio
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(prog="make restarts", description=__doc__)
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    options = parser.parse_args()
    began = time.monotonic()

    def tell(what: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:5.1f} s] {what}\n")

    report = asyncio.run(_run(options.restarts, options.rate, tell))
    sys.stdout.write(json.dumps(report.as_json(), indent=1) + "\n")
    good = report.valid and not report.failures and not report.lost and len(report.sessions) == 1
    sys.stdout.write(
        f"{report.restarts} restarts, {sum(report.sent.values())} callers: "
        f"{len(report.failures)} failed, {len(report.lost)} tasks lost"
        f"{'' if report.valid else ', INVALID: too few requests were under way'}\n"
    )
    return int(not good)


async def _run(restarts: int, rate: float, tell: Any) -> Any:
    scene = import_module("restarts.scene")
    async with scene.stack_with_tasks() as stack:
        return await scene.restarted_under_load(stack, restarts=restarts, rate=rate, tell=tell)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])
    sys.exit(main())
