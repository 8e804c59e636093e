"""Following the Workload API: readiness, redaction, and every way in which a stream can end."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from identity.agent import OWN_ID, Agent
from identity.agent_process import agent_process
from identity.pki import der, misspelt
from identity.signer import NOW, Authority, jwks
from taskmint.clock import SystemClock
from taskmint.errors import Code, TaskmintError, Unavailable
from taskmint.identity.changes import Changes
from taskmint.identity.workload_api import Absence, WorkloadApi
from taskmint.identity.x509_context import x509_authority

from fakes.clock import SteppedClock

PARTNER: Final = Authority.ecdsa("p1")
RECOVERY: Final = 6.0  # seconds; issue: "recovers within 6 s of the agent's return"


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """An agent that is not serving yet."""
    return Agent(tmp_path / "agent.sock")


def following(agent: Agent, clock: SteppedClock | None = None, **options: Any) -> WorkloadApi:
    """Follow the agent."""
    return WorkloadApi(agent.endpoint, clock or SteppedClock(), **options)


async def until(api: WorkloadApi, reached: Callable[[WorkloadApi], bool]) -> None:
    """Wait until a change of the picture makes it so."""
    async with asyncio.timeout(RECOVERY):
        while not reached(api):
            await api.changed(api.version)


def domains(api: WorkloadApi) -> set[str]:
    """The trust domains with JWT bundles."""
    return set(api.trust.jwt)


async def test_the_first_bundles_make_it_ready(agent: Agent) -> None:
    """It starts, hears both streams, and knows its own SPIFFE ID; each call has the header."""
    async with agent.serving(), following(agent) as api:
        async with asyncio.timeout(RECOVERY):
            await api.first_bundles()
        await until(api, lambda api: api.trust.own is not None)

        assert api.ready() is None
        assert api.absence() is None
        assert api.age() == 0
        assert domains(api) == {"example.org"}
        assert api.trust.own is not None
        assert str(api.trust.own.spiffe_id) == OWN_ID
        assert len(api.trust.x509["example.org"]) == 1
        assert all(one["workload.spiffe.io"] == "true" for one in agent.metadata)
        assert "PRIVATE" not in repr(api.trust)
        assert agent.own.pkcs8.hex() not in repr(api.trust)


async def test_it_starts_without_an_agent(agent: Agent) -> None:
    """No socket at all is a reason not to be ready, and nothing else; then the agent comes."""
    async with following(agent) as api:
        await asyncio.sleep(0.3)
        assert api.ready() is not None
        assert api.absence() is Absence.AWAY
        assert api.age() == float("inf")
        with pytest.raises(Unavailable) as raised:
            await api.fetch_jwt_svid("vault")
        assert raised.value.code is Code.IDENTITY_UNAVAILABLE
        async with agent.serving(), asyncio.timeout(RECOVERY):
            await api.first_bundles()


async def test_an_agent_that_comes_back_on_a_new_socket_is_found(agent: Agent) -> None:
    """After an outage bundles stay usable, their age grows, and the new agent is heard."""
    clock = SteppedClock()
    async with following(agent, clock) as api:
        async with agent.serving():
            await api.first_bundles()
        await until_age(api, lambda age: age > 0)
        clock.pass_time(timedelta(seconds=50))
        assert api.ready() is None
        assert api.age() >= 50
        agent.socket.unlink(missing_ok=True)
        agent.bundles["spiffe://partner.test"] = jwks([PARTNER])
        async with agent.serving():
            await until(api, lambda api: "partner.test" in domains(api))
            assert api.age() == 0


async def until_age(api: WorkloadApi, reached: Callable[[float], bool]) -> None:
    """Wait for the age, which changes with time and tells nobody."""
    async with asyncio.timeout(RECOVERY):
        while not reached(api.age()):
            await asyncio.sleep(0.02)


async def test_an_agent_replaced_under_an_open_connection_is_noticed(
    agent: Agent, tmp_path: Path
) -> None:
    """A new socket at the same path is followed even while the old agent still holds on."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(agent.serving())
        api = await stack.enter_async_context(following(agent))
        await api.first_bundles()
        successor = Agent(tmp_path / "successor.sock")
        successor.bundles = {"spiffe://successor.test": jwks([PARTNER])}
        await stack.enter_async_context(successor.serving())
        await asyncio.to_thread(successor.socket.rename, agent.socket)
        await until(api, lambda api: domains(api) == {"successor.test"})


