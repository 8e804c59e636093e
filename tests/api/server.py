"""The real HTTP stack on a Unix socket, over a task service among fakes."""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from taskmint.api.admin_api import AdminApi
from taskmint.api.admin_bodies import ReloadReply, Standing
from taskmint.api.approvals_api import ApprovalsApi
from taskmint.api.listener import ListenerLimits
from taskmint.api.roles import Holders, Members, Role
from taskmint.api.serving import serving_http
from taskmint.api.task_api import TaskApi
from taskmint.identity.peers import PeerReader, PidfdSource, require_present
from taskmint.ports import UNTRACED, Tracer
from taskmint.tasks.service import TaskService

from fakes.identity import BelievingIdentity
from tasks.world import REPORT, World

HEADERS = {"X-Taskmint-Request": "true", "Authorization": "Bearer /job"}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]


@dataclass
class Http:
    """A client of one socket."""

    session: aiohttp.ClientSession
    world: World
    service: TaskService
    path: str
    identity: BelievingIdentity = field(default_factory=BelievingIdentity)

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        """Send one request; headers default to those of an honest caller."""
        more.setdefault("headers", HEADERS)
        async with self.session.request(method, f"http://localhost{path}", **more) as reply:
            body = await reply.json(content_type=None) if reply.content_length else {}
            return Answer(reply.status, body, reply.headers)


@asynccontextmanager
async def task_socket(
    directory: Path,
    text: str = REPORT,
    world: World | None = None,
    tracer: Tracer = UNTRACED,
) -> AsyncIterator[Http]:
    """Serve the task API."""
    world, identity = world or World(), BelievingIdentity()
    async with world.running(text) as service:
        api = TaskApi(
            service,
            identity,
            {"identity": identity.ready, "vault": world.vault.ready, "ledger": world.ledger.ready},
            world.seen,
            structlog.stdlib.get_logger(),
            end_wait=timedelta(milliseconds=300),
            tracer=tracer,
        )
        async with _served(
            directory / "task.sock", lambda serving: api.application(serving, 65536)
        ) as session:
            yield Http(session, world, service, str(directory / "task.sock"), identity)


@asynccontextmanager
async def admin_socket(
    directory: Path,
    roles: Mapping[Role, Members],
    refuse: Exception | None = None,
    text: str = REPORT,
    world: World | None = None,
    source: PidfdSource = PidfdSource.PREFER,
) -> AsyncIterator[Http]:
    """Serve the admin API over the same kind of world."""
    world = world or World()

    async def reload() -> ReloadReply:
        if refuse is not None:
            raise refuse
        return ReloadReply(policy_digest="d", ended=0)

    async def nothing() -> bytes:
        return b"# nothing\n"

    async with world.running(text) as service:
        holders = Holders(roles, require_present, service.unproven)
        api = AdminApi(
            operators=service.operators,
            approvals=ApprovalsApi(
                service.approving, world.clock, holders, structlog.stdlib.get_logger()
            ),
            holders=holders,
            components={"vault": world.vault.ready},
            reload=reload,
            explain_as=service.explain_as,
            policy_digest=lambda: "d",
            standing=lambda: Standing(1.5, 0),
            metrics=nothing,
            node="node-a",
            version="0",
            observer=world.seen,
            log=structlog.stdlib.get_logger(),
        )
        async with _served(directory / "admin.sock", api.application, source) as session:
            yield Http(session, world, service, str(directory / "admin.sock"))


@asynccontextmanager
async def _served(
    path: Path, application: Any, source: PidfdSource = PidfdSource.PREFER
) -> AsyncIterator[aiohttp.ClientSession]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        async with (
            serving_http(
                listening,
                application,
                limits=ListenerLimits(drain=1),
                reader=PeerReader(source),
                inherited=False,
            ),
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(path)), auto_decompress=False
            ) as session,
        ):
            yield session
