"""The daemon's listening sockets: from systemd when it passed them, else bound by ourselves."""

import grp
import socket
from collections.abc import AsyncIterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from taskmint.api.activation import SocketFile, bound_socket, sockets_from_systemd
from taskmint.config import SocketSettings
from taskmint.errors import Code, TaskmintError


@dataclass(frozen=True, slots=True)
class Sockets:
    """`inherited` says that callers may have queued before this process ran."""

    task: socket.socket
    admin: socket.socket
    inherited: bool


@asynccontextmanager
async def listening_sockets(
    settings: SocketSettings, environment: MutableMapping[str, str], door: str = "task"
) -> AsyncIterator[Sockets]:
    """
    Take systemd's sockets by their names, `door` and `admin`, or bind both.

    Raises TaskmintError: socket_in_use, config_invalid.
    """
    passed = sockets_from_systemd(environment)
    async with AsyncExitStack() as stack:
        for one in passed.values():
            stack.enter_context(one)
        if passed and set(passed) != {door, "admin"}:
            raise TaskmintError(
                Code.CONFIG_INVALID,
                f"systemd passed sockets named {', '.join(sorted(passed))}",
                fix=f"pass two, with FileDescriptorName={door} and FileDescriptorName=admin",
            )
        if passed:
            yield Sockets(passed[door], passed["admin"], inherited=True)
            return
        group = _group(settings.task_group)
        task = SocketFile(Path(settings.task), settings.task_mode, group)
        admin = SocketFile(Path(settings.admin), settings.admin_mode)
        yield Sockets(
            await stack.enter_async_context(bound_socket(task)),
            await stack.enter_async_context(bound_socket(admin)),
            inherited=False,
        )


def _group(name: str) -> int | None:
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise TaskmintError(
            Code.CONFIG_INVALID,
            f"sockets.task_group: there is no group {name}",
            fix=f"run groupadd --system {name}, or name another group",
        ) from None
