"""
The admin socket's part for approvals: what waits, what exactly, and statements brought to it.

A signed statement needs no role: its signature is its authority, and whoever can connect may carry
it. The task socket takes none: a workload has no business with approvals of its own requests.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

import structlog
from aiohttp import web
from pydantic import BaseModel, StringConstraints

from taskmint.errors import Code, NotFound
from taskmint.model.approval import Outcome, Statement
from taskmint.ports import Clock
from taskmint.tasks.approving import Approving
from taskmint.tasks.requests import Request
from taskmint.tasks.views import approval_view

from .bodies import ApprovalReply, Body, approval_reply, read
from .gate import PEER
from .json_body import parse_object
from .roles import Holders, Role

LOCAL_LIFE: Final = timedelta(minutes=1)  # what a local user says is weighed at once
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class StatementBody(Body):
    """`POST /v1/admin/approvals`: a signed statement, as a compact JWS."""

    statement: Annotated[str, StringConstraints(min_length=1, max_length=16_384)]


class LocalBody(Body):
    """`POST /v1/admin/approvals/local`: what an approver says by user id alone."""

    task: Annotated[str, StringConstraints(pattern=r"^tm_[0-9a-z]{26}$")]
    scope_digest: _Digest
    policy_digest: _Digest
    outcome: Literal["approve", "deny", "withdraw"]


class UnusualReply(BaseModel):
    """What is asked for beside what this identity got since the daemon started."""

    starts: int
    before: dict[str, int]
    never: list[str]


class WaitingReply(BaseModel):
    """One request, for those who may approve it; `approved_by` are principals."""

    id: str
    definition: str
    state: str
    asked_at: datetime
    approved_by: list[str]
    unusual: UnusualReply
    approval: ApprovalReply


class WaitingsReply(BaseModel):
    """Every request that waits, oldest first."""

    requests: list[WaitingReply]


@dataclass(frozen=True, slots=True)
class ApprovalsApi:
    """The handlers and what they need."""

    approving: Approving
    clock: Clock
    holders: Holders
    log: structlog.stdlib.BoundLogger

    def routes(self) -> list[web.RouteDef]:
        """What is served, and by whom."""
        return [
            web.get("/v1/admin/approvals", self.overview, allow_head=False),
            web.get("/v1/admin/approvals/{id}", self.show, allow_head=False),
            web.post("/v1/admin/approvals", self.bring),
            web.post("/v1/admin/approvals/local", self.say),
        ]

    async def overview(self, request: web.Request) -> web.Response:
        """List what waits."""
        self._require_reader(request)
        waiting = [self._reply(one) for one in self.approving.waiting_now()]
        return _json(WaitingsReply(requests=waiting))

    async def show(self, request: web.Request) -> web.Response:
        """Show one request, waiting or lately over."""
        self._require_reader(request)
        found = self.approving.find(request.match_info["id"])
        if found is None:
            raise NotFound(
                Code.TASK_NOT_FOUND, "no such request", fix="see `taskmint approvals list`"
            )
        return _json(self._reply(found))

    async def bring(self, request: web.Request) -> web.Response:
        """Weigh a signed statement, whoever brings it."""
        body = read(StatementBody, parse_object(await request.read()))
        uid = request[PEER].uid
        return _json(self._reply(await self.approving.receive(uid, body.statement)))

    async def say(self, request: web.Request) -> web.Response:
        """Weigh what an approver says by user id, where that is switched on."""
        peer = self.holders.require(request, Role.APPROVER)
        body = read(LocalBody, parse_object(await request.read()))
        statement = Statement(
            task=body.task,
            scope_digest=body.scope_digest,
            policy_digest=body.policy_digest,
            outcome=Outcome(body.outcome),
            not_after=self.clock.utcnow() + LOCAL_LIFE,
            jti=secrets.token_urlsafe(16),
        )
        return _json(self._reply(await self.approving.receive_local(peer.uid, statement)))

    def _require_reader(self, request: web.Request) -> None:
        self.holders.require(request, Role.APPROVER, Role.OPERATOR, Role.AUDITOR)

    def _reply(self, request: Request) -> WaitingReply:
        unusual = self.approving.unusual(request)
        return WaitingReply(
            id=request.id,
            definition=request.scope.definition,
            state=(request.task.state if request.task is not None else request.state).value,
            asked_at=request.asked_at,
            approved_by=[one.approver.principal for one in request.tally.approvals],
            unusual=UnusualReply(
                starts=unusual.starts, before=dict(unusual.before), never=[*unusual.never]
            ),
            approval=approval_reply(approval_view(request)),
        )


def _json(reply: BaseModel) -> web.Response:
    return web.Response(body=reply.model_dump_json().encode(), content_type="application/json")
