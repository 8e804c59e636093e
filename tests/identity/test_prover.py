"""Proving callers: a token, the process that presents it, and an agent that vouches for keys."""

import base64
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest

from identity.agent import Agent
from identity.pki import root
from identity.signer import AUDIENCE, NOW, SUBJECT, Authority, claims, encode, jwks
from identity.workload import Workload, workload
from taskmint.errors import Code, Limit, LimitExceeded, TaskmintError, Unavailable, Unproven
from taskmint.identity.believer import Believed, Believer
from taskmint.identity.jwt_bundle import parse_jwt_bundle
from taskmint.identity.jwt_svid import JwtRules, JwtSvid, evidence_of
from taskmint.identity.peers import PeerReader
from taskmint.identity.prover import Prover
from taskmint.identity.token_owners import OwnerRules, TokenOwners
from taskmint.identity.verdicts import Verdicts
from taskmint.identity.workload_api import WorkloadApi
from taskmint.model.caller import Caller, IdentityMethod, TokenBinding
from taskmint.model.peer import Peer, PeerProof
from taskmint.model.secret import Secret
from taskmint.model.spiffe import SpiffeId
from taskmint.ports import Presented

from fakes.clock import SteppedClock


class ClockAtNow(SteppedClock):
    """The wall clock stands at the moment that the tests' tokens are made for."""

    def utcnow(self) -> datetime:
        """NOW, and what the test added."""
        return datetime.fromtimestamp(NOW, UTC) + self.wall_offset


@pytest.fixture
def clock() -> ClockAtNow:
    """A clock at NOW."""
    return ClockAtNow()


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """An agent that is not serving yet."""
    return Agent(tmp_path / "agent.sock")


@pytest.fixture
def caller() -> Iterator[Workload]:
    """A process that follows orders."""
    with workload() as one:
        yield one


