"""Callers that show nothing: the agent attests their process, and may take it back."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from identity.agent_process import agent_process
from identity.delegating_agent import KEY, DelegatingAgent
from identity.door import Door
from identity.signer import AUDIENCE
from identity.workload import Workload, workload
from taskmint.errors import Code, LimitExceeded, TaskmintError
from taskmint.identity.believer import Believer
from taskmint.identity.changes import Changes
from taskmint.identity.delegation import Attested, Delegation, DelegationLimits
from taskmint.identity.jwt_svid import JwtRules
from taskmint.identity.peers import PeerReader
from taskmint.identity.prover import Prover
from taskmint.identity.workload_api import WorkloadApi
from taskmint.model.caller import IdentityMethod
from taskmint.model.peer import Peer, PeerProof
from taskmint.ports import Presented

from fakes.clock import SteppedClock

ID = ("example.org", "/script")


@pytest.fixture
def agent(tmp_path: Path) -> DelegatingAgent:
    """An agent that is not serving yet."""
    return DelegatingAgent(tmp_path / "admin.sock")


@pytest.fixture
def caller() -> Iterator[Workload]:
    """A process that follows orders."""
    with workload() as one:
        yield one


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """Where processes connect."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "door"))
        listening.listen()
        one = Door(tmp_path / "door", listening, PeerReader())
        yield one
        one.close()


@pytest.fixture
def peer(door: Door, caller: Workload, agent: DelegatingAgent) -> Peer:
    """That process as it connected; the agent knows it."""
    one = door.accept(caller)
    if one.proof is not PeerProof.PIDFD:
        pytest.skip("the agent is asked about a process only where the kernel has SO_PEERPIDFD")
    agent.entries[one.pid] = [ID]
    return one


@asynccontextmanager
async def delegated(
    agent: DelegatingAgent, **limits: Any
) -> AsyncIterator[tuple[Delegation, Changes]]:
    """Ask that agent; example.org is believed."""
    changes = Changes()
    async with Delegation(
        agent.endpoint,
        changes,
        lambda domain: domain == "example.org",
        SteppedClock(),
        DelegationLimits(**({"deadline": 3.0, "grace": 1.5, "unknown": 0.05} | limits)),
    ) as one:
        yield one, changes


async def refused(delegation: Delegation, peer: Peer) -> Code:
    """Return the code with which attestation is refused."""
    with pytest.raises(TaskmintError) as raised:
        await delegation.attest(peer)
    assert raised.value.fix
    return raised.value.code


async def fallen(delegation: Delegation, changes: Changes, attested: Attested) -> None:
    """Wait until the authority does not stand any more."""
    async with asyncio.timeout(5):
        while delegation.stands(attested.authority):
            await changes.beyond(changes.count)


async def test_the_agent_says_who_a_process_is(agent: DelegatingAgent, peer: Peer) -> None:
    """By its pid and nothing else; once, however often it asks."""
    async with agent.serving(), delegated(agent) as (delegation, _):
        attested = await delegation.attest(peer)
        again = await delegation.attest(peer)

        assert str(attested.spiffe_id) == "spiffe://example.org/script"
        assert attested.expires_at == datetime.fromtimestamp(agent.expires_at, UTC)
        assert again == attested
        assert delegation.stands(attested.authority)
        assert [request.pid for request in agent.requests] == [peer.pid]
        assert agent.requests[0].SerializeToString()[:1] == b"\x10"  # pid, and no selectors


async def test_private_keys_are_dropped_unread(agent: DelegatingAgent, peer: Peer) -> None:
    """The agent sends them; what we keep of its message has none."""
    async with agent.serving(), grpc.aio.insecure_channel(agent.endpoint) as channel:
        assert KEY in agent.answer(peer.pid).SerializeToString()  # what is sent
        request = agent.messages.named("SubscribeToX509SVIDsRequest")(pid=peer.pid)
        call = agent.messages.subscribe(channel)(request)
        message = await call.read()
        call.cancel()

        assert message.x509_svids[0].x509_svid.id.path == "/script"
        assert KEY not in message.SerializeToString()


