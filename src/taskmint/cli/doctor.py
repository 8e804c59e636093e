"""
`taskmint doctor`: all that the daemon rests on, looked at from outside; each finding and its fix.

Works without a running daemon. Exit codes: 0 no error, 1 an error at least, 2 wrong use.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

import click
import structlog
from structlog.typing import EventDict, WrappedLogger

from taskmint.config import Config, load_config
from taskmint.daemon import from_config
from taskmint.daemon.approvers import ApproverSource, channels, tickets
from taskmint.daemon.files import Owners, read_config_file
from taskmint.daemon.node_id import kept_node_id
from taskmint.daemon.policy_source import InForce, policy_source
from taskmint.errors import ConfigError, TaskmintError
from taskmint.model.printable import printable

from .checkup.agent import check_agent
from .checkup.machine import check_machine
from .checkup.places import check_ledger_place, check_port, check_sockets
from .checkup.record import check_ledger
from .checkup.report import Diagnosis, Severity, fine, of_error
from .checkup.running import ask_daemon, check_daemon
from .checkup.server import check_rights, check_server
from .config_option import config_option
from .policy_inputs import output_option
from .terminal import coloured, progress

EXIT_FINDING: Final = 1


@click.command()
@config_option
@output_option
@click.option("--all", "everything", is_flag=True, help="Also what is fine.")
def doctor(config_file: Path, output: str, *, everything: bool) -> None:
    """
    Find what is wrong, and how to mend it; with or without a running daemon.

    Looks at the configuration, the policy, sockets, the ledger and its disk, the SPIFFE agent,
    Vault, the daemon's rights, clocks and the kernel. Exits 1 when something does not work;
    warnings and notes are shown and leave it at 0.
    """
    structlog.configure(processors=[_say_nothing])
    with progress("looking"):
        found = asyncio.run(_examined(config_file))
    shown = [one for one in found if everything or one.severity is not Severity.OK]
    if output == "json":
        click.echo(json.dumps([asdict(one) for one in shown], indent=2))
    else:
        for one in shown:
            click.echo(_line(one))
        click.echo(_verdict(found))
    sys.exit(EXIT_FINDING if any(one.severity is Severity.ERROR for one in found) else 0)


def _say_nothing(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Drop what the daemon's own parts would log: the findings say it."""
    del method, event
    raise structlog.DropEvent


def _line(one: Diagnosis) -> str:
    word = coloured(f"{one.severity}")
    fix = f"\n{'':9}fix: {printable(one.fix)}" if one.fix else ""
    return f"{word}{'':{8 - len(one.severity)}} {one.area}: {printable(one.what)}{fix}"


def _verdict(found: list[Diagnosis]) -> str:
    counts = Counter(one.severity for one in found)
    errors, warnings = counts[Severity.ERROR], counts[Severity.WARNING]
    if not errors and not warnings:
        return f"all is well: {len(found)} looked at"
    return f"{len(found)} looked at: {errors} errors, {warnings} warnings"


async def _examined(config_file: Path) -> list[Diagnosis]:
    found = list(check_machine())
    try:
        config = load_config(str(config_file), read_config_file(str(config_file)), os.environ)
        from_config.roles(config)
    except TaskmintError as error:
        return [*of_error("config", error), *found]
    found.insert(0, fine("config", f"{config_file} is fine"))
    policy: list[Diagnosis] = []
    in_force = _policy(config, policy)
    found += policy
    found += _named(config)
    found += [one async for one in _of_config(config, in_force)]
    return sorted(found, key=lambda one: list(Severity).index(one.severity), reverse=True)


def _policy(config: Config, found: list[Diagnosis]) -> InForce | None:
    try:
        in_force = policy_source(config, _owners(config)).load()
    except ConfigError as error:
        found += of_error("policy", error)
        return None
    found.append(fine("policy", f"{len(in_force.policy.definitions)} definitions are fine"))
    return in_force


def _owners(config: Config) -> Owners:
    """Whose files a daemon believes beside root's: its own, as the ledger's directory is."""
    try:
        return frozenset({Path(config.ledger.path).parent.stat().st_uid})
    except OSError:  # that it is not there is found elsewhere
        return frozenset()


def _named(config: Config) -> Iterator[Diagnosis]:
    """Read what else a start reads before it goes on, by the functions that it reads them by."""
    owners = _owners(config)
    readers: tuple[tuple[str, Callable[[], object]], ...] = (
        ("approvals", ApproverSource(config.approvals, owners).load),
        ("notices", partial(channels, config.notices, owners)),
        ("break-glass", partial(tickets, config.break_glass, "", owners)),
        ("ledger", partial(kept_node_id, Path(config.ledger.path).parent, owners)),
    )
    for area, read in readers:
        try:
            read()
        except TaskmintError as error:
            yield from of_error(area, error)


async def _of_config(config: Config, in_force: InForce | None) -> AsyncIterator[Diagnosis]:
    ledger, admin = Path(config.ledger.path), config.sockets.admin
    asked = await asyncio.to_thread(ask_daemon, admin)
    runs = asked.status is not None
    digest = in_force.policy.digest if in_force else ""
    for one in _local(config, ledger):
        yield one
    if config.metrics.listen is not None and not runs:
        for one in check_port(config.metrics.listen):
            yield one
    for one in check_daemon(asked, admin, ledger, digest):
        yield one
    async for one in check_agent(config, daemon_runs=runs):
        yield one
    reachable = True
    async for one in check_server(from_config.vault_settings(config)):
        reachable = reachable and one.severity is not Severity.ERROR
        yield one
    if reachable and in_force is not None and not runs:
        async for one in check_rights(config, in_force.plan):
            yield one


def _local(config: Config, ledger: Path) -> Iterator[Diagnosis]:
    yield from check_sockets(config)
    yield from check_ledger_place(ledger)
    yield from check_ledger(ledger)