@pytest.fixture
def peer(caller: Workload, tmp_path: Path) -> Iterator[Peer]:
    """That process, as it connected."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "door"))
        listening.listen()
        caller.tell("connect", tmp_path / "door")
        accepted, _ = listening.accept()
        with accepted:
            one = PeerReader().read(accepted)
    assert one.pidfd is not None
    yield one
    os.close(one.pidfd)


@dataclass
class Proving:
    """A prover, and the Workload API that it listens to."""

    prover: Prover
    api: WorkloadApi

    async def identify(self, presented: Presented, peer: Peer) -> Caller:
        """Ask the prover."""
        return await self.prover.identify(presented, peer)

    async def heard(self, reached: Callable[[WorkloadApi], bool]) -> None:
        """Wait until what the agent says makes it so."""
        while not reached(self.api):
            await self.api.changed(self.api.version)


@asynccontextmanager
async def proving(
    agent: Agent, clock: SteppedClock, trust_domains: frozenset[str] = frozenset(), **options: Any
) -> AsyncIterator[Proving]:
    """A prover that has heard everything the agent says."""
    async with agent.serving(), WorkloadApi(agent.endpoint, clock) as api:
        prover = Prover(Believer(api, trust_domains), clock, JwtRules(AUDIENCE), **options)
        while prover.ready() is not None:
            await api.changed(api.version)
        yield Proving(prover, api)


def bearing(token: str) -> Presented:
    """What a caller with that token presents."""
    return Presented(bearer=Secret(token))


async def refused(prover: Proving, presented: Presented, peer: Peer) -> Code:
    """Return the code with which a caller is refused."""
    with pytest.raises(TaskmintError) as raised:
        await prover.identify(presented, peer)
    assert raised.value.detail
    assert raised.value.fix
    return raised.value.code


async def test_a_proven_caller_says_who_how_and_until_when(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """P2: identity from the token, process from the kernel, evidence instead of the token."""
    token = agent.authority.token()
    async with proving(agent, clock) as prover:
        caller = await prover.identify(bearing(token), peer)

    assert str(caller.spiffe_id) == SUBJECT
    assert caller.method is IdentityMethod.JWT_SVID
    assert caller.peer is peer
    assert caller.proven_until == datetime.fromtimestamp(NOW + 240, UTC)
    assert caller.evidence == evidence_of(token)
    assert token not in repr(caller)


async def test_nothing_presented_is_credential_missing(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """A caller without a credential is told so, also while the agent is away."""
    async with proving(agent, clock) as prover:
        assert await refused(prover, Presented(), peer) is Code.CREDENTIAL_MISSING
    assert await refused(prover, Presented(), peer) is Code.CREDENTIAL_MISSING


async def test_garbage_is_credential_invalid(agent: Agent, clock: ClockAtNow, peer: Peer) -> None:
    """Rows 1 to 16 are tests of jwt_svid; here one, through the whole door."""
    async with proving(agent, clock) as prover:
        assert await refused(prover, bearing("x.y.z"), peer) is Code.CREDENTIAL_INVALID
        assert await refused(prover, bearing(""), peer) is Code.CREDENTIAL_INVALID


async def test_a_token_for_another_service_is_refused(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """Row 18: lifted from the logs of a service with another audience, it is worth nothing."""
    token = agent.authority.token(claims(aud="orders"))
    async with proving(agent, clock) as prover:
        assert await refused(prover, bearing(token), peer) is Code.CREDENTIAL_INVALID


async def test_a_token_is_good_until_it_expires_and_no_longer(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """Also when it was verified before: what is remembered expires with the token."""
    token = bearing(agent.authority.token())
    async with proving(agent, clock) as prover:
        await prover.identify(token, peer)
        clock.pass_time(timedelta(seconds=269))
        await prover.identify(token, peer)
        clock.pass_time(timedelta(seconds=1))
        assert await refused(prover, token, peer) is Code.CREDENTIAL_EXPIRED


async def test_a_clock_that_steps_back_makes_no_token_good(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """A token from the future is refused, remembered or not."""
    token = bearing(agent.authority.token())
    async with proving(agent, clock) as prover:
        await prover.identify(token, peer)
        clock.wall_offset -= timedelta(seconds=91)
        assert await refused(prover, token, peer) is Code.CREDENTIAL_INVALID


async def test_one_users_token_is_refused_from_another(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """Row 17: the first user that presents a token owns it; its other processes may present it."""
    token = bearing(agent.authority.token())
    thief, colleague = replace(peer, uid=peer.uid + 1), replace(peer, pid=peer.pid + 1)
    async with proving(agent, clock) as prover:
        await prover.identify(token, peer)
        await prover.identify(token, colleague)
        assert await refused(prover, token, thief) is Code.CREDENTIAL_INVALID
        await prover.identify(token, peer)
        fresh = bearing(agent.authority.token(claims(jti="fresh")))
        await prover.identify(fresh, thief)


async def test_another_spelling_of_the_signature_is_the_same_token(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """Row 17: (r, n - s) is as good a signature as (r, s), and makes no token of one's own."""
    token = agent.authority.token()
    respelled = with_other_signature(token)
    thief = replace(peer, uid=peer.uid + 1)
    async with proving(agent, clock) as prover:
        caller = await prover.identify(bearing(token), peer)
        again = await prover.identify(bearing(respelled), peer)
        assert respelled != token
        assert again.evidence == caller.evidence
        assert await refused(prover, bearing(respelled), thief) is Code.CREDENTIAL_INVALID


