"""The admin socket: what operators and auditors call, by role from kernel peer credentials."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog
from aiohttp import web
from pydantic import BaseModel

from taskmint.errors import Code, Denied
from taskmint.model.peer import Peer
from taskmint.model.state import TaskState
from taskmint.ports import Observer
from taskmint.tasks.service import TaskService

from .bodies import ReadyReply, task_reply
from .gate import PEER, Serving, gate
from .readiness import Components, readiness
from .task_api import END_WAIT


class Role(StrEnum):
    """Who may do what on the admin socket (decisions.md, admin roles)."""

    OPERATOR = "operator"
    APPROVER = "approver"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Members:
    """The uids and gids that hold a role."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()


class OperatorTask(BaseModel):
    """A task as operators and auditors see it; never a lease id or an accessor."""

    id: str
    definition: str
    state: str
    spiffe_id: str
    uid: int
    started_seconds_ago: float
    expires_at: str
    end_cause: str | None
    user_names: list[str]
    revocation_attempts_failed: int
    last_problem: str


class TasksReply(BaseModel):
    """Every task that is not over, oldest first."""

    tasks: list[OperatorTask]


class StatusReply(BaseModel):
    """Whether the daemon can do its work."""

    ready: ReadyReply
    node: str
    version: str
    policy_digest: str
    live_tasks: int
    revoking_tasks: int


class ReloadReply(BaseModel):
    """What a reload did: the digest now in force, and how many tasks it ended."""

    policy_digest: str
    ended: int


@dataclass(frozen=True, slots=True)
class AdminApi:
    """The handlers and what they need. `reload` raises ConfigError and leaves the old policy."""

    service: TaskService
    roles: Mapping[Role, Members]
    components: Components
    reload: Callable[[], Awaitable[ReloadReply]]
    policy_digest: Callable[[], str]
    metrics: Callable[[], bytes]
    node: str
    version: str
    observer: Observer
    log: structlog.stdlib.BoundLogger

    def application(self, serving: Serving) -> web.Application:
        """Build the aiohttp application."""
        app = web.Application(
            middlewares=[gate(serving, self.observer, self.log)], client_max_size=65536
        )
        app.add_routes(
            [
                web.get("/v1/admin/status", self.status, allow_head=False),
                web.get("/v1/admin/tasks", self.tasks, allow_head=False),
                web.post("/v1/admin/tasks/{id}/end", self.end),
                web.post("/v1/admin/reload", self.load_again),
                web.get("/metrics", self.scrape, allow_head=False),
            ]
        )
        return app

    async def status(self, request: web.Request) -> web.Response:
        """Components with reasons, and what is in force."""
        self._require(request, Role.AUDITOR, Role.OPERATOR)
        states = [view.state for view in self.service.overview()]
        return _json(
            StatusReply(
                ready=readiness(self.components),
                node=self.node,
                version=self.version,
                policy_digest=self.policy_digest(),
                live_tasks=states.count(TaskState.ACTIVE),
                revoking_tasks=states.count(TaskState.REVOKING),
            )
        )

    async def tasks(self, request: web.Request) -> web.Response:
        """List what is live."""
        self._require(request, Role.AUDITOR, Role.OPERATOR)
        return _json(
            TasksReply(
                tasks=[
                    OperatorTask(
                        id=view.id,
                        definition=view.definition,
                        state=view.state.value,
                        spiffe_id=view.spiffe_id,
                        uid=view.uid,
                        started_seconds_ago=round(view.started_seconds_ago, 3),
                        expires_at=view.expires_at.isoformat(),
                        end_cause=view.cause.value if view.cause else None,
                        user_names=list(view.user_names),
                        revocation_attempts_failed=view.attempts_failed,
                        last_problem=view.last_problem,
                    )
                    for view in self.service.overview()
                ]
            )
        )

    async def end(self, request: web.Request) -> web.Response:
        """End a task, whoever started it."""
        peer = self._require(request, Role.OPERATOR)
        self.log.info("operator_end", task=request.match_info["id"], uid=peer.uid)
        view = await self.service.end_as_operator(request.match_info["id"], END_WAIT)
        status = 202 if view.state is TaskState.REVOKING else 200
        return web.Response(status=status, body=task_reply(view), content_type="application/json")

    async def load_again(self, request: web.Request) -> web.Response:
        """Load the policy files again: all or nothing."""
        peer = self._require(request, Role.OPERATOR)
        self.log.info("operator_reload", uid=peer.uid)
        return _json(await self.reload())

    async def scrape(self, request: web.Request) -> web.Response:
        """Prometheus text."""
        self._require(request, Role.AUDITOR, Role.OPERATOR)
        return web.Response(body=self.metrics(), content_type="text/plain")

    def _require(self, request: web.Request, *roles: Role) -> Peer:
        peer = request[PEER]
        for role in roles:
            members = self.roles.get(role, Members())
            if peer.uid in members.uids or peer.gid in members.gids:
                return peer
        raise Denied(
            Code.ROLE_MISSING,
            f"uid {peer.uid} holds none of the roles {', '.join(roles)}",
            fix="add it under admin.roles in the daemon's config",
        )


def _json(reply: BaseModel) -> web.Response:
    return web.Response(body=reply.model_dump_json().encode(), content_type="application/json")
