"""
A Vault that behaves, over real sockets: tokens own leases, look-ups tell the truth.

Faults are injected by path: each is consumed by the next request whose path begins with it. It
exists for what a real server does not do on demand: lie, redirect, or fall silent in mid-sentence.
"""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from aiohttp import web

from taskmint.policy.plan_objects import Plan
from taskmint.vault.rights import role_fields

Fault = Callable[[web.BaseRequest, web.StreamResponse], Awaitable[web.StreamResponse]]
PERMISSION_DENIED = "1 error occurred:\n\t* permission denied\n\n"


def errors(status: int, *texts: str, headers: dict[str, str] | None = None) -> web.Response:
    """An answer in Vault's form of errors."""
    return web.json_response({"errors": list(texts)}, status=status, headers=headers)


async def lose_the_reply(
    request: web.BaseRequest, answer: web.StreamResponse
) -> web.StreamResponse:
    """Do what was asked, then break the connection without a word."""
    assert request.transport is not None
    request.transport.abort()
    return answer


def answering(response: web.Response) -> Fault:
    """Answer this instead, whatever happened."""

    async def fault(request: web.BaseRequest, answer: web.StreamResponse) -> web.StreamResponse:
        del request, answer
        return response

    return fault


async def say_nothing(request: web.BaseRequest, answer: web.StreamResponse) -> web.StreamResponse:
    """Never answer, until the client goes."""
    assert request.transport is not None
    while not request.transport.is_closing():
        await asyncio.sleep(0.01)
    return answer


@dataclass
class FakeVaultServer:
    """
    `keeps_leases` answers 204 to a revocation and does nothing. `seen` are (method, path) in order.

    `life` is what logins and tokens are given, in seconds.
    """

    plan: Plan
    life: int = 60
    keeps_leases: bool = False
    address: str = ""
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)  # accessor -> token
    leases: dict[str, str] = field(default_factory=dict)  # lease -> owning token
    policies: dict[str, str] = field(default_factory=dict)
    roles: dict[str, dict[str, Any]] = field(default_factory=dict)
    daemon_policies: list[str] = field(default_factory=list)
    identity_policies: list[str] = field(default_factory=list)
    arrived: "defaultdict[str, asyncio.Event]" = field(
        default_factory=lambda: defaultdict(asyncio.Event)
    )
    numbers: "count[int]" = field(default_factory=count)

    def __post_init__(self) -> None:
        self.policies |= {name: policy.text for name, policy in self.plan.policies.items()}
        self.roles |= {name: role_fields(role) for name, role in self.plan.token_roles.items()}
        self.daemon_policies += sorted(self.plan.daemon_policies)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["FakeVaultServer"]:
        """Serve on a free loopback port."""
        runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.address = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def count(self, path: str) -> int:
        """How many requests came whose path begins like this."""
        return sum(seen.startswith(path) for _, seen in self.seen)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path_qs.removeprefix("/v1/")
        self.seen.append((request.method, path))
        self.headers.append(dict(request.headers))
        raw = await request.read()
        body = json.loads(raw) if raw else {}
        answer = self._answer(request, path, body)
        self.arrived[path].set()
        for index, (prefix, fault) in enumerate(self.faults):
            if path.startswith(prefix):
                del self.faults[index]
                return await fault(request, answer)
        return answer

    def _answer(
        self, request: web.BaseRequest, path: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        token = request.headers.get("X-Vault-Token")
        if path == "auth/jwt/login":
            return self._make_token(self.daemon_policies)
        if token not in self.tokens.values():
            return errors(403, "permission denied")
        if path.startswith("auth/token/create/"):
            return self._make_token([body["policies"]])
        for prefix, answer in (
            ("auth/token/roles/", self._role),
            ("auth/token/", partial(self._token, str(token))),
            ("sys/leases/", self._lease),
            ("sys/policies/acl/", self._policy),
        ):
            if path.startswith(prefix):
                return answer(path.removeprefix(prefix), body)
        if "/roles/" in path:
            return self._database_role()
        return self._make_lease(path, str(token))

    def _policy(self, name: str, body: dict[str, Any]) -> web.Response:
        del body
        text = self.policies.get(name)
        return errors(404) if text is None else web.json_response({"data": {"policy": text}})

    def _role(self, name: str, body: dict[str, Any]) -> web.Response:
        del body
        role = self.roles.get(name)
        return errors(404) if role is None else web.json_response({"data": role})

    def _database_role(self) -> web.Response:
        creation = "CREATE ROLE x VALID UNTIL '{{expiration}}'"
        data = {"default_ttl": self.life, "creation_statements": [creation]}
        return web.json_response({"data": data})

    def _make_token(self, policies: list[str]) -> web.Response:
        number = next(self.numbers)
        self.tokens[f"accessor-{number}"] = f"token-{number}"
        auth = {
            "client_token": f"token-{number}",
            "accessor": f"accessor-{number}",
            "lease_duration": self.life,
            "policies": policies,
            "orphan": True,
            "renewable": True,
        }
        return web.json_response({"auth": auth})

    def _token(self, token: str, what: str, body: dict[str, Any]) -> web.Response:
        accessor = body.get("accessor") or next(a for a, t in self.tokens.items() if t == token)
        if accessor not in self.tokens:
            if what == "revoke-accessor":
                return web.json_response({"warnings": ["No token found with this accessor"]})
            return errors(400, "1 error occurred:\n\t* invalid accessor\n\n")
        if what.startswith("revoke"):
            gone = self.tokens.pop(accessor)
            self.leases = {lease: owner for lease, owner in self.leases.items() if owner != gone}
            return web.Response(status=204)
        data = {"policies": self.daemon_policies, "identity_policies": self.identity_policies}
        return web.json_response({"data": data, "auth": {"lease_duration": self.life}})

    def _lease(self, what: str, body: dict[str, Any]) -> web.Response:
        lease = body["lease_id"]
        if what == "revoke":
            if not self.keeps_leases:
                self.leases.pop(lease, None)
            return web.Response(status=204 if body.get("sync") is True else 202)
        if lease not in self.leases:
            return errors(400, "invalid lease" if what == "lookup" else "lease not found")
        return web.json_response({"lease_duration": self.life, "data": {"id": lease}})

    def _make_lease(self, path: str, token: str) -> web.Response:
        lease = f"{path}/{next(self.numbers)}"
        self.leases[lease] = token
        return web.json_response(
            {
                "lease_id": lease,
                "lease_duration": self.life,
                "renewable": True,
                "data": {"username": "taskmint-x", "password": "not-a-secret"},
                "warnings": None,
            }
        )
