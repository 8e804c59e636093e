"""From a config file to a running process: limits, event loop, signals."""

import asyncio
import os
import resource
import signal
from pathlib import Path

import uvloop

from taskmint.config import load_config
from taskmint.telemetry.logs import configure

from .files import read_config_file
from .memory import keep_private
from .run import run
from .running import Running


def start(config_file: Path, *, revoke_on_stop: bool, log_level: str) -> None:
    """
    Run the daemon until SIGTERM or SIGINT. Raises TaskmintError when it cannot start.

    No core dump: it would hold what tasks were given (P9). No file of ours is open to others, and
    our memory to no process of our user.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    _raise_descriptor_limit()
    config = load_config(str(config_file), read_config_file(str(config_file)), os.environ)
    keep_private(Path(config.identity.workload_api.removeprefix("unix:")))
    log = configure(log_level)
    uvloop.run(
        run(config, os.environ, log, revoke_on_stop=revoke_on_stop, signals=_connect_signals)
    )
    log.info("stopped")


def _connect_signals(running: Running) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, running.stop)
    loop.add_signal_handler(signal.SIGINT, running.stop)
    loop.add_signal_handler(signal.SIGHUP, running.ask_reload)


def _raise_descriptor_limit() -> None:
    """Use what the hard limit allows: a bound task costs a descriptor, a connection two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
