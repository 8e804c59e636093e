"""The daemon as an asyncio program speaks to it: each call with this process's SVID."""

from collections.abc import Callable, Mapping
from typing import Any

from . import calls
from .errors import Refused
from .transport import exchange
from .workload_api import SvidSource


class DaemonApi:
    """
    Speaks to the daemon on `socket` as whoever `svid` says this process is.

    Every method returns the daemon's JSON and raises Unreachable, Interrupted, BadAnswer,
    Refused or NoIdentity.
    """

    def __init__(self, socket: str | None, svid: SvidSource) -> None:
        self._socket = socket or calls.default_socket()
        self._svid = svid

    async def token(self, *, fresh: bool = False) -> str:
        """Return the SVID to show; `fresh` asks its source again."""
        return await self._svid.token(fresh=fresh)

    async def start(self, body: Mapping[str, object], key: str) -> tuple[str, dict[str, Any]]:
        """Start a task, the same key the same one; also returns the SVID that proved us."""
        return await self._call(lambda token: calls.start(token, body, key), calls.START_SECONDS)

    async def heartbeat(self, task: str, token: str) -> dict[str, Any]:
        """Say that the task lives; the token re-proves who we are."""
        return await exchange(self._socket, calls.heartbeat(token, task), calls.HEARTBEAT_SECONDS)

    async def end(self, task: str, outcome: calls.Outcome) -> dict[str, Any]:
        """End a task: answered when revocation is proven, or is taking long."""
        _, answer = await self._call(
            lambda token: calls.end(token, task, outcome), calls.END_SECONDS
        )
        return answer

    async def _call(
        self, request: Callable[[str], bytes], seconds: float
    ) -> tuple[str, dict[str, Any]]:
        """Call; a refused token is replaced by a newer one, once."""
        token = await self.token()
        try:
            return token, await exchange(self._socket, request(token), seconds)
        except Refused as error:
            newer = await self.token(fresh=True) if calls.wants_another_token(error) else token
            if newer == token:
                raise
        return newer, await exchange(self._socket, request(newer), seconds)
