"""
A process in, the SPIFFE ID that the SPIRE agent attests it to have out; the process shows nothing.

Over the agent's admin socket (Delegated Identity API). Each process that asks is subscribed to
while it lives: an update without its identity withdraws it at once, a lost subscription withdraws
it when no new one confirms it within `grace`. The pid cannot mean another process meanwhile,
because its pidfd is held and polled, and the subscription ends with the process. What was proven
of a process that has exited stays proven; what that ends is for bindings to say, not for identity.

Off unless configured: it makes the daemon a delegate that the agent sends workloads' private keys
to. They are dropped unread (_delegated_proto.py), and docs/identity.md says what that is worth.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Final, Self

import structlog

from taskmint.errors import Code, Limit, LimitExceeded, Unavailable, Unproven
from taskmint.model.peer import Peer, PeerProof
from taskmint.model.spiffe import SpiffeId
from taskmint.ports import Clock

from . import procfs
from ._delegated_proto import DelegatedMessages
from ._workload_proto import grpc
from .agent_socket import AgentSocket, heard_at
from .changes import Changes
from .channel import CHANNEL_OPTIONS, StreamLost, answers

_log = structlog.get_logger()

_NOBODY: Final = "The SPIRE agent knows no identity for this process."
_AGAIN: Final = 0.5  # seconds between attempts to subscribe again
_DENIED: Final = frozenset({"PERMISSION_DENIED", "INVALID_ARGUMENT"})

ProcessKey = tuple[int, int]  # pid and start time


@dataclass(frozen=True, slots=True)
class Attested:
    """What the agent says of a process; `evidence` is the SHA-256 of its certificate."""

    spiffe_id: SpiffeId
    expires_at: datetime
    evidence: str
    authority: str


@dataclass(frozen=True, slots=True)
class DelegationLimits:
    """
    Seconds, and how many processes are subscribed to at once.

    Every `ask_every` the agent must give a sign of life within `deadline`.
    """

    deadline: float = 5.0
    ask_every: float = 10.0
    grace: float = 10.0
    unknown: float = 1.0  # how long a process that the agent does not know is not asked about again
    processes: int = 1024


class _Subscription:
    """One process: what the agent says of it, while it lives."""

    def __init__(self, key: ProcessKey, pidfd: int) -> None:
        self.key = key
        self.pidfd = pidfd
        self.attested: Attested | None = None
        self.why_not = "the agent has not answered"
        self.away = True  # nothing was heard, as opposed to: it has no identity
        self.relied_on = False  # something rests on it, be it from before our restart
        self.lost_at: float | None = None  # since when nobody confirms what was heard
        self.answered = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Delegation:
    """
    Subscribes while entered. `endpoint` is the agent's admin socket, `unix:///path`.

    `believed` says whether a trust domain is believed here; `agent_uid` may own the socket, beside
    root and ourselves.
    """

    def __init__(
        self,
        endpoint: str,
        changes: Changes,
        believed: Callable[[str], bool],
        clock: Clock,
        limits: DelegationLimits | None = None,
        *,
        agent_uid: int | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._changes = changes
        self._believed = believed
        self._clock = clock
        self._limits = limits or DelegationLimits()
        self._messages = DelegatedMessages()
        self._channel: Any = None
        self._agent_uid = agent_uid
        self._at = AgentSocket("", frozenset())
        self._watching: asyncio.Task[None] | None = None
        self._held: dict[ProcessKey, _Subscription] = {}
        self._withdrawn: dict[ProcessKey, None] = {}  # in order, to forget the oldest
        self._unknown: dict[ProcessKey, float] = {}  # whom the agent did not know, and until when

    async def __aenter__(self) -> Self:
        """Open the channel, which connects when it is needed. Raises config_invalid."""
        self._at = AgentSocket.at(self._endpoint, self._agent_uid)
        self._channel = self._open()
        self._watching = asyncio.create_task(self._watch(), name="delegating agent")
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [held.task for held in self._held.values() if held.task]
        if self._watching is not None:
            self._watching.cancel()
            tasks.append(self._watching)
        for held in list(self._held.values()):
            self._forget(held)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    async def attest(self, peer: Peer) -> Attested:
        """
        Ask the agent who the peer is.

        1. The peer must be the kernel's own word: a pid that was guessed may be another's.
        2. Subscribe to its pid, or use the subscription that stands, under a pidfd of our own;
           but of a process that the agent did not know just now it is not asked again at once.
        3. Wait for the agent's answer.
        4. The process must still be alive: only then was the answer about it.
        5. What the agent said of it must not have expired since.

        Raises Unproven, Unavailable(identity_unavailable), LimitExceeded.
        """
        # 1.
        if peer.proof is not PeerProof.PIDFD or peer.pidfd is None or peer.start_time is None:
            raise _unattested("The kernel does not say firmly which process this is.")
        # 2.
        key = (peer.pid, peer.start_time)
        if self._unknown.get(key, 0.0) > asyncio.get_running_loop().time():
            raise _unattested(_NOBODY)
        held = self._held.get(key) or self._subscribe(key, os.dup(peer.pidfd))
        # 3.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.deadline):
                await held.answered.wait()
        # 4.
        if procfs.has_exited(peer.pidfd):
            raise _unattested("The process that connected has exited.")
        if held.attested is not None and not held.away:
            # 5.
            if held.attested.expires_at <= self._clock.utcnow():
                raise Unproven(
                    Code.CREDENTIAL_EXPIRED,
                    "What the SPIRE agent said of this process has expired.",
                    fix="check that the SPIRE agent reaches its server",
                )
            self._withdrawn.pop(key, None)
            return held.attested
        if held.away:
            raise Unavailable(
                Code.IDENTITY_UNAVAILABLE,
                f"The SPIRE agent cannot be asked who this process is: {held.why_not}.",
                fix="check the agent's admin socket and its authorized_delegates",
                created_nothing=True,
            )
        raise _unattested(_NOBODY)

    def stands(self, authority: str) -> bool:
        """
        Whether the agent still says what it said when this authority was named.

        After a restart of ours nothing is known: then the process is subscribed to again, and its
        authority stands until the agent has answered or `grace` has passed. It also stands when
        the process has exited, for then nobody can be asked.
        """
        key = _key(authority)
        if key is None or key in self._withdrawn:
            return False
        held = self._held.get(key) or self._resume(key)
        if held is None:
            return True
        held.relied_on = True
        if held.attested is None:
            return True
        return held.attested.authority == authority

    # --- the agent -----------------------------------------------------------------------------

    def _open(self) -> Any:
        return grpc.aio.insecure_channel(f"unix:{self._at.path}", options=CHANNEL_OPTIONS)

    async def _watch(self) -> None:
        """Lose every subscription at an agent that does not answer, and try another channel."""
        while True:
            await asyncio.sleep(self._limits.ask_every)
            if self._held and not await answers(self._channel, self._limits.deadline):
                _log.warning("delegating_agent_silent")
                silent, self._channel = self._channel, self._open()
                await silent.close()

    # --- subscriptions -----------------------------------------------------------------------

    def _subscribe(self, key: ProcessKey, pidfd: int) -> _Subscription:
        if len(self._held) >= self._limits.processes:
            os.close(pidfd)
            raise LimitExceeded(
                Limit.ATTESTED_PROCESSES,
                "Too many processes are attested by the agent at once.",
                retry_after=timedelta(seconds=1),
                fix="let processes that have called exit, or show an SVID",
            )
        held = _Subscription(key, pidfd)
        self._held[key] = held
        loop = asyncio.get_running_loop()
        loop.add_reader(pidfd, self._forget, held)
        held.task = loop.create_task(self._follow(held), name=f"delegation of {key[0]}")
        held.task.add_done_callback(partial(self._followed, held))
        return held

    def _resume(self, key: ProcessKey) -> _Subscription | None:
        """Subscribe to a process of before our restart, when it is provably the same."""
        try:
            pidfd = os.pidfd_open(key[0])
        except OSError:
            return None
        stat = procfs.read_stat(key[0])
        if stat is None or stat.start_time != key[1] or procfs.has_exited(pidfd):
            os.close(pidfd)
            return None
        try:
            return self._subscribe(key, pidfd)
        except LimitExceeded:
            return None

    async def _follow(self, held: _Subscription) -> None:
        """Keep a subscription; return when the process has no identity any more."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await self._listen(held)
            except StreamLost as lost:
                reason = lost.reason
            if held.lost_at is None:
                held.lost_at = loop.time()
            held.away, held.why_not = True, f"the subscription was lost ({reason})"
            held.answered.clear()
            if reason in _DENIED or loop.time() - held.lost_at > self._limits.grace:
                return self._withdraw(held, held.why_not)
            if held.attested is None and reason != "ENDED":
                held.answered.set()
            await asyncio.sleep(_AGAIN)

    async def _listen(self, held: _Subscription) -> None:
        """Return when the agent says that the process has no identity any more; else StreamLost."""
        seen = await asyncio.to_thread(self._at.look)
        if seen.inode is None:
            raise StreamLost(seen.why_not or f"nothing is at {self._at.path}")
        request = self._messages.named("SubscribeToX509SVIDsRequest")(pid=held.key[0])
        call = self._messages.subscribe(self._channel)(request)
        async with aclosing(heard_at(self._at, seen, call)) as arriving:
            async for message in arriving:
                held.lost_at = None
                if not self._heard(held, message):
                    return

    def _followed(self, held: _Subscription, task: asyncio.Task[None]) -> None:
        """Withdraw what nobody follows any more, whatever it was that ended the following."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("delegation_follower_failed", exc_info=error)
            self._withdraw(held, "it cannot be followed")

    def _heard(self, held: _Subscription, message: Any) -> bool:
        """Take an update; whether the process still has the one identity that it had."""
        known = {
            attested.spiffe_id: attested
            for svid in message.x509_svids
            if (attested := _attested(svid.x509_svid, held.key)) is not None
            and self._believed(attested.spiffe_id.trust_domain)
        }
        held.away = False
        if len(known) != 1:
            self._withdraw(held, f"the agent knows {len(known)} identities for it")
            self._remember_unknown(held.key)
            return False
        (now,) = known.values()
        before, held.attested = held.attested, now
        held.answered.set()
        if before is not None and before.authority != now.authority:
            self._changes.note()
        return True

    def _withdraw(self, held: _Subscription, why: str) -> None:
        """Let what rests on a process fall; when it asks again it is attested anew."""
        relied_on = held.relied_on or held.attested is not None
        held.attested, held.why_not = None, why
        self._forget(held)
        if not relied_on:  # then nothing can fall, and nobody need look
            return
        _log.info("delegation_withdrawn", pid=held.key[0], reason=why)
        if len(self._withdrawn) >= self._limits.processes:
            del self._withdrawn[next(iter(self._withdrawn))]
        self._withdrawn[held.key] = None
        self._changes.note()

    def _remember_unknown(self, key: ProcessKey) -> None:
        """Ask no more of a process for a moment: it costs the agent an attestation each time."""
        now = asyncio.get_running_loop().time()
        if len(self._unknown) >= self._limits.processes:
            self._unknown = {one: until for one, until in self._unknown.items() if until > now}
        if len(self._unknown) < self._limits.processes:
            self._unknown[key] = now + self._limits.unknown

    def _forget(self, held: _Subscription) -> None:
        """End a subscription; whoever waits for its answer waits no longer."""
        held.answered.set()
        if self._held.pop(held.key, None) is None:
            return
        asyncio.get_running_loop().remove_reader(held.pidfd)
        os.close(held.pidfd)
        if held.task is not None and held.task is not asyncio.current_task():
            held.task.cancel()


def _attested(svid: Any, key: ProcessKey) -> Attested | None:
    """Read one SVID of an update; None for what cannot be read."""
    path = svid.id.path if svid.id.path.startswith("/") else f"/{svid.id.path}"
    try:
        spiffe_id = SpiffeId.parse(f"spiffe://{svid.id.trust_domain}{path}")
        expires_at = datetime.fromtimestamp(svid.expires_at, UTC)
        leaf = svid.cert_chain[0]
    except (ValueError, OverflowError, OSError, IndexError):
        return None
    return Attested(
        spiffe_id,
        expires_at,
        sha256(leaf).hexdigest(),
        f"delegated:{spiffe_id.trust_domain}#{key[0]}.{key[1]}.{spiffe_id.path}",
    )


def _key(authority: str) -> ProcessKey | None:
    try:
        pid, start_time, _ = authority.partition("#")[2].split(".", 2)
        return int(pid), int(start_time)
    except ValueError:
        return None


def _unattested(detail: str) -> Unproven:
    return Unproven(
        Code.PEER_UNATTESTED,
        detail,
        fix="register the workload with the SPIRE agent, or send its JWT-SVID",
    )