async def test_an_agent_that_hangs_does_not_stand_behind_its_bundles(tmp_path: Path) -> None:
    """A stopped process keeps its connections; it is taken for away, and heard when it goes on."""
    socket = tmp_path / "agent.sock"
    patience: dict[str, Any] = {"deadline": 0.3, "ask_every": 0.2, "max_age": 0.5}
    with agent_process(socket) as pid:
        async with WorkloadApi(f"unix://{socket}", SystemClock(), **patience) as api:
            await until(api, lambda api: api.ready() is None and api.ready_x509() is None)
            before = api.trust
            os.kill(pid, signal.SIGSTOP)
            await until_age(api, lambda age: age > patience["max_age"])
            assert "away for" in (api.ready() or "")
            assert "away for" in (api.ready_x509() or "")
            os.kill(pid, signal.SIGCONT)
            await until_age(api, lambda _: api.ready() is None and api.ready_x509() is None)
            assert api.trust.jwt == before.jwt


async def test_an_agent_that_answers_keeps_its_streams(agent: Agent) -> None:
    """A sign of life costs it nothing that it would notice: no stream is opened again."""
    async with agent.serving(), following(agent, deadline=3.0, ask_every=0.05) as api:
        await until(api, lambda api: api.ready() is None and api.ready_x509() is None)
        await asyncio.sleep(0.5)

        assert agent.opened == 2


async def test_bundles_are_not_believed_for_ever(agent: Agent) -> None:
    """Past `max_age` without the agent they are no longer usable, whatever they were."""
    clock = SteppedClock()
    async with following(agent, clock, max_age=60.0) as api:
        async with agent.serving():
            await api.first_bundles()
        await until_age(api, lambda age: age > 0)
        clock.pass_time(timedelta(seconds=61))

        assert "away" in (api.ready() or "")


async def test_a_withdrawn_bundle_is_gone_at_once(agent: Agent) -> None:
    """Row 22: each message is the whole truth; what it leaves out is withdrawn."""
    agent.bundles["spiffe://partner.test"] = jwks([PARTNER])
    async with agent.serving(), following(agent) as api:
        await until(api, lambda api: domains(api) == {"example.org", "partner.test"})
        del agent.bundles["spiffe://partner.test"]
        await agent.push()
        await until(api, lambda api: domains(api) == {"example.org"})
        agent.bundles.clear()
        await agent.push()
        await until(api, lambda api: not domains(api))
        assert api.ready() is not None
        assert api.absence() is Absence.EMPTY


async def test_a_refused_identity_withdraws_everything(agent: Agent) -> None:
    """Row 22: PERMISSION_DENIED means that we are nobody now; then we may be somebody again."""
    async with agent.serving(), following(agent) as api:
        await until(api, lambda api: api.ready() is None and api.trust.own is not None)
        agent.refusal = grpc.StatusCode.PERMISSION_DENIED
        await agent.push()
        await until(api, lambda api: not domains(api) and api.trust.own is None)
        assert not api.trust.x509
        assert "refuses" in (api.ready() or "")
        assert api.absence() is Absence.REFUSED
        with pytest.raises(Unavailable):
            await api.fetch_jwt_svid("vault")
        agent.refusal = None
        await until(api, lambda api: api.ready() is None and api.trust.own is not None)


async def end_normally(agent: Agent) -> None:
    """End streams as SPIRE does when its context is done."""
    await agent.end()


def refuse_with(code: grpc.StatusCode) -> Callable[[Agent], Awaitable[None]]:
    """End streams with a status, and those opened for a while after."""

    async def refuse(agent: Agent) -> None:
        agent.refusal = code
        opened = agent.opened
        await agent.push()
        await agent.until_opened(opened + 2)
        agent.refusal = None

    return refuse


async def send_too_much(agent: Agent) -> None:
    """Send a message larger than gRPC takes."""
    agent.bundles["spiffe://large.test"] = b" " * (5 << 20)
    opened = agent.opened
    await agent.push()
    await agent.until_opened(opened + 1)
    del agent.bundles["spiffe://large.test"]


async def send_garbage(agent: Agent) -> None:
    """Send what is no message at all, on every stream that is open or opened meanwhile."""
    agent.garbled = True
    opened = agent.opened
    await agent.push()
    await agent.until_opened(opened + 4)
    agent.garbled = False


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(end_normally, id="a normal end"),
        pytest.param(refuse_with(grpc.StatusCode.CANCELLED), id="CANCELLED"),
        pytest.param(refuse_with(grpc.StatusCode.UNAVAILABLE), id="UNAVAILABLE"),
        pytest.param(refuse_with(grpc.StatusCode.INVALID_ARGUMENT), id="INVALID_ARGUMENT"),
        pytest.param(refuse_with(grpc.StatusCode.INTERNAL), id="INTERNAL"),
        pytest.param(send_too_much, id="a message that is too large"),
        pytest.param(send_garbage, id="no message at all"),
    ],
)
async def test_a_stream_that_ends_is_opened_again(
    agent: Agent, fault: Callable[[Agent], Awaitable[None]]
) -> None:
    """Whatever ends a stream, what was known stays known, and news arrive again."""
    async with agent.serving(), following(agent) as api:
        await until(api, lambda api: api.ready() is None and api.ready_x509() is None)
        await fault(agent)
        assert api.ready() is None
        agent.bundles = {**agent.bundles, "spiffe://partner.test": jwks([PARTNER])}
        agent.federated["spiffe://partner.test"] = der(agent.root.certificate)
        await agent.push()
        await until(api, lambda api: "partner.test" in domains(api))
        await until(api, lambda api: "partner.test" in api.trust.x509)


