"""The calls of the task socket that a workload makes, each with this process's SVID."""

import json
import os
from collections.abc import Mapping
from typing import Any, Final, Literal

from .errors import Refused
from .transport import call
from .workload_api import SvidSource

SOCKET_VARIABLE: Final = "TASKMINT_SOCKET"
DEFAULT_SOCKET: Final = "/run/taskmint/task.sock"

Outcome = Literal["succeeded", "failed", "cancelled"]

_START_SECONDS: Final = 70.0  # the daemon gives up minting after 60
_HEARTBEAT_SECONDS: Final = 10.0
_END_SECONDS: Final = 10.0  # the daemon answers 202 after 8
_UNAUTHORIZED: Final = 401


class DaemonApi:
    """
    Speaks to the daemon on `socket` as whoever `svid` says this process is.

    Every method returns the daemon's JSON and raises Unreachable, Interrupted, BadAnswer,
    Refused or NoIdentity.
    """

    def __init__(self, socket: str | None, svid: SvidSource) -> None:
        self._socket = socket or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
        self._svid = svid

    async def token(self, *, fresh: bool = False) -> str:
        """Return the SVID to show; `fresh` asks its source again."""
        return await self._svid.token(fresh=fresh)

    async def start(self, body: Mapping[str, Any], key: str) -> dict[str, Any]:
        """`POST /v1/tasks`; the same key starts the same task."""
        return await self._call("POST", "/v1/tasks", body=body, key=key, seconds=_START_SECONDS)

    async def heartbeat(self, task: str, token: str) -> dict[str, Any]:
        """`POST /v1/tasks/{id}/heartbeat`; the token re-proves who we are."""
        return await self._once(
            token, "POST", f"/v1/tasks/{task}/heartbeat", seconds=_HEARTBEAT_SECONDS
        )

    async def end(self, task: str, outcome: Outcome) -> dict[str, Any]:
        """`DELETE /v1/tasks/{id}`: answers when revocation is proven, or is taking long."""
        return await self._call(
            "DELETE", f"/v1/tasks/{task}?outcome={outcome}", seconds=_END_SECONDS
        )

    async def _call(self, method: str, target: str, **more: Any) -> dict[str, Any]:
        """Call; a refused token is replaced by a new one from its source, once."""
        token = await self.token()
        try:
            return await self._once(token, method, target, **more)
        except Refused as error:
            if error.status != _UNAUTHORIZED:
                raise
            newer = await self.token(fresh=True)
            if newer == token:
                raise
        return await self._once(newer, method, target, **more)

    async def _once(
        self,
        token: str,
        method: str,
        target: str,
        *,
        seconds: float,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        content = b""
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        if key is not None:
            headers["Idempotency-Key"] = key
        return await call(
            self._socket, method, target, headers=headers, body=content, seconds=seconds
        )