async def test_a_caller_without_credentials_is_proven(agent: DelegatingAgent, peer: Peer) -> None:
    """The door is open only where it was opened."""
    api = WorkloadApi("unix:///nowhere", SteppedClock())
    closed = Prover(Believer(api), SteppedClock(), JwtRules(AUDIENCE))
    with pytest.raises(TaskmintError) as raised:
        await closed.identify(Presented(), peer)
    assert raised.value.code is Code.CREDENTIAL_MISSING
    async with agent.serving(), delegated(agent) as (delegation, _):
        prover = Prover(Believer(api), SteppedClock(), JwtRules(AUDIENCE), delegation=delegation)
        caller = await prover.identify(Presented(), peer)

        assert str(caller.spiffe_id) == "spiffe://example.org/script"
        assert caller.method is IdentityMethod.DELEGATED
        assert prover.stands(caller.authority)
        assert not closed.stands(caller.authority)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([], id="nobody"),
        pytest.param([ID, ("example.org", "/other")], id="two identities"),
        pytest.param([("partner.test", "/script")], id="a domain that is not believed"),
        pytest.param([("example.org", "/a/../b")], id="no SPIFFE ID"),
    ],
)
async def test_a_process_without_one_identity_is_unattested(
    agent: DelegatingAgent, peer: Peer, entries: list[tuple[str, str]]
) -> None:
    """Nobody, somebody else's, or ambiguous: 401."""
    agent.entries[peer.pid] = entries
    async with agent.serving(), delegated(agent) as (delegation, _):
        assert await refused(delegation, peer) is Code.PEER_UNATTESTED


async def test_a_process_is_known_as_soon_as_it_is_registered(
    agent: DelegatingAgent, peer: Peer
) -> None:
    """A refusal is soon forgotten; nor is a path without its slash a reason to refuse."""
    agent.entries[peer.pid] = []
    async with agent.serving(), delegated(agent) as (delegation, _):
        assert await refused(delegation, peer) is Code.PEER_UNATTESTED
        agent.entries[peer.pid] = [("example.org", "script")]
        attested = await attested_in_time(delegation, peer)
        assert attested.spiffe_id.path == "/script"
        assert delegation.stands(attested.authority)


async def test_a_process_that_nobody_knows_costs_the_agent_one_question(
    agent: DelegatingAgent, peer: Peer
) -> None:
    """P10: however often it asks in a moment; and as nothing rests on it, nothing is looked at."""
    agent.entries[peer.pid] = []
    async with agent.serving(), delegated(agent, unknown=60.0) as (delegation, changes):
        for _ in range(20):
            assert await refused(delegation, peer) is Code.PEER_UNATTESTED
        assert len(agent.requests) == 1
        assert changes.count == 0


async def test_unknown_processes_are_bounded(
    agent: DelegatingAgent, peer: Peer, door: Door
) -> None:
    """P10: as many are remembered as may be attested; of others the agent is asked again."""
    async with agent.serving(), delegated(agent, unknown=60.0, processes=1) as (delegation, _):
        with workload() as other:
            second = door.accept(other)
            agent.entries.clear()
            for one in (peer, second, peer, second):
                assert await refused(delegation, one) is Code.PEER_UNATTESTED
            assert [request.pid for request in agent.requests] == [
                peer.pid, second.pid, second.pid,
            ]  # fmt: skip


async def test_what_the_agent_said_expires(agent: DelegatingAgent, peer: Peer) -> None:
    """As with every other door: an agent that renews nothing any more vouches for nobody."""
    clock = SteppedClock()
    agent.expires_at = int(clock.utcnow().timestamp()) + 60
    async with (
        agent.serving(),
        Delegation(agent.endpoint, Changes(), lambda _: True, clock) as delegation,
    ):
        await delegation.attest(peer)
        clock.pass_time(timedelta(seconds=60))
        assert await refused(delegation, peer) is Code.CREDENTIAL_EXPIRED


async def test_an_agent_that_is_away_is_unavailable(agent: DelegatingAgent, peer: Peer) -> None:
    """503, and then it comes."""
    async with delegated(agent, deadline=0.3) as (delegation, _):
        assert await refused(delegation, peer) is Code.IDENTITY_UNAVAILABLE
        async with agent.serving(), asyncio.timeout(6):
            while await refused_or_none(delegation, peer) is not None:
                await asyncio.sleep(0.05)


async def test_a_daemon_that_is_no_delegate_is_told_so(agent: DelegatingAgent, peer: Peer) -> None:
    """PERMISSION_DENIED is about us, not about the caller: 503."""
    agent.refusal = grpc.StatusCode.PERMISSION_DENIED
    async with agent.serving(), delegated(agent) as (delegation, _):
        assert await refused(delegation, peer) is Code.IDENTITY_UNAVAILABLE


async def test_a_deleted_entry_withdraws_at_once(agent: DelegatingAgent, peer: Peer) -> None:
    """P4: the update without the identity is what ends its tasks."""
    async with agent.serving(), delegated(agent) as (delegation, changes):
        attested = await delegation.attest(peer)
        agent.entries[peer.pid] = []
        await agent.push()
        await fallen(delegation, changes, attested)
        assert await refused(delegation, peer) is Code.PEER_UNATTESTED
        assert not delegation.stands(attested.authority)