def with_other_signature(token: str) -> str:
    """Make (r, n - s) of (r, s); n is the order of P-256 (SEC 2, section 2.4.2)."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signed, _, text = token.rpartition(".")
    raw = base64.urlsafe_b64decode(text + "==")
    other = order - int.from_bytes(raw[32:])
    return f"{signed}.{encode(raw[:32] + other.to_bytes(32))}"


async def test_ownership_survives_a_rotation_of_keys(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """Verdicts are forgotten when bundles change; who owns a token is not."""
    token = bearing(agent.authority.token())
    async with proving(agent, clock) as prover:
        await prover.identify(token, peer)
        await said(prover, agent, [agent.authority, Authority.ecdsa("k9")])
        await prover.identify(token, peer)
        thief = replace(peer, uid=peer.uid + 1)
        assert await refused(prover, token, thief) is Code.CREDENTIAL_INVALID


async def said(prover: Proving, agent: Agent, authorities: list[Authority]) -> None:
    """Let the agent say these keys, and wait until they are heard."""
    version = prover.api.version
    agent.bundles["spiffe://example.org"] = jwks(authorities)
    await agent.push()
    await prover.api.changed(version)


async def test_a_withdrawn_key_is_refused_at_once(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """A verdict that was remembered does not outlive the key that it rests on."""
    token = bearing(agent.authority.token())
    async with proving(agent, clock) as prover:
        await prover.identify(token, peer)
        await said(prover, agent, [Authority.ecdsa("k9")])
        assert await refused(prover, token, peer) is Code.CREDENTIAL_INVALID


async def test_an_unavailable_agent_is_told_apart_from_a_bad_token(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """503 identity_unavailable: when nobody can be proven, nobody is called a liar."""
    token = bearing(agent.authority.token())
    async with proving(agent, clock) as prover:
        agent.refusal = grpc.StatusCode.PERMISSION_DENIED
        await agent.push()
        await prover.heard(lambda api: not api.trust.jwt)
        with pytest.raises(Unavailable) as raised:
            await prover.identify(token, peer)
        assert raised.value.code is Code.IDENTITY_UNAVAILABLE
        assert raised.value.created_nothing
        assert prover.prover.ready() is not None


async def test_only_our_own_trust_domain_is_believed_unless_others_are_named(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """Federation of the agent is not federation of the daemon."""
    partner = Authority.ecdsa("p1")
    agent.bundles["spiffe://partner.test"] = jwks([partner])
    foreign = bearing(partner.token(claims(sub="spiffe://partner.test/w")))
    own = bearing(agent.authority.token())
    async with proving(agent, clock) as prover:
        await prover.identify(own, peer)
        assert await refused(prover, foreign, peer) is Code.CREDENTIAL_INVALID
    both = frozenset({"example.org", "partner.test"})
    async with proving(agent, clock, trust_domains=both) as prover:
        await prover.identify(own, peer)
        caller = await prover.identify(foreign, peer)
        assert caller.spiffe_id == SpiffeId("partner.test", "/w")
    async with proving(agent, clock, trust_domains=frozenset({"partner.test"})) as prover:
        assert await refused(prover, own, peer) is Code.CREDENTIAL_INVALID


async def test_believing_nobody_that_the_agent_knows_is_not_ready(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """A list that names only strangers is a reason, not a 401 for everybody."""
    async with agent.serving(), WorkloadApi(agent.endpoint, clock) as api:
        prover = Prover(Believer(api, frozenset({"elsewhere.test"})), clock, JwtRules(AUDIENCE))
        await api.first_bundles()
        assert "believed" in (prover.ready() or "")
        token = bearing(agent.authority.token())
        assert await refused(Proving(prover, api), token, peer) is Code.IDENTITY_UNAVAILABLE


async def test_a_peer_that_is_not_known_is_unattested(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """Rows 26 and 27: however good the token, somebody must stand behind it."""
    token = bearing(agent.authority.token())
    async with proving(agent, clock) as prover:
        for unknown in (replace(peer, proof=PeerProof.NONE), replace(peer, pidfd=None)):
            assert await refused(prover, token, unknown) is Code.PEER_UNATTESTED


async def test_a_peer_that_exited_is_unattested(
    agent: Agent, clock: ClockAtNow, peer: Peer, caller: Workload
) -> None:
    """Row 25: a connection that outlives its process proves nobody, whoever holds it now."""
    token = bearing(agent.authority.token())
    async with proving(agent, clock) as prover:
        await prover.identify(token, peer)
        caller.tell("child-takes-over").reap()
        assert await refused(prover, token, peer) is Code.PEER_UNATTESTED


async def test_a_token_and_a_certificate_together_are_refused(
    agent: Agent, clock: SteppedClock, peer: Peer
) -> None:
    """Who presents two identities is asked for one."""
    token = Secret(agent.authority.token())
    async with proving(agent, clock) as prover:
        presented = Presented(bearer=token, chain=agent.root.workload(SUBJECT).chain)
        assert await refused(prover, presented, peer) is Code.CREDENTIAL_INVALID


async def test_a_certificate_proves_who_and_until_when(agent: Agent, peer: Peer) -> None:
    """The chain of a connection; the evidence is the leaf's digest."""
    leaf = agent.root.workload(SUBJECT)
    async with proving(agent, SteppedClock()) as prover:
        caller = await prover.identify(Presented(chain=leaf.chain), peer)

    assert str(caller.spiffe_id) == SUBJECT
    assert caller.method is IdentityMethod.X509_SVID
    assert caller.proven_until == leaf.certificate.not_valid_after_utc
    assert caller.evidence == sha256(leaf.certificate.tbs_certificate_bytes).hexdigest()