async def test_an_agent_that_sends_garbage_does_not_stand_behind_its_bundles(agent: Agent) -> None:
    """What was known grows old meanwhile: past `max_age` nobody is believed."""
    clock = SteppedClock()
    async with agent.serving(), following(agent, clock, max_age=60.0) as api:
        await api.first_bundles()
        agent.garbled = True
        await agent.push()
        await until_age(api, lambda age: age == 0 and api.ready() is None)
        await agent.until_opened(4)
        clock.pass_time(timedelta(seconds=61))
        await agent.until_opened(6)

        assert "away for" in (api.ready() or "")


class Faltering(Changes):
    """A part of our own reading that fails as nobody expected, once."""

    def __init__(self, api: WorkloadApi) -> None:
        super().__init__()
        self.believed: list[bool] = []
        self._api = api
        self._failed = False

    def note(self) -> None:
        """Fail, or remember whether anybody is believed."""
        if not self._failed:
            self._failed = True
            raise ArithmeticError
        self.believed.append(bool(self._api.trust.jwt) or bool(self._api.trust.x509))
        super().note()


async def test_a_message_that_our_reading_fails_on_ends_the_belief_and_not_the_following(
    agent: Agent,
) -> None:
    """P12: it may be the one that withdraws. The agent is asked again, and then it is heard."""
    api = following(agent)
    api.changes = faltering = Faltering(api)
    async with agent.serving(), api:
        await until(api, lambda api: api.ready() is None and api.ready_x509() is None)

        assert faltering.believed[:1] == [False]
        assert agent.opened == 3


@pytest.mark.parametrize(
    ("name", "bundle"),
    [
        pytest.param("spiffe://broken.test", b"not a JWK set", id="no JWK set"),
        pytest.param("spiffe://broken.test/path", jwks([PARTNER]), id="a workload's ID"),
        pytest.param("broken test", jwks([PARTNER]), id="no name"),
        pytest.param(
            "spiffe://broken.test",
            json.dumps({"keys": [PARTNER.jwk(y="AA")]}).encode(),
            id="a key off its curve",
        ),
    ],
)
async def test_a_malformed_federated_bundle_costs_only_itself(
    agent: Agent, name: str, bundle: bytes
) -> None:
    """It is left out and named; the local domain stands and the stream goes on."""
    async with agent.serving(), following(agent) as api:
        await api.first_bundles()
        agent.bundles[name] = bundle
        await agent.push()
        await until(api, lambda api: len(api.trust.unreadable) == 1)
        assert domains(api) == {"example.org"}
        assert api.ready() is None
        agent.bundles[name.partition("/path")[0].replace(" ", "-")] = jwks([PARTNER])
        await agent.push()
        await until(api, lambda api: len(domains(api)) == 2)


async def test_a_bundle_that_becomes_malformed_is_not_believed_any_more(agent: Agent) -> None:
    """The old keys may be the ones that were withdrawn: unreadable means nobody."""
    agent.bundles["spiffe://partner.test"] = jwks([PARTNER])
    async with agent.serving(), following(agent) as api:
        await until(api, lambda api: "partner.test" in domains(api))
        agent.bundles["spiffe://partner.test"] = b"{}"
        await agent.push()
        await until(api, lambda api: domains(api) == {"example.org"})


async def test_a_malformed_federated_x509_bundle_costs_only_itself(agent: Agent) -> None:
    """The same holds for X.509: our own SVID and domain stand."""
    agent.federated["spiffe://partner.test"] = b"\x30\x03abc"
    async with agent.serving(), following(agent) as api:
        await until(api, lambda api: api.trust.own is not None)
        assert set(api.trust.x509) == {"example.org"}
        agent.federated["spiffe://partner.test"] = der(agent.root.certificate)
        await agent.push()
        await until(api, lambda api: set(api.trust.x509) == {"example.org", "partner.test"})


