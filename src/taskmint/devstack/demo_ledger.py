"""What the ledger says, by the command that an auditor would use."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .daemon_process import daemon_environment
from .process import StackError

_SECONDS: Final = 30.0


async def verify_ledger(ledger: Path) -> tuple[int, str]:
    """Run `taskmint audit verify`; its exit status and what it prints."""
    return await _audit("verify", "--ledger", str(ledger))


async def task_stories(ledger: Path) -> list[str]:
    """
    Tell of each task in a line: who asked for what, and how it ended. Raises StackError.

    A task whose end is not written yet is left out.
    """
    status, out = await _audit("export", "--ledger", str(ledger))
    if status:
        raise StackError(f"taskmint audit export: {out}")
    _, *rows = map(json.loads, out.splitlines())
    asked: dict[str, Mapping[str, Any]] = {}
    lines = []
    for row in rows:
        task, facts = row["task"], row["facts"]
        if row["event"] in {"intent", "denied"}:
            asked[task] = facts
        if row["event"] == "denied":
            lines.append(f"{_request(facts)}: denied, {facts['code']}")
        elif row["event"] == "revoked":
            took = f"{facts['revocation_seconds'] * 1e3:.0f} ms"
            how = f"ended ({facts['cause']}), taken back and looked up in {took}"
            lines.append(f"{_request(asked[task])}: {how}")
    return lines


def _request(facts: Mapping[str, Any]) -> str:
    parameters = ", ".join(f"{name}={value}" for name, value in facts["parameters"].items())
    return f"{facts['spiffe_id']} asked for {facts['definition']} ({parameters})"


async def _audit(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", "audit", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=daemon_environment(),
    )
    try:
        async with asyncio.timeout(_SECONDS):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, (out or errors).decode(errors="replace").strip()