async def test_a_certificate_is_verified_with_each_request(agent: Agent, peer: Peer) -> None:
    """It expires and its authority is withdrawn on connections that stay open."""
    leaf = Presented(chain=agent.root.workload(SUBJECT, ends=timedelta(minutes=5)).chain)
    longer = Presented(chain=agent.root.workload(SUBJECT).chain)
    clock = SteppedClock()
    async with proving(agent, clock) as prover:
        await prover.identify(leaf, peer)
        await prover.identify(longer, peer)
        clock.pass_time(timedelta(minutes=6))
        assert await refused(prover, leaf, peer) is Code.CREDENTIAL_EXPIRED
        before = prover.api.trust.x509
        agent.roots = (root("example.org"),)
        await agent.push()
        await prover.heard(lambda api: api.trust.x509 != before)
        assert await refused(prover, longer, peer) is Code.CREDENTIAL_INVALID
        agent.refusal = grpc.StatusCode.PERMISSION_DENIED
        await agent.push()
        await prover.heard(lambda api: not api.trust.x509)
        assert await refused(prover, longer, peer) is Code.IDENTITY_UNAVAILABLE


async def test_tokens_can_be_bound_to_processes(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """`identity.token: process`: another process of the same user is refused."""
    token = bearing(agent.authority.token())
    colleague = replace(peer, pid=peer.pid + 1)
    firmly = replace(peer, proof=PeerProof.PIDFD)
    async with proving(agent, clock, owners=OwnerRules(TokenBinding.PROCESS)) as prover:
        guessed = replace(peer, proof=PeerProof.START_TIME)
        assert await refused(prover, token, guessed) is Code.PEER_UNATTESTED
        await prover.identify(token, firmly)
        if colleague.proof is PeerProof.PIDFD:
            assert await refused(prover, token, colleague) is Code.CREDENTIAL_INVALID


async def test_a_caller_says_whether_its_token_came_from_one_process(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """For definitions that ask for it; once a colleague has shown the token, it is the user's."""
    token = bearing(agent.authority.token())
    firmly = replace(peer, proof=PeerProof.PIDFD)
    colleague = replace(firmly, pid=peer.pid + 1)
    guessed = replace(peer, proof=PeerProof.START_TIME)
    async with proving(agent, clock) as prover:
        bindings = [
            (await prover.identify(token, who)).binding
            for who in (firmly, firmly, colleague, firmly)
        ]
        another = bearing(agent.authority.token(claims(iat=NOW - 1)))
        weak = [(await prover.identify(another, who)).binding for who in (guessed, firmly)]

    process, uid = TokenBinding.PROCESS, TokenBinding.UID
    assert bindings == [process, process, uid, uid]
    assert weak == [uid, uid]


async def test_a_token_with_a_jti_can_be_for_one_request(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """`identity.single_use_jti`: also with another signature; tokens without one are as ever."""
    token = agent.authority.token(claims(jti="one"))
    cached = agent.authority.token()
    async with proving(agent, clock, owners=OwnerRules(single_use=True)) as prover:
        await prover.identify(bearing(token), peer)
        for again in (token, with_other_signature(token)):
            assert await refused(prover, bearing(again), peer) is Code.CREDENTIAL_INVALID
        await prover.identify(bearing(agent.authority.token(claims(jti="two"))), peer)
        await prover.identify(bearing(cached), peer)
        await prover.identify(bearing(cached), peer)


# --- bounds ----------------------------------------------------------------------------------


def svid(number: int, expires_at: int) -> JwtSvid:
    """A verified token, by number."""
    return JwtSvid(SpiffeId("example.org", "/w"), "example.org#k1", NOW, expires_at, str(number))


def test_owners_are_forgotten_when_tokens_expire_and_bounded_before(peer: Peer) -> None:
    """P10: a flood of tokens does not grow the table; a user is refused before others are."""
    owners = TokenOwners(OwnerRules(leeway=0, most=40))
    for number in range(10):
        owners.claim(svid(number, NOW + number), peer, NOW)
    owners.claim(svid(99, NOW + 99), peer, NOW + 6)
    assert len(owners) == 4  # 7, 8, 9 live, and the new one

    for number in range(100, 106):
        owners.claim(svid(number, NOW + number), peer, NOW + 6)
    for when in (6, 6.5, -20, 6.9):  # the clock set back, too
        with pytest.raises(LimitExceeded) as raised:
            owners.claim(svid(200, NOW + 200), peer, NOW + when)
        assert raised.value.limit is Limit.TOKENS
    others = [replace(peer, uid=peer.uid + number) for number in range(1, 5)]
    for other in others[:3]:
        for number in range(10):
            owners.claim(svid(1000 * other.uid + number, NOW + 99), other, NOW + 6)
    assert len(owners) == 40
    with pytest.raises(LimitExceeded):
        owners.claim(svid(300, NOW + 300), others[3], NOW + 6)
    owners.claim(svid(300, NOW + 300), others[3], NOW + 101)


def test_a_token_is_never_forgotten_while_it_is_good(peer: Peer) -> None:
    """P12: however many others are shown, a single-use token is used once."""
    owners = TokenOwners(OwnerRules(single_use=True, most=16))
    first = replace(svid(0, NOW + 60), jti="first")
    owners.claim(first, peer, NOW)
    for number in range(1, 100):
        with suppress(LimitExceeded):
            owners.claim(svid(number, NOW + 3600), peer, NOW)
    with pytest.raises(Unproven):
        owners.claim(first, peer, NOW)
    with pytest.raises(Unproven):
        owners.claim(svid(1, NOW + 3600), replace(peer, uid=peer.uid + 1), NOW)


def test_verdicts_are_bounded() -> None:
    """P10: as many distinct good tokens as one likes do not grow the table beyond its bound."""
    authority = Authority.ecdsa()
    verdicts = Verdicts(JwtRules(AUDIENCE), most=10)
    with pytest.raises(Unproven):
        verdicts.verify_token(authority.token(), NOW)
    verdicts.use(Believed(jwt={"example.org": parse_jwt_bundle(jwks([authority]))}))
    for number in range(50):
        verdicts.verify_token(authority.token(claims(jti=str(number), exp=NOW + number + 1)), NOW)
        assert 0 < len(verdicts) <= 10
    verdicts.use(Believed())
    assert len(verdicts) == 0


# --- withdrawal ------------------------------------------------------------------------------


async def test_a_callers_authority_stands_until_it_is_withdrawn(
    agent: Agent, clock: ClockAtNow, peer: Peer
) -> None:
    """P4: a rotation that keeps the key keeps it standing; without the key it is withdrawn."""
    async with proving(agent, clock) as prover:
        caller = await prover.identify(bearing(agent.authority.token()), peer)
        authority = caller.authority
        assert prover.prover.stands(authority)
        seen = await prover.prover.changed(0)
        await said(prover, agent, [agent.authority, Authority.ecdsa("k9")])
        assert await prover.prover.changed(seen) > seen
        assert prover.prover.stands(authority)
        agent.refusal = grpc.StatusCode.PERMISSION_DENIED
        await agent.push()
        await prover.heard(lambda api: not api.trust.jwt)
        assert prover.prover.stands(authority)
        agent.refusal = None
        agent.bundles["spiffe://example.org"] = jwks([Authority.ecdsa("k9")])
        await prover.heard(lambda api: bool(api.trust.jwt))
        assert not prover.prover.stands(authority)


async def test_a_domain_that_is_not_believed_any_more_is_withdrawn(
    agent: Agent, clock: ClockAtNow
) -> None:
    """After a restart with another list, adopted tasks of a domain left out end."""
    async with proving(agent, clock, trust_domains=frozenset({"example.org"})) as prover:
        assert not prover.prover.stands("jwt:partner.test#k1")
        assert prover.prover.stands("jwt:example.org#k1")
