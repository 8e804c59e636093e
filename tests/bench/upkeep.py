"""What taskmint costs when nobody waits for it: memory, and the start of a wrapped command."""

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Final

from taskmint.devstack.psql import libpq_environment, postgres_binaries
from taskmint.model.secret import Secret

from .ground import POSTGRES, Ground
from .measure import memory
from .sizes import Sizes

_ALLOWED_SECONDS: Final = 0.1  # beyond one start of the interpreter


class CommandFailed(Exception):
    """Raised when a command whose time is taken does not succeed."""


async def idle_memory(ground: Ground, sizes: Sizes) -> dict[str, dict[str, int]]:
    """Memory of the daemon and of the proxy, in bytes, after a time of silence."""
    await asyncio.sleep(sizes.idle)
    return {
        "daemon": await asyncio.to_thread(memory, ground.daemon_pid),
        "proxy": await asyncio.to_thread(memory, ground.proxy_pid),
    }


async def live_memory(ground: Ground, sizes: Sizes) -> dict[str, dict[str, int]]:
    """The same with this many live tasks, each holding a database account; ended afterwards."""
    await ground.load.hold(POSTGRES, sizes.live)
    found = await idle_memory(ground, sizes)
    await ground.load.release(POSTGRES)
    return found


async def wrapped(ground: Ground, sizes: Sizes) -> dict[str, float]:
    """
    Time a query with the credential in hand, the same under `taskmint run`, and a bare interpreter.

    Medians of interleaved rounds, in seconds; `ratio` is the wrapped over the plain command, and
    `of_allowed` is what the wrapper adds, over an interpreter's start and 100 ms.
    """
    psql = [str(postgres_binaries() / "psql"), "-X", "-At", "-c", "SELECT count(*) FROM orders"]
    python = str(ground.python)
    run = [python, "-m", "taskmint", "run", "--task", "bench-postgres"]
    run += ["--env", "PGUSER=warehouse.username", "--env", "PGPASSWORD=warehouse.password"]
    server = _libpq(ground, "nobody", "nothing")
    async with ground.stack.admin() as bao:
        held = await bao.call("GET", "database/creds/orders-ro-eu")
        plain = _libpq(ground, held.data["username"], held.data["password"])
        commands: Mapping[str, tuple[list[str], dict[str, str]]] = {
            "command": (psql, plain),
            "run": ([*run, "--", *psql], {**server, **ground.stack.environment()}),
            "python": ([python, "-c", "pass"], {}),
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(sizes.wrapped):
            for name, (command, environment) in commands.items():
                seconds[name].append(await _timed(command, environment))
        await bao.call(
            "POST", "sys/leases/revoke", {"lease_id": held.body["lease_id"], "sync": True}
        )
    medians = {name: median(values) for name, values in seconds.items()}
    added = median(
        run - plain for run, plain in zip(seconds["run"], seconds["command"], strict=True)
    )
    return {
        **medians,
        "ratio": medians["run"] / medians["command"],
        "of_allowed": added / (medians["python"] + _ALLOWED_SECONDS),
    }


def _libpq(ground: Ground, user: str, password: str) -> dict[str, str]:
    environment = libpq_environment(ground.stack.postgres.dsn(user, Secret(password)))
    return {**environment, "LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)}


async def _timed(command: list[str], environment: Mapping[str, str]) -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    seconds = time.perf_counter() - began
    if process.returncode:
        said = errors.decode(errors="replace").strip()
        raise CommandFailed(f"{Path(command[0]).name}: exit {process.returncode}: {said}")
    return seconds
