"""
A process that writes a ledger until something stops it; run by tests, never imported.

`python writing_child.py DIRECTORY ROWS [AT_ONCE]` prints `N` after N rows were promised durable,
`refused REASON` when an append was refused. On a line `again` it waits until the ledger is ready
and writes on; on a line `end`, or at the end of its input, it closes the ledger.
"""

import asyncio
import os
import sys
from pathlib import Path

from ledger.lives import a_task, intent, ledger_at
from taskmint.errors import Unavailable
from taskmint.failpoints import Failpoints
from taskmint.ledger.sqlite import SqliteLedger

LONGEST_WAIT = float(os.environ.get("LONGEST_WAIT", "20"))


def say(*words: object) -> None:
    """Tell the test."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def write(ledger: SqliteLedger, rows: int, at_once: int) -> None:
    """Append until a refusal or until it is enough."""
    for _ in range(rows // at_once):
        try:
            await asyncio.gather(*(ledger.append(intent(a_task())) for _ in range(at_once)))
        except Unavailable as error:
            say("refused", error)
            return
        say(ledger.head.position)


async def main(directory: Path, rows: int, at_once: int) -> None:
    """Write, and do as told."""
    failpoints = Failpoints.from_text(os.environ.get("TASKMINT_FAILPOINT", ""))
    async with ledger_at(directory, failpoints) as ledger:
        await write(ledger, rows, at_once)
        while (await asyncio.to_thread(sys.stdin.readline)).strip() == "again":
            async with asyncio.timeout(LONGEST_WAIT):
                while ledger.ready():
                    await asyncio.sleep(0.01)
            await write(ledger, rows, at_once)


if __name__ == "__main__":
    most = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), most))
