"""
`python -m bench.stub POLICY`: a Vault that answers at once, in a process of its own.

Prints its address, and serves until its standard input is closed.
"""

import asyncio
import sys
from pathlib import Path

from taskmint.policy.plan_objects import Plan
from vault.fake_server import FakeVaultServer
from vault.ground import plan_from

LIFE_SECONDS = 3600


def plan_at(file: str) -> Plan:
    """Derive the plan of a policy file."""
    return plan_from(Path(file).read_text())


async def main(plan: Plan) -> None:
    """Serve."""
    async with FakeVaultServer(plan, life=LIFE_SECONDS).running() as server:
        sys.stdout.write(server.address + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(plan_at(sys.argv[1])))
