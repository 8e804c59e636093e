"""The daemon as an asyncio program speaks to it: each call with this process's SVID."""

from collections.abc import Callable, Mapping
from typing import Any

from . import calls
from .errors import Refused
from .proof import Proof, ProofSource
from .transport import exchange


class DaemonApi:
    """
    Speaks to the daemon on `socket` as whoever `svid` proves this process to be.

    Every method returns the daemon's JSON and raises Unreachable, Interrupted, BadAnswer,
    Refused, WrongDaemon or NoIdentity.
    """

    def __init__(self, socket: str | None, svid: ProofSource) -> None:
        self._socket = socket or calls.default_socket()
        self._svid = svid

    async def proof(self, *, fresh: bool = False) -> Proof:
        """Return the SVID to show; `fresh` asks its source again."""
        return await self._svid.proof(fresh=fresh)

    async def start(self, body: Mapping[str, object], key: str) -> tuple[Proof, dict[str, Any]]:
        """Start a task, the same key the same one; also returns what proved us."""
        return await self._call(lambda proof: calls.start(proof, body, key), calls.START_SECONDS)

    async def look(self, task: str) -> dict[str, Any]:
        """Show a request once it is approved or over, or as it is after half a minute."""
        _, answer = await self._call(lambda proof: calls.look(proof, task), calls.LOOK_SECONDS)
        return answer

    async def heartbeat(self, task: str, proof: Proof) -> dict[str, Any]:
        """Say that the task lives; the proof says anew who we are."""
        request = calls.heartbeat(proof, task)
        return await exchange(self._socket, request, calls.HEARTBEAT_SECONDS, proof.terms)

    async def end(self, task: str, outcome: calls.Outcome) -> dict[str, Any]:
        """End a task: answered when revocation is proven, or is taking long."""
        _, answer = await self._call(
            lambda proof: calls.end(proof, task, outcome), calls.END_SECONDS
        )
        return answer

    async def _call(
        self, request: Callable[[Proof], bytes], seconds: float
    ) -> tuple[Proof, dict[str, Any]]:
        """Call; a refused SVID is replaced by a newer one, once."""
        proof = await self.proof()
        try:
            return proof, await exchange(self._socket, request(proof), seconds, proof.terms)
        except Refused as error:
            newer = await self.proof(fresh=True) if calls.wants_another_svid(error) else proof
            if newer.shows(proof):
                raise
        return newer, await exchange(self._socket, request(newer), seconds, newer.terms)
