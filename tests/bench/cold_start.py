"""
How long from nothing to READY=1, beside what importing the libraries alone takes.

The libraries are those that the daemon's modules load, in the order in which they do, without one
line of ours; the daemon is a second one, with sockets and a ledger of its own.
"""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from taskmint.devstack.stack import DAEMON

from .ground import Ground
from .sizes import Sizes
from .upkeep import CommandFailed

_LIST: Final = """
import sys
before = set(sys.modules)
import taskmint.cli.serve, taskmint.daemon.start
ours = ("taskmint", "__editable__")
print("\\n".join(name for name in sys.modules if name not in before and not name.startswith(ours)))
"""
_IMPORT: Final = """
import importlib, os, sys
os.environ["GRPC_VERBOSITY"] = "ERROR"
for name in open(sys.argv[1]).read().split():
    if name not in sys.modules:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # made up by a library at run time: `six.moves` and kin
"""
_READY_SECONDS: Final = 30.0


async def cold_start(ground: Ground, sizes: Sizes) -> dict[str, float]:
    """Medians of interleaved rounds, in seconds, and the median of each round's ratio."""
    place = ground.stack.paths.directory / "cold"
    python = str(ground.stack.python[DAEMON])
    modules = await asyncio.to_thread(_prepare, ground, place, await _modules(python))
    imports, starts = [], []
    for _ in range(sizes.wrapped):
        imports.append(await _imported(python, modules))
        starts.append(await _started(python, place))
    ratios = [start / once for start, once in zip(starts, imports, strict=True)]
    return {"imports": median(imports), "ready": median(starts), "ratio": median(ratios)}


def _prepare(ground: Ground, place: Path, names: str) -> Path:
    """Write the list of modules, and a config that shares nothing with the daemon that runs."""
    place.mkdir()
    config = json.loads(ground.stack.paths.config.read_text())
    config["node"]["id"] = "cold"
    config["sockets"] |= {"task": str(place / "task.sock"), "admin": str(place / "admin.sock")}
    config["ledger"]["path"] = str(place / "ledger.db")
    (place / "taskmint.yaml").write_text(json.dumps(config))
    modules = place / "modules"
    modules.write_text(names)
    return modules


async def _modules(python: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(python, "-c", _LIST), stdout=asyncio.subprocess.PIPE
    )
    names, _ = await process.communicate()
    if process.returncode:
        raise CommandFailed("the daemon's modules cannot be imported")
    return names.decode()


async def _imported(python: str, modules: Path) -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(python, "-c", _IMPORT, str(modules), env={})
    if await process.wait():
        raise CommandFailed("the libraries cannot be imported")
    return time.perf_counter() - began


async def _started(python: str, place: Path) -> float:
    with _manager(place / "notify") as manager:
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(python, "-m", "taskmint", "serve", "--config", str(place / "taskmint.yaml")),
            env={"NOTIFY_SOCKET": str(place / "notify"), "PATH": os.defpath},
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_READY_SECONDS):
                loop = asyncio.get_running_loop()
                while not (await loop.sock_recv(manager, 4096)).startswith(b"READY=1"):
                    pass
            seconds = time.perf_counter() - began
        except TimeoutError as error:
            raise CommandFailed("a second daemon does not become ready") from error
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()
    return seconds


@contextmanager
def _manager(path: Path) -> Iterator[socket.socket]:
    """A service manager's socket, as sd_notify(3) wants it."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(str(path))
        server.setblocking(False)
        try:
            yield server
        finally:
            path.unlink()


def words(found: Mapping[str, float]) -> str:
    """One line for people."""
    return (
        f"cold start: ready after {found['ready'] * 1e3:.0f} ms, importing its libraries takes "
        f"{found['imports'] * 1e3:.0f} ms: {found['ratio']:.2f} times"
    )
