"""
The SPIFFE Workload API in, a current picture of whom to believe and our own JWT-SVIDs out.

Asynchronous and unending: no agent at the start, an agent that goes away, refuses, cancels, ends
its streams or comes back on a new socket are all the same to it, and it tries again for ever.
What it last heard stays usable for `max_age` while the agent is away, and not a moment after the
agent withdrew it. It verifies nobody.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self

import structlog

from taskmint.errors import Code, Unavailable
from taskmint.model.secret import Secret
from taskmint.model.spiffe import SpiffeId
from taskmint.ports import Clock
from taskmint.strict_json import decode_object

from ._workload_proto import grpc, messages, open_stub
from .agent_socket import NOTHING_THERE, AgentSocket, heard_at
from .changes import Changes
from .channel import (
    CHANNEL_OPTIONS,
    StreamLost,
    answers,
    being_cancelled,
    code_of,
)
from .jwt_bundle import decode_base64url
from .trust import Said, Trust, read_jwt_bundles, read_x509_context

_log = structlog.get_logger()

_METADATA: Final = (("workload.spiffe.io", "true"),)  # SPIFFE Workload Endpoint, section 5
_UNREADABLE: Final = "UNREADABLE"
_NO_JWT: Final = "the Workload API gave no JWT bundle that can be read"
_NO_X509: Final = "the Workload API gave no X.509-SVID and bundle that can be read"
_FIRST_PAUSE: Final = 0.1  # seconds before a stream is opened again; doubles
_LONGEST_PAUSE: Final = 2.0
_LOOK_FOR_SOCKET: Final = 0.3  # seconds between looks while there is none
_LOOK_AT_SOCKET: Final = 1.0  # seconds between looks for a new socket


class Absence(StrEnum):
    """Why nothing is known from the agent; `ready` says it in a sentence."""

    SILENT = "silent"  # it has not answered yet
    AWAY = "away"
    REFUSED = "refused"  # it knows no identity for us
    UNTRUSTED = "untrusted"  # others may have made its socket
    EMPTY = "empty"  # nothing that it says can be read


_DISBELIEVED: Final = {
    "PERMISSION_DENIED": (
        Absence.REFUSED,
        "the Workload API refuses this daemon an identity",
    ),
    _UNREADABLE: (Absence.EMPTY, "what the Workload API says cannot be read"),
}


@dataclass(frozen=True, slots=True)
class FetchedJwtSvid:
    """A JWT-SVID of our own."""

    token: Secret[str]
    spiffe_id: SpiffeId
    expires_at: datetime


class _Stream:
    """Whether a stream stands, and if not, since when and why."""

    def __init__(self, name: str, why_empty: str, clock: Clock) -> None:
        self.name = name
        self.message: Any = None  # the last one that was read: the same again changes nothing
        self.why_not = "the Workload API has not answered yet"
        self.absence = Absence.SILENT
        self._why_empty = why_empty
        self._clock = clock
        self._standing = False
        self._lost_at: float | None = None

    def stands(self, message: Any) -> None:
        """Note a message that was read."""
        self.message, self.why_not, self.absence = message, self._why_empty, Absence.EMPTY
        self._standing, self._lost_at = True, None

    def interrupted(self) -> None:
        """Note that nobody stands behind the last message from now on."""
        if self._standing:
            self._standing, self._lost_at = False, self._clock.boottime()

    def lost(self, reason: str, absence: Absence = Absence.AWAY) -> None:
        """Note why."""
        if reason in _DISBELIEVED:
            self.message = None
            self.absence, self.why_not = _DISBELIEVED[reason]
        elif self.message is None:
            self.absence, self.why_not = absence, f"the Workload API is away ({reason})"

    def age(self) -> float:
        """Seconds since the agent last stood behind its last message; 0 while it does."""
        if self._standing:
            return 0.0
        return float("inf") if self._lost_at is None else self._clock.boottime() - self._lost_at


class WorkloadApi:
    """
    Follows an agent's streams while entered.

    `endpoint` is `unix:///path` (SPIFFE Workload Endpoint, section 4); `max_age` bounds, in
    seconds, how long bundles are believed while nobody confirms them. Every `ask_every` seconds
    the agent must give a sign of life within `deadline`. `agent_uid` may own its socket, beside
    root and ourselves.
    """

    def __init__(
        self,
        endpoint: str,
        clock: Clock,
        *,
        max_age: float = 3600.0,
        deadline: float = 5.0,
        ask_every: float = 10.0,
        agent_uid: int | None = None,
    ) -> None:
        self.trust = Trust()
        self._endpoint = endpoint
        self._max_age = max_age
        self._deadline = deadline
        self._ask_every = ask_every
        self._agent_uid = agent_uid
        self._seen = NOTHING_THERE
        self._channel: Any = None
        self._following: asyncio.Task[None] | None = None
        self.changes = Changes()
        self._jwt = _Stream("jwt_bundles", _NO_JWT, clock)
        self._x509 = _Stream("x509_svid", _NO_X509, clock)

    async def __aenter__(self) -> Self:
        """Start following; returns at once. Raises TaskmintError(config_invalid)."""
        at = AgentSocket.at(self._endpoint, self._agent_uid)
        self._following = asyncio.create_task(self._follow(at), name="Workload API")
        self._following.add_done_callback(_report_failure)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    # --- what it knows -----------------------------------------------------------------------

    def ready(self) -> str | None:
        """None when the JWT bundles may be believed now, else the reason why not."""
        return self._why_not(self._jwt, known=bool(self.trust.jwt))

    def absence(self) -> Absence | None:
        """The kind of reason why `ready` has one; None when it has none, or bundles are too old."""
        return None if self.trust.jwt else self._jwt.absence

    def ready_x509(self) -> str | None:
        """None when the X.509 bundles may be believed now, else the reason why not."""
        return self._why_not(self._x509, known=bool(self.trust.x509))

    def age(self) -> float:
        """Seconds since the agent last stood behind the JWT bundles; 0 while it does."""
        return self._jwt.age()

    def _why_not(self, stream: _Stream, *, known: bool) -> str | None:
        if self._following is None or self._following.done():
            return "the Workload API is not being followed"
        if not known:
            return stream.why_not
        age = stream.age()
        if age > self._max_age:
            return f"the Workload API has been away for {age:.0f} s"
        return None

    @property
    def version(self) -> int:
        """Counts changes of `trust`; for `changed`."""
        return self.changes.count

    async def changed(self, after: int) -> int:
        """Wait until `version` is beyond `after`; returns it."""
        return await self.changes.beyond(after)

    async def first_bundles(self) -> None:
        """Wait until `ready()` is None for the first time."""
        while self.ready() is not None:
            await self.changed(self.version)

    # --- what it fetches ---------------------------------------------------------------------

    async def fetch_jwt_svid(self, audience: str) -> FetchedJwtSvid:
        """Fetch a JWT-SVID of our own. Raises Unavailable(identity_unavailable)."""
        channel = self._channel
        if channel is None:
            raise _unavailable("the Workload API is not being followed")
        request = messages.JWTSVIDRequest(audience=[audience])
        try:
            reply = await open_stub(channel).FetchJWTSVID(
                request, timeout=self._deadline, metadata=_METADATA
            )
        except grpc.aio.AioRpcError as error:
            raise _unavailable(f"the Workload API gave no JWT-SVID ({code_of(error)})") from None
        except (asyncio.CancelledError, grpc.aio.UsageError):
            if being_cancelled():
                raise
            raise _unavailable("the Workload API's socket was replaced") from None
        try:
            first = reply.svids[0]
            return FetchedJwtSvid(
                Secret(first.svid), SpiffeId.parse(first.spiffe_id), _expiry(first.svid)
            )
        except (IndexError, ValueError):
            raise _unavailable("the Workload API gave a JWT-SVID that cannot be read") from None

    # --- following ---------------------------------------------------------------------------

    async def _follow(self, at: AgentSocket) -> None:
        """Hold one channel while the socket is the same file and the agent answers on it."""
        while True:
            await self._until_there(at)
            async with grpc.aio.insecure_channel(
                f"unix:{at.path}", options=CHANNEL_OPTIONS
            ) as channel:
                self._channel = channel
                stub = open_stub(channel)
                async with asyncio.TaskGroup() as group:
                    streams = [
                        group.create_task(self._follow_jwt(stub, at)),
                        group.create_task(self._follow_x509(stub, at)),
                    ]
                    silence = group.create_task(self._until_silent(channel))
                    replaced = group.create_task(self._until_replaced(at))
                    await asyncio.wait((silence, replaced), return_when=asyncio.FIRST_COMPLETED)
                    if replaced.done():
                        _log.info("workload_api_socket_replaced")
                    else:
                        _log.warning("workload_api_silent")
                    for task in (*streams, silence, replaced):
                        task.cancel()

    async def _until_there(self, at: AgentSocket) -> None:
        """Return when there is a socket that may be believed; nothing else is connected to."""
        why_not = None
        while (seen := await asyncio.to_thread(at.look)).inode is None:
            if (why := seen.why_not or f"nothing is at {at.path}") != why_not:
                why_not = why
                _log.warning("workload_api_socket_refused", reason=why_not)
            absence = Absence.UNTRUSTED if seen.why_not else Absence.AWAY
            for stream in (self._jwt, self._x509):
                stream.lost(why, absence)
            await asyncio.sleep(_LOOK_FOR_SOCKET)
        self._seen = seen

    async def _until_replaced(self, at: AgentSocket) -> None:
        """Return when another socket stands there, or the same in a place that others can reach."""
        while True:
            await asyncio.sleep(_LOOK_AT_SOCKET)
            if await asyncio.to_thread(at.look) not in (self._seen, NOTHING_THERE):
                return

    async def _until_silent(self, channel: Any) -> None:
        """Return when the agent does not answer any more."""
        while True:
            await asyncio.sleep(self._ask_every)
            if not await answers(channel, self._deadline):
                return

    async def _follow_jwt(self, stub: Any, at: AgentSocket) -> None:
        def read(message: Any) -> None:
            bundles, said = read_jwt_bundles(message)
            _report_unreadable("jwt_bundles", said)
            self._set(replace(self.trust, jwt=bundles, jwt_said=said or self.trust.jwt_said))

        def disbelieve() -> None:
            if self.trust.jwt:
                self._set(replace(self.trust, jwt={}))

        await self._follow_stream(
            lambda: stub.FetchJWTBundles(messages.JWTBundlesRequest(), metadata=_METADATA),
            self._jwt,
            at,
            read,
            disbelieve,
        )

    async def _follow_x509(self, stub: Any, at: AgentSocket) -> None:
        def read(message: Any) -> None:
            bundles, own, said = read_x509_context(message)
            _report_unreadable("x509_svid", said)
            said = said or self.trust.x509_said
            self._set(replace(self.trust, x509=bundles, own=own, x509_said=said))

        def disbelieve() -> None:
            if self.trust.x509 or self.trust.own:
                self._set(replace(self.trust, x509={}, own=None))

        await self._follow_stream(
            lambda: stub.FetchX509SVID(messages.X509SVIDRequest(), metadata=_METADATA),
            self._x509,
            at,
            read,
            disbelieve,
        )

    async def _follow_stream(
        self,
        open_stream: Callable[[], Any],
        stream: _Stream,
        at: AgentSocket,
        read: Callable[[Any], None],
        disbelieve: Callable[[], None],
    ) -> None:
        """
        Read a stream's messages for ever, opening it again whatever ends it.

        A stream that is lost leaves what was known as it is, for `max_age`. Two ends say more, and
        nobody is believed from then on: a refusal (Workload API, sections 4.4 and 6), and news
        that our own reading fails on, for what was known may be what they withdraw.
        """
        pause, last = _FIRST_PAUSE, None
        while True:
            try:
                async with aclosing(heard_at(at, self._seen, open_stream())) as arriving:
                    async for message in arriving:
                        pause = _FIRST_PAUSE
                        if stream.message != message:  # the same after a reconnection, mostly
                            _read(read, message)
                        stream.stands(message)
            except StreamLost as lost:
                stream.lost(lost.reason)
                if lost.reason in _DISBELIEVED:
                    disbelieve()
                if lost.reason != last:  # once, not every two seconds
                    _log.warning("workload_api_stream_lost", stream=stream.name, reason=lost.reason)
                    last = lost.reason
            finally:
                stream.interrupted()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _set(self, trust: Trust) -> None:
        self.trust = trust
        self.changes.note()


def _expiry(token: str) -> datetime:
    """Read our own token's expiry; it came from the agent, so its signature is not our business."""
    claims = decode_object(decode_base64url(token.split(".")[1].encode()))
    expires_at = claims.get("exp")
    if isinstance(expires_at, int):
        return datetime.fromtimestamp(expires_at, UTC)
    raise ValueError("no expiry")


def _unavailable(detail: str) -> Unavailable:
    return Unavailable(
        Code.IDENTITY_UNAVAILABLE,
        detail,
        fix="check that the SPIRE agent runs and that this daemon is registered",
        created_nothing=True,
    )


def _read(read: Callable[[Any], None], message: Any) -> None:
    """Read a message. Raises StreamLost, also for what our reading should have expected."""
    try:
        read(message)
    except Exception as error:
        _log.critical("workload_api_reader_failed", exc_info=True)
        raise StreamLost(_UNREADABLE) from error


def _report_unreadable(stream: str, said: Said | None) -> None:
    if said is None:
        _log.warning("workload_api_message_empty", stream=stream)
        return
    for name, why in said.unreadable.items():
        _log.warning("bundle_unreadable", stream=stream, bundle=name, reason=why)


def _report_failure(following: asyncio.Task[None]) -> None:
    if not following.cancelled() and following.exception() is not None:
        _log.critical("workload_api_stopped", exc_info=following.exception())
