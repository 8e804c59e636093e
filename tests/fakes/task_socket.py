"""A task socket that behaves as the daemon's does, keeps what it was asked, and can misbehave."""

import asyncio
import contextlib
import itertools
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

Credentials = dict[str, dict[str, Any]]


@dataclass
class Asked:
    """One request as it arrived."""

    what: str  # "start", "heartbeat", "end"
    token: str  # or "" over TLS
    headers: dict[str, str]
    body: Any = None
    outcome: str = ""
    leaf: bytes | None = None  # the caller's certificate, over TLS


@dataclass
class FakeTask:
    """One task of the fake; `end_cause` is None while it is active."""

    id: str
    key: str | None
    end_cause: str | None = None
    waits: str | None = None  # for an approval: its state; None once it is collected


@dataclass
class FakeDaemon:
    """Set the knobs before the request they are meant for."""

    socket: Path
    terms: ssl.SSLContext | None = None  # speaks TLS where there are any
    credentials: Credentials = field(default_factory=dict)
    heartbeat_seconds: float | None = None
    reprove_seconds: float | None = None
    asked: list[Asked] = field(default_factory=list)
    tasks: dict[str, FakeTask] = field(default_factory=dict)
    # Each is used up by one request: a response instead of the right one, or a broken connection
    # after the right thing was done.
    answers: deque[tuple[str, Callable[[], web.Response]]] = field(default_factory=deque)
    breaks: deque[str] = field(default_factory=deque)
    minting: asyncio.Event | None = None  # when set, a start waits for it
    proven: bool = True
    approval: bool = False  # what is started needs one
    within: timedelta = timedelta(minutes=30)
    polls_at_once: bool = False  # a look is answered at once, whatever it waits for
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _ids: Any = field(default_factory=itertools.count)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeDaemon"]:
        """Serve on the socket."""
        app = web.Application()
        app.add_routes(
            [
                web.post("/v1/tasks", self._start),
                web.get("/v1/tasks/{id}", self._look),
                web.post("/v1/tasks/{id}/heartbeat", self._heartbeat),
                web.delete("/v1/tasks/{id}", self._end),
            ]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        await web.UnixSite(runner, str(self.socket), ssl_context=self.terms).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a request has made something true."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(condition)

    def count(self, what: str) -> int:
        """How many requests of a kind came."""
        return sum(asked.what == what for asked in self.asked)

    def refuse(self, what: str, status: int, code: str, **headers: str) -> None:
        """Answer the next request of a kind with a problem."""
        self.answers.append((what, lambda: self._problem(status, code, **headers)))

    @staticmethod
    def _problem(status: int, code: str, **headers: str) -> web.Response:
        body = {
            "type": f"urn:taskmint:error:{code}",
            "status": status,
            "code": code,
            "detail": f"refused: {code}",
            "fix": "do as the fake says",
            "errors": [f"refused: {code}"],
        }
        return web.json_response(
            body, status=status, content_type="application/problem+json", headers=headers
        )

    async def _note(self, request: web.Request, what: str, **more: Any) -> None:
        assert request.headers.get("X-Taskmint-Request") == "true"
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        session = request.get_extra_info("ssl_object")
        assert scheme == ("Bearer" if session is None else "")
        leaf = None if session is None else session.getpeercert(binary_form=True)
        async with self.changed:
            self.asked.append(Asked(what, token, dict(request.headers), leaf=leaf, **more))
            self.changed.notify_all()
        if self.answers and self.answers[0][0] == what:
            raise _Instead(self.answers.popleft()[1]())

    async def _start(self, request: web.Request) -> web.StreamResponse:
        try:
            await self._note(request, "start", body=await request.json())
        except _Instead as instead:
            return instead.response
        if self.minting is not None:
            await self.minting.wait()
        key = request.headers.get("Idempotency-Key")
        task = next((task for task in self.tasks.values() if key and task.key == key), None)
        if task is None:
            task = FakeTask(f"tm_{next(self._ids):026d}", key)
            task.waits = "awaiting_approval" if self.approval else None
            self.tasks[task.id] = task
        if task.waits == "awaiting_approval":
            return self._answer(request, "start", 202, self._view(task))
        if task.waits not in {None, "approved"}:
            return self._problem(409, "task_ended")
        task.waits = None
        return self._answer(request, "start", 201, {**self._view(task), **self._given()})

    async def _look(self, request: web.Request) -> web.StreamResponse:
        try:
            await self._note(request, "look")
        except _Instead as instead:
            return instead.response
        assert request.query["wait"] == "30s"
        task = self.tasks[request.match_info["id"]]
        if not self.polls_at_once:
            async with self.changed:
                await self.changed.wait_for(lambda: task.waits != "awaiting_approval")
        return self._answer(request, "look", 200, self._view(task))

    async def decide(self, state: str) -> None:
        """Let every request that waits be approved, or over."""
        async with self.changed:
            for task in self.tasks.values():
                task.waits = task.waits and state
            self.changed.notify_all()

    async def _heartbeat(self, request: web.Request) -> web.StreamResponse:
        try:
            await self._note(request, "heartbeat")
        except _Instead as instead:
            return instead.response
        task = self.tasks[request.match_info["id"]]
        return self._answer(request, "heartbeat", 200, self._view(task))

    async def _end(self, request: web.Request) -> web.StreamResponse:
        try:
            await self._note(request, "end", outcome=request.query["outcome"])
        except _Instead as instead:
            return instead.response
        task = self.tasks[request.match_info["id"]]
        task.end_cause = task.end_cause or request.query["outcome"]
        async with self.changed:
            task.waits = task.waits and "failed"
            self.changed.notify_all()
        return self._answer(request, "end", 200 if self.proven else 202, self._view(task))

    def _answer(
        self, request: web.Request, what: str, status: int, body: dict[str, Any]
    ) -> web.StreamResponse:
        if self.breaks and self.breaks[0] == what:
            self.breaks.popleft()
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(body, status=status)

    def _view(self, task: FakeTask) -> dict[str, Any]:
        ended = "revoked" if self.proven else "revoking"
        now = datetime.now(UTC)
        return {
            "id": task.id,
            "definition": "fake",
            "state": task.waits or (ended if task.end_cause else "active"),
            "expires_at": (now + timedelta(minutes=5)).isoformat().replace("+00:00", "Z"),
            "guaranteed_until": (now + timedelta(minutes=1)).isoformat().replace("+00:00", "Z"),
            "heartbeat_seconds": self.heartbeat_seconds,
            "reprove_seconds": self.reprove_seconds,
            "end_cause": task.end_cause,
            "revocation_seconds": 0.01 if task.end_cause and self.proven else None,
            "credentials": None,
            "approval": self._approval(task, now) if task.waits else None,
        }

    def _approval(self, task: FakeTask, now: datetime) -> dict[str, Any]:
        return {
            "approvers": ["group:leads", "user:dpo"],
            "quorum": 2,
            "given": 0,
            "until": (now + self.within).isoformat().replace("+00:00", "Z"),
            "plan": {"task": task.id, "purpose": "totals"},
            "scope_digest": "0" * 64,
            "policy_digest": "1" * 64,
            "why": "",
        }

    def _given(self) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return {
            "credentials": {
                name: {
                    "kind": "secret",
                    "data": data,
                    "revocable": True,
                    "expires_at": now,
                    "warnings": ["capped"],
                }
                for name, data in self.credentials.items()
            }
        }


class _Instead(Exception):
    def __init__(self, response: web.Response) -> None:
        super().__init__()
        self.response = response