async def test_another_identity_for_the_same_process_withdraws_the_first(
    agent: DelegatingAgent, peer: Peer
) -> None:
    """What was proven as one does not go on as another."""
    async with agent.serving(), delegated(agent) as (delegation, changes):
        attested = await delegation.attest(peer)
        agent.entries[peer.pid] = [("example.org", "/other")]
        await agent.push()
        await fallen(delegation, changes, attested)
        assert (await delegation.attest(peer)).spiffe_id.path == "/other"


async def test_a_rotated_certificate_withdraws_nothing(agent: DelegatingAgent, peer: Peer) -> None:
    """The identity is the same; only its expiry moves on."""
    async with agent.serving(), delegated(agent) as (delegation, _):
        attested = await delegation.attest(peer)
        agent.expires_at += 3600
        await agent.push()
        async with asyncio.timeout(5):
            while (now := await delegation.attest(peer)).expires_at == attested.expires_at:
                await asyncio.sleep(0.01)
        assert now.authority == attested.authority
        assert delegation.stands(attested.authority)


async def test_a_lost_subscription_is_taken_up_again(agent: DelegatingAgent, peer: Peer) -> None:
    """An agent that restarts within the grace ends nothing; meanwhile nobody new is proven."""
    async with delegated(agent, grace=8.0, deadline=0.2) as (delegation, _):
        async with agent.serving():
            attested = await delegation.attest(peer)
        async with asyncio.timeout(5):
            while await refused_or_none(delegation, peer) is not Code.IDENTITY_UNAVAILABLE:
                await asyncio.sleep(0.01)
        assert delegation.stands(attested.authority)
        async with agent.serving():
            async with asyncio.timeout(6):
                while await refused_or_none(delegation, peer) is not None:
                    await asyncio.sleep(0.05)
            assert delegation.stands(attested.authority)


async def refused_or_none(delegation: Delegation, peer: Peer) -> Code | None:
    """Return the code of a refusal, or None when the peer is attested."""
    try:
        await delegation.attest(peer)
    except TaskmintError as error:
        return error.code
    return None


async def test_a_long_lived_subscription_survives_a_restart_of_the_agent(
    agent: DelegatingAgent, peer: Peer
) -> None:
    """The grace counts from the loss, not from the last news, which may be hours ago."""
    async with delegated(agent, grace=2.0, deadline=0.2) as (delegation, _):
        async with agent.serving():
            attested = await delegation.attest(peer)
            await asyncio.sleep(2.1)
        async with agent.serving():
            await agent.until(streams=1)
            assert delegation.stands(attested.authority)


async def test_what_is_no_message_loses_the_subscription_and_no_more(
    agent: DelegatingAgent, peer: Peer
) -> None:
    """P12: what came before is not believed meanwhile, and a deletion after it is seen."""
    async with agent.serving(), delegated(agent, deadline=0.2, grace=8.0) as (delegation, changes):
        attested = await delegation.attest(peer)
        agent.garbled = True
        await agent.push()
        async with asyncio.timeout(5):
            while await refused_or_none(delegation, peer) is not Code.IDENTITY_UNAVAILABLE:
                await asyncio.sleep(0.01)
        assert delegation.stands(attested.authority)
        agent.garbled = False
        async with asyncio.timeout(6):
            while await refused_or_none(delegation, peer) is not None:
                await asyncio.sleep(0.05)
        agent.entries[peer.pid] = []
        await agent.push()
        await fallen(delegation, changes, attested)


async def test_an_agent_that_goes_on_sending_garbage_withdraws(
    agent: DelegatingAgent, peer: Peer
) -> None:
    """P4: past the grace it is as good as lost."""
    async with agent.serving(), delegated(agent, grace=0.3) as (delegation, changes):
        attested = await delegation.attest(peer)
        agent.garbled = True
        await agent.push()
        await fallen(delegation, changes, attested)


async def test_a_follower_that_fails_withdraws(agent: DelegatingAgent, peer: Peer) -> None:
    """P12: a process that nobody follows any more has no identity; asked anew it may have one."""
    faults: list[Exception] = []

    def believed(_: str) -> bool:
        if faults:
            raise faults.pop()
        return True

    changes = Changes()
    async with (
        agent.serving(),
        Delegation(agent.endpoint, changes, believed, SteppedClock()) as delegation,
    ):
        attested = await delegation.attest(peer)
        faults.append(ArithmeticError())
        await agent.push()
        await fallen(delegation, changes, attested)
        assert (await delegation.attest(peer)).spiffe_id == attested.spiffe_id


async def test_a_subscription_that_stays_lost_withdraws(agent: DelegatingAgent, peer: Peer) -> None:
    """P4: past the grace nobody stands behind the identity any more."""
    async with delegated(agent, grace=0.3) as (delegation, changes):
        async with agent.serving():
            attested = await delegation.attest(peer)
        await fallen(delegation, changes, attested)


