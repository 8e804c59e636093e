"""The development Workload API attests, serves, caches, pushes and withdraws as SPIRE's agent."""

import asyncio
import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from spiffe._proto import workload_pb2 as pb

from taskmint.devstack.executables import copied_interpreter
from taskmint.devstack.registration import Entry
from taskmint.devstack.workload_api import WorkloadApi

ME = "spiffe://example.org/test"
ONE, TWO = "spiffe://example.org/one", "spiffe://example.org/two"
HEADER = (("workload.spiffe.io", "true"),)
SCRIPT = Path(__file__).with_name("fetch_svid.py")
OTHER_UID = 4242
HERE = str(Path("/proc/self/exe").readlink())
SERVER_AND_CLIENT = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[WorkloadApi]:
    """An agent that knows this very process, and nobody else."""
    entry = Entry(ME, HERE, os.geteuid())
    async with WorkloadApi.running(tmp_path, [entry]) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WorkloadApi]:
    """The same for tests that change nothing in it."""
    entry = Entry(ME, HERE, os.geteuid())
    async with WorkloadApi.running(tmp_path_factory.mktemp("agent"), [entry]) as running:
        yield running


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that other users can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


class Client:
    """The five calls, over one connection of this process."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def unary(self, name: str, request: Any, answer: Any, metadata: Any = HEADER) -> Any:
        """Make a call with one answer; await it."""
        return self._channel.unary_unary(
            f"/SpiffeWorkloadAPI/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )(request, metadata=metadata, timeout=10)

    def stream(self, name: str, request: Any, answer: Any, metadata: Any = HEADER) -> Any:
        """Open a stream; iterate it."""
        return self._channel.unary_stream(
            f"/SpiffeWorkloadAPI/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )(request, metadata=metadata, timeout=20)

    async def token(self, *audience: str, spiffe_id: str = "") -> str:
        """Fetch this process's token."""
        request = pb.JWTSVIDRequest(audience=audience, spiffe_id=spiffe_id)
        answer = await self.unary("FetchJWTSVID", request, pb.JWTSVIDResponse)
        assert [svid.spiffe_id for svid in answer.svids] == [ME]
        return str(answer.svids[0].svid)

    async def validate(self, token: str, audience: str) -> Any:
        """Have a token validated."""
        request = pb.ValidateJWTSVIDRequest(svid=token, audience=audience)
        return await self.unary("ValidateJWTSVID", request, pb.ValidateJWTSVIDResponse)


@asynccontextmanager
async def connected(api: WorkloadApi) -> AsyncIterator[Client]:
    """Connect, reconnecting quickly when cut."""
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
    async with grpc.aio.insecure_channel(api.endpoint, options=options) as channel:
        yield Client(channel)


