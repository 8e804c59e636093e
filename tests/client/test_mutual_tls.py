"""Mutual TLS on the client's side: who the daemon must be, before it learns anything."""

import asyncio
import contextlib
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spiffe._proto import workload_pb2

from identity.agent import Agent
from identity.pki import Signed, Terms, der, root
from taskmint.client.client import TaskmintClient
from taskmint.client.errors import ClientError, Interrupted, NoIdentity, WrongDaemon
from taskmint.client.mutual_tls import expected
from taskmint.client.protobuf import first_x509_svid
from taskmint.client.workload_api import MutualTls
from taskmint.identity.tls import server_context

from fakes.task_socket import FakeDaemon

ME = "spiffe://example.org/orders"
DAEMON = "spiffe://example.org/taskmint/node-7"


@dataclass
class Setting:
    """An agent that gives us `ME`, and a socket."""

    agent: Agent
    socket: Path

    @contextlib.asynccontextmanager
    async def daemon(self, svid: Signed) -> AsyncIterator[FakeDaemon]:
        """Serve TLS with this SVID, to callers of our trust domain."""
        own, bundles = svid.svid(DAEMON), {"example.org": (self.agent.root.certificate,)}
        fake = FakeDaemon(self.socket, server_context(own, bundles))
        async with fake.serving():
            yield fake

    def client(self, daemon: str = DAEMON) -> TaskmintClient:
        """A client that expects this daemon."""
        return TaskmintClient(str(self.socket), MutualTls(daemon, self.agent.endpoint))

    async def refusal(self, daemon: str = DAEMON) -> ClientError:
        """Why no task can be started."""
        with pytest.raises(ClientError) as caught:
            await self.client(daemon).start("orders")
        return caught.value


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    """Each test its own."""
    agent = Agent(tmp_path / "agent.sock")
    agent.own, agent.own_id = agent.root.workload(ME), ME
    async with agent.serving():
        yield Setting(agent, tmp_path / "task.sock")


async def test_a_whole_task_without_a_token(setting: Setting) -> None:
    """Start and end carry no token; the daemon saw our certificate on the connection."""
    async with (
        setting.daemon(setting.agent.root.workload(DAEMON)) as daemon,
        setting.client() as client,
        client.task("orders"),
    ):
        pass

    assert [asked.what for asked in daemon.asked] == ["start", "end"]
    assert {asked.leaf for asked in daemon.asked} == {setting.agent.own.chain[0]}
    assert {asked.token for asked in daemon.asked} == {""}


@pytest.mark.parametrize("pattern", ["spiffe://example.org/taskmint/*", "spiffe://EXAMPLE.org/*/*"])
async def test_a_star_is_one_whole_segment(setting: Setting, pattern: str) -> None:
    """One name for the daemons of every node."""
    async with setting.daemon(setting.agent.root.workload(DAEMON)) as daemon:
        await setting.client(pattern).start("orders")

    assert daemon.count("start") == 1


@pytest.mark.parametrize(
    "found",
    [
        "spiffe://example.org/taskmint/node-8",
        "spiffe://example.org/taskmint/node-7/x",
        "spiffe://example.org/taskmint",
        "spiffe://example.org/taskmint/node-70",
    ],
)
async def test_another_identity_of_the_trust_domain_learns_nothing(
    setting: Setting, found: str
) -> None:
    """A workload that took over the socket's path is not the daemon; the refusal names it."""
    async with setting.daemon(setting.agent.root.workload(found)) as impostor:
        error = await setting.refusal()

    assert isinstance(error, WrongDaemon)
    assert found in error.detail
    assert impostor.asked == []


async def test_another_trust_domain_cannot_sign_for_the_daemon(setting: Setting) -> None:
    """A federated root that signed a certificate with the daemon's own ID is not believed."""
    other = root("other.org")
    setting.agent.federated = {"spiffe://other.org": der(other.certificate)}
    async with setting.daemon(other.workload(DAEMON)) as impostor:
        error = await setting.refusal()

    assert isinstance(error, WrongDaemon)
    assert "cannot prove" in error.detail
    assert impostor.asked == []


async def test_a_daemon_of_a_federated_trust_domain(setting: Setting) -> None:
    """Verified by that domain's bundle alone: our own root cannot speak for it."""
    other, theirs = root("other.org"), "spiffe://other.org/taskmint"
    setting.agent.federated = {"spiffe://other.org": der(other.certificate)}
    async with setting.daemon(other.workload(theirs)) as daemon:
        await setting.client(theirs).start("orders")
    setting.socket.unlink(missing_ok=True)
    async with setting.daemon(setting.agent.root.workload(theirs)) as impostor:
        error = await setting.refusal(theirs)

    assert daemon.count("start") == 1
    assert isinstance(error, WrongDaemon)
    assert impostor.asked == []


async def test_two_names_are_nobodys(setting: Setting) -> None:
    """X509-SVID, section 2: exactly one URI."""
    two = setting.agent.root.issue(Terms(uris=(DAEMON, ME)))
    async with setting.daemon(two) as impostor:
        error = await setting.refusal()

    assert isinstance(error, WrongDaemon)
    assert impostor.asked == []


