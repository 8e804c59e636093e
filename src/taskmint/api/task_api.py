"""The task socket: what workloads call. Decode, call, encode."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from aiohttp import web

from taskmint.canonical import digest
from taskmint.errors import BadRequest, Code, Unproven
from taskmint.model.caller import Caller
from taskmint.model.secret import Secret
from taskmint.model.state import EndCause, TaskState
from taskmint.ports import UNTRACED, Identity, Observer, Presented, Tracer
from taskmint.tasks.service import TaskService
from taskmint.tasks.task import IdempotencyKey

from .bodies import ChangeBody, HealthReply, StartBody, read, task_reply
from .connection import CHAIN, CONNECTION
from .events import stream
from .explanation import to_caller
from .gate import PEER, Serving, gate
from .json_body import parse_object
from .readiness import Components, readiness

LONGEST_WAIT: Final = timedelta(seconds=60)
END_WAIT: Final = timedelta(seconds=8)
_DURATION = re.compile(r"(\d{1,6})(ms|s|m)", re.ASCII)
NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_UNIT_MILLISECONDS: Final = {"ms": 1, "s": 1000, "m": 60_000}
_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_OUTCOMES: Final[Mapping[str, EndCause]] = {
    "succeeded": EndCause.SUCCEEDED,
    "failed": EndCause.FAILED,
    "cancelled": EndCause.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class TaskApi:
    """The handlers and what they need."""

    service: TaskService
    identity: Identity
    components: Components
    observer: Observer
    log: structlog.stdlib.BoundLogger
    end_wait: timedelta = END_WAIT
    tracer: Tracer = UNTRACED

    def application(self, serving: Serving, body_bytes: int) -> web.Application:
        """Build the aiohttp application."""
        app = web.Application(
            middlewares=[gate(serving, self.observer, self.log, self.tracer)],
            client_max_size=body_bytes,
        )
        app.add_routes(
            [
                web.post("/v1/tasks", self.start),
                web.get("/v1/tasks/{id}", self.show, allow_head=False),
                web.get("/v1/tasks/{id}/events", self.events, allow_head=False),
                web.post("/v1/tasks/{id}/heartbeat", self.heartbeat),
                web.patch("/v1/tasks/{id}", self.change),
                web.delete("/v1/tasks/{id}", self.end),
                web.post("/v1/explain", self.explain),
                web.get("/v1/health", self.health, allow_head=False),
                web.get("/v1/ready", self.ready, allow_head=False),
            ]
        )
        return app

    async def start(self, request: web.Request) -> web.Response:
        """Decide and mint: 201 with credentials; 202 while it waits for an approval."""
        caller = await self._caller(request)
        body = parse_object(await request.read())
        facts = read(StartBody, body).facts()
        key = _idempotency_key(request, digest(body))
        view = await self.service.start(caller, facts, key)
        try:
            self.identity.require_present(caller.peer)
        except Unproven:
            self.service.undelivered(view)
            raise
        if request[CONNECTION].hung_up:
            self.service.undelivered(view)
        waits = view.state is TaskState.AWAITING_APPROVAL
        return _json(202 if waits else 201, task_reply(view))

    async def explain(self, request: web.Request) -> web.Response:
        """What a start would be granted, without one; a refusal is the start's."""
        caller = await self._caller(request)
        body = read(StartBody, parse_object(await request.read()))
        return _json(200, to_caller(body.task, self.service.explain(caller, body.facts())))

    async def show(self, request: web.Request) -> web.Response:
        """State; with `wait`, after it has ended or the time is over."""
        caller = await self._caller(request)
        wait = _duration(request.query.get("wait", "0s"))
        view = await self.service.show(caller, request.match_info["id"], wait)
        self.identity.require_present(caller.peer)
        return _json(200, task_reply(view))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Every change as it happens; the connection that a task may be bound to."""
        caller = await self._caller(request)
        following = await self.service.follow(caller, request.match_info["id"])
        return await stream(request, following)

    async def change(self, request: web.Request) -> web.Response:
        """Decide anew: 200 with the credentials of another revision."""
        caller = await self._caller(request)
        body = parse_object(await request.read() or b"{}")
        change = read(ChangeBody, body)
        key = _idempotency_key(request, digest(body))
        task_id = request.match_info["id"]
        view = await self.service.change(caller, task_id, change.applied_to, key)
        self.identity.require_present(caller.peer)
        return _json(200, task_reply(view))

    async def heartbeat(self, request: web.Request) -> web.Response:
        """Still alive, with the credentials of `revision`; the SVID re-proves the identity."""
        caller = await self._caller(request)
        revision = _revision(request.query.get("revision", "1"))
        view = await self.service.heartbeat(caller, request.match_info["id"], revision)
        return _json(200, task_reply(view))

    async def end(self, request: web.Request) -> web.Response:
        """End: 200 when revocation is proven, 202 while it is not."""
        caller = await self._caller(request)
        outcome = request.query.get("outcome", "succeeded")
        if outcome not in _OUTCOMES:
            raise BadRequest(
                Code.MALFORMED_REQUEST,
                "outcome is not one of succeeded, failed, cancelled",
                fix="leave it out, or use one of these",
            )
        view = await self.service.end(
            caller, request.match_info["id"], _OUTCOMES[outcome], self.end_wait
        )
        return _json(200 if view.state is not TaskState.REVOKING else 202, task_reply(view))

    async def health(self, request: web.Request) -> web.Response:
        """Live: the process answers."""
        del request
        return _json(200, HealthReply(status="live").model_dump_json().encode())

    async def ready(self, request: web.Request) -> web.Response:
        """Ready: tasks can be started now; 503 with the reasons otherwise."""
        del request
        reply = readiness(self.components)
        return _json(200 if reply.status == "ready" else 503, reply.model_dump_json().encode())

    async def _caller(self, request: web.Request) -> Caller:
        try:
            presented = Presented(_bearer(request), request[CHAIN])
            return await self.identity.identify(presented, request[PEER])
        except Unproven as error:
            self.service.unproven(request[PEER], error)
            raise


def _bearer(request: web.Request) -> Secret[str] | None:
    """
    Return the token, None where no credential is shown at all. Raises Unproven(credential_invalid).

    Another scheme's credential is one: its caller is not to be taken for one that shows nothing.
    """
    shown = request.headers.getall("Authorization", [])
    if not shown:
        return None
    scheme, _, token = shown[0].partition(" ")
    if len(shown) > 1 or scheme.lower() != "bearer" or not token:
        raise Unproven(
            Code.CREDENTIAL_INVALID,
            "The request's Authorization is not one bearer token.",
            fix="send Authorization: Bearer once, with a JWT-SVID for this daemon's audience",
        )
    return Secret(token)


def _json(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


def _idempotency_key(request: web.Request, body_digest: str) -> IdempotencyKey | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise BadRequest(
            Code.MALFORMED_REQUEST,
            "Idempotency-Key is not 1 to 255 visible ASCII characters",
            fix="use a UUID",
        )
    return IdempotencyKey(hashlib.sha256(key.encode()).hexdigest(), body_digest)


def _revision(text: str) -> int:
    if not NUMBER.fullmatch(text):
        raise BadRequest(
            Code.MALFORMED_REQUEST,
            "revision is not a number from 1",
            fix="send the one that came with the credentials",
        )
    return int(text)


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise BadRequest(
            Code.MALFORMED_REQUEST, "wait is not a duration", fix="write it as 30s or 500ms"
        )
    span = timedelta(milliseconds=int(found[1]) * _UNIT_MILLISECONDS[found[2]])
    return min(span, LONGEST_WAIT)
