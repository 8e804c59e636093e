"""
What is compared: one task, its start and its proven end, made in four ways.

    bare      the list of calls below, straight to OpenBao
    proxy     the same list through `bao proxy`, which adds its own token where we send none
    two_call  read and revoke through the same proxy: what its users run today, without a task
              token, without a record, and without a look-up
    taskmint  two calls to the daemon, which makes the list

The list: a task token by role; the credential, minted with it; then revoke the credential, look it
up, revoke the token, look it up.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

from .http1 import Connection

_OK: Final = frozenset({200, 204})
_GONE: Final = frozenset({400, 403, 404})  # what OpenBao answers to a look-up of what is not there


class UnexpectedAnswer(Exception):
    """Raised when a call is not answered as it must be; the figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Kind:
    """
    One of the two tasks. `mint_path` is below /v1/; a `mint_body` makes it a POST.

    `two_call_path` is what a standing identity reads, or posts to, without a task. It is minted
    `mints` times, side by side.
    """

    name: str
    definition: str
    token_role: str
    token_policy: str
    mint_path: str
    mint_body: dict[str, Any] | None
    two_call_path: str
    mints: int = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from the start of a task to its credential, and to its proven end."""

    start: float
    whole: float


class Arm(Protocol):
    """One way to make a task."""

    async def task(
        self, connection: Connection, kind: Kind, beside: Sequence[Connection] = ()
    ) -> Timing:
        """
        Make one task and end it; `beside` are a connection more for each mint after the first.

        Raises UnexpectedAnswer, OSError.
        """


class Vault:
    """The calls that `bare`, `proxy` and `two_call` are made of; `standing` is a token or empty."""

    def __init__(self, connection: Connection, standing: str) -> None:
        self._connection = connection
        self._standing = _token_header(standing) if standing else ""

    async def create(self, kind: Kind) -> tuple[str, str]:
        """Make a task token by role; the token and its accessor."""
        body = {
            "policies": kind.token_policy,
            "display_name": "taskmint-bench-01k0000000000000000000000x",
            "meta": {
                "task": "tm_01k0000000000000000000000x",
                "spiffe_id": "spiffe://example.org/bench",
                "node": "bench",
            },
        }
        answer = await self._call("POST", f"auth/token/create/{kind.token_role}", body)
        return answer["auth"]["client_token"], answer["auth"]["accessor"]

    async def mint(self, kind: Kind, token: str) -> str:
        """Mint the credential with the task token; the lease id or the accessor."""
        method = "GET" if kind.mint_body is None else "POST"
        answer = await self._call(method, kind.mint_path, kind.mint_body, token=token)
        return str(answer["lease_id"] or answer["auth"]["accessor"])

    async def end(self, lease_or_accessor: str) -> None:
        """Revoke synchronously, and look up."""
        await self.revoke(lease_or_accessor)
        if "/" in lease_or_accessor:
            await self._call(
                "POST", "sys/leases/lookup", {"lease_id": lease_or_accessor}, gone=True
            )
        else:
            accessor = {"accessor": lease_or_accessor}
            await self._call("POST", "auth/token/lookup-accessor", accessor, gone=True)

    async def revoke(self, lease_or_accessor: str) -> None:
        """Revoke a lease synchronously, or a token by its accessor."""
        if "/" in lease_or_accessor:
            body = {"lease_id": lease_or_accessor, "sync": True}
            await self._call("POST", "sys/leases/revoke", body)
        else:
            body = {"accessor": lease_or_accessor}
            await self._call("POST", "auth/token/revoke-accessor", body)

    async def read_standing(self, kind: Kind) -> str:
        """Get the credential with the standing token; the lease id or the accessor."""
        method = "GET" if kind.mint_body is None else "POST"
        body: dict[str, Any] | None = None if kind.mint_body is None else {}
        answer = await self._call(method, kind.two_call_path, body)
        return str(answer["lease_id"] or answer["auth"]["accessor"])

    async def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        token: str = "",
        gone: bool = False,
    ) -> Any:
        encoded = b"" if body is None else json.dumps(body).encode()
        header = _token_header(token) if token else self._standing
        status, content = await self._connection.call(method, f"/v1/{path}", encoded, header)
        if status not in (_GONE if gone else _OK):
            raise UnexpectedAnswer(f"{method} {path}: {status} {content.decode()[:200]}")
        return json.loads(content) if content else None


@dataclass(frozen=True, slots=True)
class SixCalls:
    """`bare` with a standing token, `proxy` without one."""

    standing: str

    async def task(
        self, connection: Connection, kind: Kind, beside: Sequence[Connection] = ()
    ) -> Timing:
        """Make the list of calls."""
        vault = Vault(connection, self.standing)
        each = [vault, *(Vault(one, self.standing) for one in beside)]
        began = time.perf_counter()
        token, accessor = await vault.create(kind)
        credentials = await asyncio.gather(*(one.mint(kind, token) for one in each))
        started = time.perf_counter()
        ends = zip(each, credentials, strict=True)
        await asyncio.gather(*(one.end(credential) for one, credential in ends))
        await vault.end(accessor)
        return Timing(started - began, time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class TwoCalls:
    """`two_call`: the revocation is synchronous, so that its work falls into the same cell."""

    async def task(
        self, connection: Connection, kind: Kind, beside: Sequence[Connection] = ()
    ) -> Timing:
        """Read and revoke."""
        del beside
        vault = Vault(connection, "")
        began = time.perf_counter()
        credential = await vault.read_standing(kind)
        started = time.perf_counter()
        await vault.revoke(credential)
        return Timing(started - began, time.perf_counter() - began)


class Taskmint:
    """`taskmint`: the daemon's two calls; `svid` is set anew before each cell."""

    def __init__(self) -> None:
        self.svid = ""

    async def task(
        self, connection: Connection, kind: Kind, beside: Sequence[Connection] = ()
    ) -> Timing:
        """Start and end."""
        del beside
        began = time.perf_counter()
        task = await self.start(connection, kind)
        started = time.perf_counter()
        await self.end(connection, task)
        return Timing(started - began, time.perf_counter() - began)

    async def start(self, connection: Connection, kind: Kind) -> str:
        """Start a task; its id."""
        body = json.dumps({"task": kind.definition, "purpose": "benchmark"}).encode()
        answer = await self._call(connection, "POST", "/v1/tasks", HTTPStatus.CREATED, body)
        return str(answer["id"])

    async def end(self, connection: Connection, task: str) -> None:
        """End a task; returns when the daemon says that revocation is proven."""
        answer = await self._call(connection, "DELETE", f"/v1/tasks/{task}", HTTPStatus.OK)
        if answer["state"] != "revoked":
            raise UnexpectedAnswer(f"DELETE: state {answer['state']}")

    async def _call(
        self, connection: Connection, method: str, path: str, expected: int, body: bytes = b""
    ) -> Any:
        header = f"Authorization: Bearer {self.svid}\r\nX-Taskmint-Request: true\r\n"
        if body:
            header += "Content-Type: application/json\r\n"
        status, content = await connection.call(method, path, body, header)
        if status != expected:
            raise UnexpectedAnswer(f"{method} {path}: {status} {content.decode()[:300]}")
        return json.loads(content)


def _token_header(token: str) -> str:
    return f"X-Vault-Token: {token}\r\n"