async def test_plain_text_is_not_the_daemon(setting: Setting) -> None:
    """What speaks no TLS gets no request, and nothing in plain text."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(4096))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_unix_server(answer, setting.socket):
        error = await setting.refusal()

    assert not isinstance(error, Interrupted)
    assert len(heard) == 1
    assert heard[0][:1] == b"\x16"  # a TLS handshake, whatever came after
    assert b"orders" not in heard[0]


async def test_a_trust_domain_without_a_bundle_is_said(setting: Setting) -> None:
    """Nothing to verify the daemon with: no connection, and the reason."""
    error = await setting.refusal("spiffe://unknown.org/taskmint")

    assert isinstance(error, NoIdentity)
    assert "spiffe://unknown.org" in error.detail


async def test_reproof_asks_the_agent_for_a_new_certificate(setting: Setting) -> None:
    """From a third of the interval on, a beat shows the SVID that the agent has by then."""
    async with setting.daemon(setting.agent.root.workload(DAEMON)) as daemon:
        daemon.reprove_seconds = 0.3
        async with setting.client() as client, client.task("orders"):
            newer = setting.agent.own = setting.agent.root.workload(ME)
            await setting.agent.push()
            await daemon.until(lambda: daemon.asked[-1].leaf == newer.chain[0])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "taskmint",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://*/taskmint",
        "spiffe://example.org/task*",
        "spiffe://example.org/**",
        "spiffe://example.org/a//b",
        "https://example.org/taskmint",
    ],
)
def test_what_no_daemon_can_be(text: str) -> None:
    """Refused when the client is made, with what to write instead."""
    with pytest.raises(WrongDaemon) as caught:
        expected(text)

    assert "spiffe://example.org/taskmint" in caught.value.fix


def test_x509_answers_are_what_protobuf_reads() -> None:
    """The first SVID of several, with the federated bundles."""
    message = workload_pb2.X509SVIDResponse(
        svids=[
            workload_pb2.X509SVID(
                spiffe_id=name, x509_svid=b"c", x509_svid_key=b"k", bundle=b"b", hint="h"
            )
            for name in ("spiffe://a/first", "spiffe://a/second")
        ],
        crl=[b"crl"],
        federated_bundles={"spiffe://b": b"bb", "spiffe://c": b""},
    )
    read = first_x509_svid(message.SerializeToString())

    assert (read.spiffe_id, read.chain, read.key, read.bundle) == (
        "spiffe://a/first",
        b"c",
        b"k",
        b"b",
    )
    assert dict(read.federated) == {"spiffe://b": b"bb", "spiffe://c": b""}
    assert "k" not in repr(read).removeprefix("X509Svid")


@given(st.binary(max_size=60))
def test_other_x509_messages_are_refused(message: bytes) -> None:
    """Whatever comes, a ValueError or an SVID."""
    with contextlib.suppress(ValueError):
        first_x509_svid(message)


Environment = Callable[[str], dict[str, str]]


@pytest.fixture
def environment(setting: Setting) -> Environment:
    """What `taskmint run` finds when it is to expect a daemon."""
    names = {
        "TASKMINT_SOCKET": str(setting.socket),
        "SPIFFE_ENDPOINT_SOCKET": setting.agent.endpoint,
    }
    return lambda daemon: {**os.environ, **names, "TASKMINT_DAEMON_ID": daemon}


async def run(environment: dict[str, str]) -> tuple[int | None, str]:
    """`taskmint run` of a command that says hello; returns its code and all that was said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", "run", "--task", "orders", "--", "echo", "hello"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_run_speaks_by_mutual_tls(setting: Setting, environment: Environment) -> None:
    """TASKMINT_DAEMON_ID is all that it takes."""
    async with setting.daemon(setting.agent.root.workload(DAEMON)) as daemon:
        assert await run(environment(DAEMON)) == (0, "hello\n")

    assert [asked.leaf for asked in daemon.asked] == [setting.agent.own.chain[0]] * 2


async def test_run_says_who_answered_instead(setting: Setting, environment: Environment) -> None:
    """125, the command does not run, and the impostor has learned nothing."""
    async with setting.daemon(setting.agent.root.workload(ME)) as impostor:
        code, said = await run(environment(DAEMON))

    assert code == 125
    assert f"proves to be '{ME}'" in said
    assert "hello" not in said
    assert impostor.asked == []


async def test_run_refuses_an_id_that_cannot_be(environment: Environment) -> None:
    """Before anything is asked for."""
    code, said = await run(environment("spiffe://example.org"))

    assert code == 125
    assert "trust domain" in said


async def test_the_key_reaches_no_disk(setting: Setting) -> None:
    """The terms hold no key that could be printed, and OpenSSL read it from memory."""
    proof = await MutualTls(DAEMON, setting.agent.endpoint).proof()

    assert isinstance(proof.terms.context if proof.terms else None, ssl.SSLContext)
    assert repr(proof) == "Proof(an X.509-SVID)"
    assert repr(proof.terms) == f"Terms(daemon={DAEMON!r})"