async def code(call: Any) -> grpc.StatusCode:
    """Return the status that a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value.code()


async def workload(python: Path | str, api: WorkloadApi, uid: int) -> list[str]:
    """Fetch a token in a process of its own: [SPIFFE ID, token], or [status]."""
    process = await asyncio.create_subprocess_exec(
        *(str(python), str(SCRIPT), str(api.socket), str(uid), "taskmint"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return out.decode().split()


async def test_executables_have_identities(tmp_path: Path) -> None:
    """Two executables get two identities, each process of one the same token, a third nothing."""
    pythons = [copied_interpreter(tmp_path / name) for name in ("one", "two", "three")]
    entries = [Entry(ONE, str(pythons[0])), Entry(TWO, str(pythons[1]), os.geteuid())]
    directory = tmp_path / "agent"
    directory.mkdir()
    async with WorkloadApi.running(directory, entries) as api:
        answers = [await workload(python, api, os.geteuid()) for python in [*pythons, pythons[0]]]

    assert [answer[0] for answer in answers] == [ONE, TWO, "PERMISSION_DENIED", ONE]
    assert answers[0] == answers[3]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
async def test_users_have_identities(tmp_path: Path, public_directory: Path) -> None:
    """Two users of one executable get two identities, a third user nothing."""
    entries = [Entry(ONE, HERE, 0), Entry(TWO, HERE, OTHER_UID)]
    where = public_directory / "workload.sock"
    async with WorkloadApi.running(tmp_path, entries, socket=where) as api:
        answers = [await workload(sys.executable, api, u) for u in (0, OTHER_UID, OTHER_UID + 1)]

    assert [answer[0] for answer in answers] == [ONE, TWO, "PERMISSION_DENIED"]


async def test_nobody_gets_past_the_relay(shared: WorkloadApi) -> None:
    """A connection to the socket behind the relay has no caller, so it gets nothing."""
    target = f"unix:{shared.directory / 'inner.sock'}"
    async with grpc.aio.insecure_channel(target) as channel:
        call = Client(channel).token("taskmint")

        assert await code(call) is grpc.StatusCode.PERMISSION_DENIED


CALLS: list[Callable[[Client, Any], Any]] = [
    lambda c, m: c.unary("FetchJWTSVID", pb.JWTSVIDRequest(audience=["a"]), pb.JWTSVIDResponse, m),
    lambda c, m: c.unary(
        "ValidateJWTSVID",
        pb.ValidateJWTSVIDRequest(audience="a", svid="b"),
        pb.ValidateJWTSVIDResponse,
        m,
    ),
    lambda c, m: c.stream("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse, m).read(),
    lambda c, m: c.stream(
        "FetchX509Bundles", pb.X509BundlesRequest(), pb.X509BundlesResponse, m
    ).read(),
    lambda c, m: c.stream(
        "FetchJWTBundles", pb.JWTBundlesRequest(), pb.JWTBundlesResponse, m
    ).read(),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("metadata", [(), (("workload.spiffe.io", "True"),), HEADER + HEADER])
async def test_the_security_header_is_asked_for(
    shared: WorkloadApi, call: Callable[[Client, Any], Any], metadata: tuple[tuple[str, str], ...]
) -> None:
    """Workload Endpoint, section 3: exactly once, exactly `true`, on every call."""
    async with connected(shared) as client:
        assert await code(call(client, metadata)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_token_is_a_jwt_svid(shared: WorkloadApi) -> None:
    """ES256 with a key id of the JWKS that Vault reads; sub, aud, iat, and five minutes."""
    async with connected(shared) as client:
        token = await client.token("taskmint", "other")
        answer = await client.validate(token, "other")

    header = jwt.get_unverified_header(token)
    with await asyncio.to_thread(urllib.request.urlopen, shared.jwks_url) as served:
        keys = jwt.PyJWKSet.from_dict(json.load(served))
    claims = jwt.decode(token, keys[header["kid"]].key, algorithms=["ES256"], audience="taskmint")
    assert header["alg"] == "ES256"
    assert header["typ"] == "JWT"
    assert claims["sub"] == ME
    assert claims["aud"] == ["taskmint", "other"]
    assert claims["exp"] - claims["iat"] == 300
    assert answer.spiffe_id == ME
    assert answer.claims["sub"] == ME


async def test_wrong_questions_are_refused(shared: WorkloadApi) -> None:
    """No audience, another's identity, a token for others, a token of nobody: each its status."""
    async with connected(shared) as client:
        token = await client.token("taskmint")

        invalid, denied = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED
        assert await code(client.token()) is invalid
        assert await code(client.token("taskmint", spiffe_id=TWO)) is denied
        assert await client.token("taskmint", spiffe_id=ME) == token
        assert await code(client.validate(token, "other")) is invalid
        assert await code(client.validate(token, "")) is invalid
        assert await code(client.validate("", "taskmint")) is invalid
        assert await code(client.validate("no.token.atall", "taskmint")) is invalid


async def test_tokens_are_cached_and_keys_withdrawn(api: WorkloadApi) -> None:
    """A rotation alone keeps handing out the token; a withdrawn key takes its tokens along."""
    async with connected(api) as client:
        bundles = client.stream("FetchJWTBundles", pb.JWTBundlesRequest(), pb.JWTBundlesResponse)

        def kids(message: Any) -> list[str]:
            return [
                key["kid"] for key in json.loads(message.bundles["spiffe://example.org"])["keys"]
            ]

        first = kids(await bundles.read())
        token = await client.token("taskmint")
        assert await client.token("taskmint") == token
        assert await client.token("other") != token

        await api.rotate_jwt()
        second = kids(await bundles.read())
        assert (len(second), second[:1]) == (2, first)
        assert await client.token("taskmint") == token

        await api.rotate_jwt(retire=True)
        third = kids(await bundles.read())
        assert len(third) == 1
        assert not {*first, *second} & {*third}
        replaced = await client.token("taskmint")
        assert jwt.get_unverified_header(replaced)["kid"] == third[0]
        assert await code(client.validate(token, "taskmint")) is grpc.StatusCode.INVALID_ARGUMENT
        bundles.cancel()


