"""
The embedded stack: OpenBao, PostgreSQL and the development Workload API, set up as an admin would.

Reading `Stack.running` is reading what happens. The part that is taskmint's own, its policies and
roles in Vault, is written by `taskmint vault apply`, the command that admins use.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from .agent_configuration import Trust
from .bao_http import BaoHttp
from .daemon_process import Daemon
from .executables import copied_interpreter
from .openbao import OpenBao
from .postgres import Postgres
from .process import StackError
from .registration import Entry
from .stack_directory import stack_directory
from .stack_files import DAEMON_ID, WORKLOAD_ID, Paths, config_text, policy_text
from .taskmint_command import apply_plan, recommended_revocation
from .vault_setup import set_up_database, set_up_jwt_auth
from .workload_api import WorkloadApi

DAEMON: Final = "daemon"
WORKLOAD: Final = "orders-report"
STRANGER: Final = "stranger"


@dataclass(frozen=True, slots=True)
class Stack:
    """
    A running stack; `python` names the interpreters, each with an identity of its own.

    `daemon` runs as taskmint itself, `orders-report` as the workload of the policy's definition;
    `stranger` has no entry, so the Workload API gives it nothing.
    """

    paths: Paths
    bao: OpenBao
    postgres: Postgres
    workload_api: WorkloadApi
    python: Mapping[str, Path]

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls,
        directory: Path | None = None,
        *,
        dead_man: timedelta = timedelta(seconds=60),
        trust: Trust | None = None,
        entries: Sequence[Entry] = (),
    ) -> AsyncIterator["Stack"]:
        """
        Start everything and set it up; everything is gone after the context.

        `dead_man` is the dead-man interval of the policy's definition and the database roles;
        `entries` are identities beside those of the stack's own interpreters.
        Raises StackError when a part does not start.
        """
        async with contextlib.AsyncExitStack() as exits:
            paths = Paths(await exits.enter_async_context(stack_directory(directory)))
            python = await asyncio.to_thread(_lay_out, paths)
            stack, revocation = await _started(exits, paths, python, entries, trust)
            await asyncio.to_thread(_write_files, stack, dead_man)
            async with stack.admin() as vault:
                await set_up_database(vault, stack.postgres, revocation, dead_man)
                await set_up_jwt_auth(vault, stack.workload_api.jwks_url)
            await stack.apply()
            yield stack

    def admin(self) -> BaoHttp:
        """Open a session to OpenBao with the root token; a context manager."""
        return BaoHttp(self.bao.address, self.bao.root_token)

    async def apply(self) -> None:
        """Run `taskmint vault apply`, again after policy files were changed."""
        await apply_plan(self.paths.config, DAEMON_ID, self.bao.address, self.bao.root_token)

    @contextlib.asynccontextmanager
    async def daemon(self, **environment: str) -> AsyncIterator[Daemon]:
        """Run the daemon for as long as the context lasts; returns when it is ready."""
        async with Daemon.running(self.python[DAEMON], self.paths, **environment) as daemon:
            yield daemon

    def environment(self) -> dict[str, str]:
        """Say where everything is, as variables; the root token is in a file for its owner only."""
        return {
            "VAULT_ADDR": self.bao.address,
            "SPIFFE_ENDPOINT_SOCKET": self.workload_api.endpoint,
            "TASKMINT_CONFIG": str(self.paths.config),
            "TASKMINT_SOCKET": str(self.paths.task_socket),
            "TASKMINT_ADMIN_SOCKET": str(self.paths.admin_socket),
            "TASKMINT_DEV_DIRECTORY": str(self.paths.directory),
            "TASKMINT_DEV_ROOT_TOKEN_FILE": str(self.paths.root_token),
            "TASKMINT_DEV_DATABASE": self.postgres.url,
            **{
                f"TASKMINT_DEV_PYTHON_{name.upper().replace('-', '_')}": str(path)
                for name, path in self.python.items()
            },
        }


def _lay_out(paths: Paths) -> Mapping[str, Path]:
    """Make the private directories, and the interpreters."""
    for private in ("openbao", "postgres", "agent", "state"):
        (paths.directory / private).mkdir(0o700)
    paths.policy.mkdir(0o755)
    return {
        name: copied_interpreter(paths.directory / "exe" / name)
        for name in (DAEMON, WORKLOAD, STRANGER)
    }


async def _started(
    exits: contextlib.AsyncExitStack,
    paths: Paths,
    python: Mapping[str, Path],
    entries: Sequence[Entry],
    trust: Trust | None,
) -> tuple[Stack, str]:
    """Start the three servers side by side; when one fails, the others are stopped."""
    at, lock = paths.directory, paths.directory
    own = (Entry(DAEMON_ID, str(python[DAEMON])), Entry(WORKLOAD_ID, str(python[WORKLOAD])))
    servers = (
        OpenBao.running(at / "openbao", lock=lock),
        Postgres.running(at / "postgres", lock=lock),
        WorkloadApi.running(
            at / "agent", [*own, *entries], socket=paths.workload_socket, trust=trust, lock=lock
        ),
    )
    try:
        async with asyncio.TaskGroup() as starting:
            asked = starting.create_task(recommended_revocation())
            bao = starting.create_task(exits.enter_async_context(servers[0]))
            postgres = starting.create_task(exits.enter_async_context(servers[1]))
            workload_api = starting.create_task(exits.enter_async_context(servers[2]))
    except ExceptionGroup as several:
        if any(not isinstance(error, StackError) for error in several.exceptions):
            raise
        raise StackError("; ".join(map(str, several.exceptions))) from several
    stack = Stack(paths, bao.result(), postgres.result(), workload_api.result(), python)
    return stack, asked.result()


def _write_files(stack: Stack, dead_man: timedelta) -> None:
    paths = stack.paths
    paths.config.write_text(config_text(paths, stack.bao.address, os.geteuid()))
    (paths.policy / "orders.yaml").write_text(policy_text(dead_man))
    paths.root_token.touch(0o600)
    paths.root_token.write_text(stack.bao.root_token.reveal())
