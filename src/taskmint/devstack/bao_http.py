"""
The few HTTP calls that setting up an OpenBao takes, as an administrator would make them.

It is not the daemon's client: it knows nothing of plans, and its token is an administrator's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp

from taskmint.model.secret import Secret

from .process import StackError


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; `body` is {} when the server sent none."""

    status: int
    body: Mapping[str, Any]

    @property
    def data(self) -> Mapping[str, Any]:
        """The `data` object of Vault's envelope, {} when absent."""
        return self.body.get("data") or {}

    @property
    def errors(self) -> tuple[str, ...]:
        """Vault's own error sentences."""
        return tuple(self.body.get("errors") or ())


class BaoHttp:
    """One session to one server; `token` goes with every call."""

    def __init__(self, address: str, token: Secret[str] | None = None) -> None:
        self._address = address
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # trust_env stays off: a proxy has no business between us and the loopback address
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> Answer:
        """
        Make one call below /v1/ and return whatever the server answers.

        Raises OSError or aiohttp.ClientError when it does not answer.
        """
        if self._session is None:
            raise AssertionError("enter the context first")
        headers = {"X-Vault-Request": "true"}
        if self._token is not None:
            headers["X-Vault-Token"] = self._token.reveal()
        async with self._session.request(
            method, f"{self._address}/v1/{path}", json=body, headers=headers, allow_redirects=False
        ) as response:
            text = await response.read()
            return Answer(response.status, await response.json() if text else {})

    async def call(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> Answer:
        """Make a call that must succeed. Raises StackError with Vault's own words."""
        answer = await self.send(method, path, body)
        if answer.status not in {HTTPStatus.OK, HTTPStatus.NO_CONTENT}:
            words = "; ".join(answer.errors) or "no reason given"
            raise StackError(f"OpenBao: {method} {path}: {answer.status}: {words}")
        return answer
