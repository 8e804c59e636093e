"""The admin socket: what operators and auditors call, by role from kernel peer credentials."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from aiohttp import web
from pydantic import BaseModel

from taskmint.errors import BadRequest, Code
from taskmint.model.scope import CallerFacts, RequestFacts
from taskmint.model.state import EndCause, TaskState
from taskmint.model.task_id import TaskId
from taskmint.ports import Observer
from taskmint.tasks.deciding import Explanation
from taskmint.tasks.operating import (
    Operators,
    Selector,
    by_definition,
    by_identity,
    by_task,
    by_ticket,
    everything,
)
from taskmint.tasks.task import EndedBy

from .admin_bodies import (
    ReloadReply,
    Standing,
    StatusReply,
    TasksReply,
    backlog_reply,
    detail_reply,
    operator_task,
    order_reply,
)
from .approvals_api import ApprovalsApi
from .bodies import RevokeBody, read, task_reply
from .explanation import ExplainAsBody, to_operator
from .gate import Serving, gate
from .json_body import parse_object
from .readiness import Components, readiness
from .roles import Holders, Role
from .task_api import END_WAIT, NUMBER

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus text format
ORDER_WAIT: Final = timedelta(seconds=1)
_SELECTORS: Final[Mapping[str, Callable[[str], Selector]]] = {
    "task": lambda text: by_task(TaskId(text)),
    "definition": by_definition,
    "ticket": by_ticket,
}


@dataclass(frozen=True, slots=True)
class AdminApi:
    """The handlers and what they need. `reload` raises ConfigError and leaves the old policy."""

    operators: Operators
    approvals: ApprovalsApi
    holders: Holders
    components: Components
    reload: Callable[[], Awaitable[ReloadReply]]
    explain_as: Callable[[CallerFacts, RequestFacts], Explanation]
    policy_digest: Callable[[], str]
    standing: Callable[[], Standing]
    metrics: Callable[[], Awaitable[bytes]]
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
                web.get("/v1/admin/tasks/{id}", self.task, allow_head=False),
                web.post("/v1/admin/tasks/{id}/end", self.end),
                web.post("/v1/admin/revoke", self.revoke),
                web.get("/v1/admin/revoke/{number}", self.order, allow_head=False),
                web.post("/v1/admin/reload", self.load_again),
                web.post("/v1/admin/explain", self.explain),
                web.get("/metrics", self.scrape, allow_head=False),
                *self.approvals.routes(),
            ]
        )
        return app

    async def status(self, request: web.Request) -> web.Response:
        """Components with reasons, and what is in force."""
        self.holders.require(request, Role.AUDITOR, Role.OPERATOR)
        figures, standing = self.operators.figures(), self.standing()
        return _json(
            StatusReply(
                ready=readiness(self.components),
                node=self.node,
                version=self.version,
                policy_digest=self.policy_digest(),
                uptime_seconds=round(standing.uptime_seconds, 3),
                rights_wider=list(standing.rights_wider),
                definitions_unapplied=sorted(standing.definitions_unapplied),
                live_tasks=figures.in_state(TaskState.ACTIVE),
                revoking_tasks=figures.in_state(TaskState.REVOKING),
                backlog=backlog_reply(figures, standing.ledger_queue),
            )
        )

    async def tasks(self, request: web.Request) -> web.Response:
        """List what is live."""
        self.holders.require(request, Role.AUDITOR, Role.OPERATOR)
        return _json(TasksReply(tasks=[operator_task(view) for view in self.operators.overview()]))

    async def task(self, request: web.Request) -> web.Response:
        """Show one task, live or lately ended."""
        self.holders.require(request, Role.AUDITOR, Role.OPERATOR)
        return _json(detail_reply(await self.operators.show(request.match_info["id"])))

    async def end(self, request: web.Request) -> web.Response:
        """End a task, whoever started it."""
        peer = self.holders.require(request, Role.OPERATOR)
        self.log.info("operator_end", task=request.match_info["id"], uid=peer.uid)
        by = EndedBy(peer.uid)
        view = await self.operators.end(request.match_info["id"], by, END_WAIT)
        status = 202 if view.state is TaskState.REVOKING else 200
        return web.Response(status=status, body=task_reply(view), content_type="application/json")

    async def revoke(self, request: web.Request) -> web.Response:
        """Pull the kill switch: 202 with the number of an order whose proof can be waited for."""
        peer = self.holders.require(request, Role.OPERATOR)
        body = read(RevokeBody, parse_object(await request.read()))
        name, value = body.selected()
        self.log.warning("operator_revoke", by=name, value=value, cause=body.cause, uid=peer.uid)
        by = EndedBy(peer.uid, body.reason)
        order = await self.operators.revoke(_selector(name, value), EndCause(body.cause), by)
        return _json(order_reply(order), 202)

    async def order(self, request: web.Request) -> web.Response:
        """How far an order to revoke has come; waits a second for it to come further."""
        self.holders.require(request, Role.OPERATOR, Role.AUDITOR)
        text = request.match_info["number"]
        number = int(text) if NUMBER.fullmatch(text) else 0  # which no order has
        return _json(order_reply(await self.operators.order(number, ORDER_WAIT)))

    async def load_again(self, request: web.Request) -> web.Response:
        """Load the policy files again: all or nothing."""
        peer = self.holders.require(request, Role.OPERATOR)
        self.log.info("operator_reload", uid=peer.uid)
        return _json(await self.reload())

    async def explain(self, request: web.Request) -> web.Response:
        """What a caller would be answered now, and why: the whole trace."""
        self.holders.require(request, Role.OPERATOR, Role.AUDITOR)
        body = read(ExplainAsBody, parse_object(await request.read()))
        return _json(to_operator(self.explain_as(body.caller(), body.facts())))

    async def scrape(self, request: web.Request) -> web.Response:
        """Prometheus text."""
        self.holders.require(request, Role.AUDITOR, Role.OPERATOR)
        return web.Response(body=await self.metrics(), headers={"Content-Type": METRICS_TYPE})


def _json(reply: BaseModel, status: int = 200) -> web.Response:
    body = reply.model_dump_json().encode()
    return web.Response(status=status, body=body, content_type="application/json")


def _selector(name: str, value: str) -> Selector:
    if name == "spiffe_id":
        try:
            return by_identity(value)
        except ValueError as error:
            raise BadRequest(
                Code.MALFORMED_REQUEST,
                f"spiffe_id: {error}",
                fix="write it as under `who` in a policy",
            ) from error
    return everything() if name == "all" else _SELECTORS[name](value)