async def test_a_certificate_is_an_x509_svid(shared: WorkloadApi) -> None:
    """X509-SVID, sections 2 to 4: one URI, a leaf, both usages, signed by an authority."""
    async with connected(shared) as client:
        stream = client.stream("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)
        svid = (await stream.read()).svids[0]
        stream.cancel()

    leaf = x509.load_der_x509_certificate(svid.x509_svid)
    authority = x509.load_der_x509_certificate(svid.bundle)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    leaf.verify_directly_issued_by(authority)
    assert list(names) == [x509.UniformResourceIdentifier(ME)]
    assert (usage.critical, usage.value.digital_signature) == (True, True)
    assert (usage.value.key_cert_sign, usage.value.crl_sign) == (False, False)
    assert not constraints.value.ca
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {*purposes} == {*SERVER_AND_CLIENT}
    issued = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    made = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert issued.key_identifier == made.digest
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds() < 4000


async def test_certificates_rotate_on_every_stream(api: WorkloadApi) -> None:
    """A new authority is pushed with a new certificate; a withdrawn one leaves the bundle."""
    async with connected(api) as client:
        svids = client.stream("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)
        bundles = client.stream("FetchX509Bundles", pb.X509BundlesRequest(), pb.X509BundlesResponse)
        before = (await svids.read()).svids[0]
        assert (await bundles.read()).bundles["spiffe://example.org"] == before.bundle

        await api.rotate_x509()
        after = (await svids.read()).svids[0]
        assert after.x509_svid != before.x509_svid
        assert after.bundle.startswith(before.bundle)
        assert (await bundles.read()).bundles["spiffe://example.org"] == after.bundle

        await api.rotate_x509(retire=True)
        last = (await svids.read()).svids[0]
        authority = x509.load_der_x509_certificate(last.bundle)
        x509.load_der_x509_certificate(last.x509_svid).verify_directly_issued_by(authority)
        svids.cancel()
        bundles.cancel()


async def test_a_redacted_identity_is_told_on_open_streams(api: WorkloadApi) -> None:
    """Without its entry the process gets PERMISSION_DENIED, at once, and with it again an SVID."""
    async with connected(api) as client:
        stream = client.stream("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)
        await stream.read()

        await api.redact(ME)
        assert await code(stream.read()) is grpc.StatusCode.PERMISSION_DENIED
        assert await code(client.token("taskmint")) is grpc.StatusCode.PERMISSION_DENIED

        await api.register(Entry(ME, HERE))
        assert await client.token("taskmint")


async def test_the_agent_goes_and_comes_back(api: WorkloadApi) -> None:
    """A restart keeps keys and cached tokens; a cut breaks streams; a kill makes new keys."""
    async with connected(api) as client:
        token = await client.token("taskmint")
        stream = client.stream("FetchJWTBundles", pb.JWTBundlesRequest(), pb.JWTBundlesResponse)
        await stream.read()

        await api.drop()
        assert await code(stream.read()) is grpc.StatusCode.UNAVAILABLE

        await api.stop()
        assert not api.socket.exists()
        await api.start()
    async with connected(api) as client:
        assert await client.token("taskmint") == token

        await api.kill()
        await api.start()
    async with connected(api) as client:
        assert await code(client.validate(token, "taskmint")) is grpc.StatusCode.INVALID_ARGUMENT


async def test_it_says_what_it_is(shared: WorkloadApi) -> None:
    """The log starts with what this is not."""
    log = await asyncio.to_thread((shared.directory / "agent.log").read_text)

    assert log.startswith("DEVELOPMENT ONLY: this Workload API is not SPIRE")
