"""
Runs our own command line as an admin does: what it prints and does is what the stack is built on.
"""

import asyncio
import sys
from pathlib import Path
from typing import Final

from taskmint.model.secret import Secret

from .daemon_process import daemon_environment
from .process import StackError
from .vault_setup import Statements

_SECONDS: Final = 60.0


async def recommended_statements() -> Statements:
    """Ask `taskmint vault statements postgresql` what a database role should say."""
    raise NotImplementedError


async def apply_plan(config: Path, address: str, token: Secret[str]) -> None:
    """Run `taskmint vault apply`; the administrator's token goes by the environment."""
    await _taskmint(
        *("vault", "apply", "--config", str(config), "--yes"),
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
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = (errors + out).decode(errors="replace").strip()
        raise StackError(f"taskmint {' '.join(arguments)}: exit {process.returncode}: {said}")
    return out.decode()