async def test_an_agent_that_hangs_withdraws(tmp_path: Path, peer: Peer) -> None:
    """P4: a stopped agent keeps its connections and says nothing, and nobody may rest on that."""
    socket = tmp_path / "hanging.sock"
    limits = DelegationLimits(deadline=0.3, ask_every=0.2, grace=0.5)
    changes = Changes()
    with agent_process(socket, (peer.pid, *ID)) as pid:
        async with Delegation(
            f"unix://{socket}", changes, lambda _: True, SteppedClock(), limits
        ) as delegation:
            attested = await attested_in_time(delegation, peer)
            os.kill(pid, signal.SIGSTOP)
            await fallen(delegation, changes, attested)
            assert await refused(delegation, peer) is Code.IDENTITY_UNAVAILABLE
            os.kill(pid, signal.SIGCONT)
            assert await attested_in_time(delegation, peer) == attested


async def attested_in_time(delegation: Delegation, peer: Peer) -> Attested:
    """Ask again until the agent answers."""
    async with asyncio.timeout(6):
        while await refused_or_none(delegation, peer) is not None:
            await asyncio.sleep(0.05)
    return await delegation.attest(peer)


async def test_an_admin_socket_that_anybody_could_have_made_is_not_asked(
    agent: DelegatingAgent, peer: Peer, tmp_path: Path
) -> None:
    """Row 23: else anybody could attest anybody."""
    async with agent.serving(), delegated(agent) as (delegation, _):
        tmp_path.chmod(0o777)
        assert await refused(delegation, peer) is Code.IDENTITY_UNAVAILABLE
        assert agent.requests == []
        tmp_path.chmod(0o700)
        assert (await attested_in_time(delegation, peer)).spiffe_id.path == "/script"


async def test_a_delegate_that_is_dismissed_withdraws(agent: DelegatingAgent, peer: Peer) -> None:
    """The agent does not let us ask any more: what rests on its word falls."""
    async with agent.serving(), delegated(agent) as (delegation, changes):
        attested = await delegation.attest(peer)
        agent.refusal = grpc.StatusCode.PERMISSION_DENIED
        await agent.push()
        await fallen(delegation, changes, attested)


async def test_the_subscription_ends_with_the_process(
    agent: DelegatingAgent, peer: Peer, caller: Workload
) -> None:
    """Its pid may become another's; what was proven of it stays proven."""
    async with agent.serving(), delegated(agent) as (delegation, _):
        attested = await delegation.attest(peer)
        await agent.until(streams=1)
        caller.exit()
        await agent.until(streams=0)
        assert delegation.stands(attested.authority)
        assert await refused(delegation, peer) is Code.PEER_UNATTESTED


async def test_a_guessed_pid_is_not_asked_about(agent: DelegatingAgent, peer: Peer) -> None:
    """Trap 16: without the kernel's own pidfd delegation is refused."""
    async with agent.serving(), delegated(agent) as (delegation, _):
        for guess in (
            replace(peer, proof=PeerProof.START_TIME),
            replace(peer, pidfd=None),
            replace(peer, start_time=None),
        ):
            assert await refused(delegation, guess) is Code.PEER_UNATTESTED
        assert agent.requests == []


async def test_subscriptions_are_bounded(agent: DelegatingAgent, peer: Peer, door: Door) -> None:
    """P10: one process too many gets 429, and room comes back when one exits."""
    async with agent.serving(), delegated(agent, processes=1) as (delegation, _):
        with workload() as other:
            second = door.accept(other)
            agent.entries[second.pid] = [ID]
            await delegation.attest(second)
            with pytest.raises(LimitExceeded):
                await delegation.attest(peer)
            other.exit()
            await agent.until(streams=0)
        await delegation.attest(peer)


async def test_after_a_restart_the_agent_is_asked_again(
    agent: DelegatingAgent, peer: Peer, caller: Workload
) -> None:
    """P8: what was recorded stands while it may; what the agent does not confirm falls."""
    async with agent.serving():
        async with delegated(agent) as (delegation, _):
            attested = await delegation.attest(peer)
        async with delegated(agent) as (delegation, changes):
            assert delegation.stands(attested.authority)
            await agent.until(streams=1)
            assert delegation.stands(attested.authority)
            agent.entries[peer.pid] = []
            await agent.push()
            await fallen(delegation, changes, attested)
        caller.exit()
        async with delegated(agent) as (delegation, _):
            assert delegation.stands(attested.authority)
            assert not delegation.stands("delegated:example.org#")
            assert not delegation.stands(f"delegated:example.org#{os.getpid()}.x./script")


async def test_leaving_closes_everything(agent: DelegatingAgent, peer: Peer) -> None:
    """No stream, no descriptor and no task is left."""
    async with agent.serving():
        async with delegated(agent) as (delegation, _):
            await delegation.attest(peer)
            await agent.until(streams=1)
        await agent.until(streams=0)