async def test_a_root_that_only_half_reads_costs_its_own_domain(agent: Agent) -> None:
    """It is named; OpenSSL, which reads all roots or none, never sees it beside others."""
    agent.federated["spiffe://partner.test"] = misspelt("partner.test")
    agent.federated["spiffe://other.test"] = der(agent.root.certificate)
    async with agent.serving(), following(agent) as api:
        await until(api, lambda api: api.trust.own is not None)
        assert set(api.trust.x509) == {"example.org", "other.test"}
        assert "cannot be read" in api.trust.unreadable["partner.test"]


def locked(agent: Agent) -> None:
    """Give a key under a password that nobody told."""
    agent.own_key = agent.own.key.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )


def unnamed(agent: Agent) -> None:
    """Give an SVID of nobody."""
    agent.own_id = "spiffe://"


def keyless(agent: Agent) -> None:
    """Give no key."""
    agent.own_key = b""


@pytest.mark.parametrize("spoil", [locked, unnamed, keyless])
async def test_an_unreadable_own_svid_is_no_svid(
    agent: Agent, spoil: Callable[[Agent], None]
) -> None:
    """
    Then we do not know who we are; the bundles of others are kept.

    P4: nor has anybody's authority been withdrawn, our own domain's least of all.
    """
    async with agent.serving(), following(agent) as api:
        await until(api, lambda api: api.trust.own is not None)
        authority = x509_authority("example.org", agent.root.certificate)
        agent.federated["spiffe://partner.test"] = der(agent.root.certificate)
        spoil(agent)
        await agent.push()
        await until(api, lambda api: api.trust.own is None)
        assert set(api.trust.x509) == {"partner.test"}
        assert "own X.509-SVID" in api.trust.unreadable
        assert api.trust.stands(authority)


async def test_a_silent_agent_is_not_ready_and_not_an_error(agent: Agent) -> None:
    """A stream on which nothing comes keeps us waiting, and news are heard when they come."""
    agent.silent = True
    async with agent.serving(), following(agent, deadline=0.2) as api:
        await agent.until_opened(2)
        assert api.ready() is not None
        assert api.absence() is Absence.SILENT
        with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED"):
            await api.fetch_jwt_svid("vault")
        agent.silent = False
        await agent.push()
        async with asyncio.timeout(RECOVERY):
            await api.first_bundles()


async def test_the_same_message_again_is_no_change(agent: Agent) -> None:
    """After a reconnection verdicts need not be thrown away: the picture is the same object."""
    async with agent.serving(), following(agent) as api:
        await until(api, lambda api: api.ready() is None and api.trust.own is not None)
        before, version = api.trust, api.version
        opened = agent.opened
        await agent.end()
        await agent.until_opened(opened + 2)
        await until_age(api, lambda age: age == 0)

        assert api.trust is before
        assert api.version == version


async def test_a_jwt_svid_of_our_own_is_fetched(agent: Agent) -> None:
    """For the audience asked for, with its expiry, and it does not print."""
    async with agent.serving(), following(agent) as api:
        await api.first_bundles()
        svid = await api.fetch_jwt_svid("vault")

        assert str(svid.spiffe_id) == OWN_ID
        assert svid.expires_at.timestamp() == NOW + 240
        assert svid.token.reveal().count(".") == 2
        assert svid.token.reveal() not in repr(svid)


@pytest.mark.parametrize("token", ["", "no.token", "a.e30.c", "a.!.c", "a.eyJleHAiOiJ4In0.c"])
async def test_a_jwt_svid_that_cannot_be_read_is_unavailable(agent: Agent, token: str) -> None:
    """An agent that answers nonsense is an agent that is away."""
    agent.token = token
    async with agent.serving(), following(agent) as api:
        await api.first_bundles()
        with pytest.raises(Unavailable) as raised:
            await api.fetch_jwt_svid("vault")
        assert raised.value.code is Code.IDENTITY_UNAVAILABLE


@pytest.mark.parametrize("endpoint", ["/run/agent.sock", "tcp://127.0.0.1:80", "unix:agent.sock"])
async def test_an_endpoint_must_be_a_unix_socket(endpoint: str) -> None:
    """SPIFFE Workload Endpoint, section 4; a bearer of identity does not go over a network."""
    with pytest.raises(TaskmintError) as raised:
        async with WorkloadApi(endpoint, SteppedClock()):
            raise AssertionError("must not start")
    assert raised.value.code is Code.CONFIG_INVALID


async def test_not_following_is_not_ready(agent: Agent) -> None:
    """Before and after, nobody is proven."""
    api = following(agent)
    assert api.ready() is not None
    async with agent.serving(), api:
        await api.first_bundles()
    assert api.ready() is not None
    assert api.trust == replace(api.trust)
