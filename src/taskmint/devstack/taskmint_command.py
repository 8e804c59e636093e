"""
Runs our own command line as an admin does: what it prints and does is what the stack is built on.
"""

import asyncio
import sys
from pathlib import Path
from typing import Final

from taskmint.model.secret import Secret

from .daemon_process import daemon_environment
from .process import StackError, put_an_end_to

_SECONDS: Final = 60.0
_REVOCATION: Final = "revocation_statements of a role"


async def recommended_revocation() -> str:
    """Ask `taskmint vault statements` for the statements that end an account."""
    printed = await _taskmint("vault", "statements", "postgresql", environment={})
    _, found, rest = printed.partition(f"-- {_REVOCATION}\n")
    if not found:
        raise StackError(f"taskmint vault statements has no section {_REVOCATION!r}")
    return rest.partition("\n\n-- ")[0]


async def apply_plan(config: Path, daemon_id: str, address: str, token: Secret[str]) -> None:
    """Run `taskmint vault apply`; the administrator's token goes by the environment."""
    await _taskmint(
        *("vault", "apply", "--yes", "--config", str(config)),
        *("--daemon-spiffe-id", daemon_id),
        environment={"VAULT_ADDR": address, "VAULT_TOKEN": token.reveal()},
    )


async def _taskmint(*arguments: str, environment: dict[str, str]) -> str:
    """Return what it prints. Raises StackError with what it says on standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=daemon_environment() | environment,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            out, errors = await process.communicate()
    finally:
        await put_an_end_to(process)
    if process.returncode:
        said = (errors + out).decode(errors="replace").strip()
        raise StackError(f"taskmint {' '.join(arguments)}: exit {process.returncode}: {said}")
    return out.decode()
