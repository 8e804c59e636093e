"""Statements: what is believed of a compact JWS, and everything that is not."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from identity.approver import POLICY, SCOPE, TASK, Signer, claims, jwk_set
from identity.pki import constraints, misspelt, root, uri
from identity.signer import encode
from taskmint.canonical import canonical
from taskmint.errors import Code, Denied
from taskmint.identity.approver_keys import public_jwk, read_jwk_set
from taskmint.identity.statements import MAX_BYTES, Signed, verify_statement
from taskmint.model.approval import Outcome
from taskmint.model.spiffe import SpiffeId

NOW = datetime.now(UTC)
LATER = int(NOW.timestamp()) + 600
ANN = Signer.ed25519()
BOB = Signer.ecdsa()
KEYS = {one.public.thumbprint: one.public for one in (ANN, BOB)}
AUTHORITY = root("example.org")
BUNDLES = {"example.org": (AUTHORITY.certificate,)}


def verify(text: str) -> Signed:
    """Verify against two keys and one trust domain."""
    return verify_statement(text, KEYS, BUNDLES, NOW)


def refused(text: str) -> str:
    """The detail of a refusal."""
    with pytest.raises(Denied) as caught:
        verify(text)
    assert caught.value.code is Code.APPROVAL_INVALID
    return caught.value.detail


@pytest.mark.parametrize(
    "signer",
    [
        Signer.ed25519(),
        Signer.ecdsa(),
        Signer.ecdsa(ec.SECP384R1()),
        Signer.ecdsa(ec.SECP521R1()),
        Signer.rsa(),
    ],
    ids=lambda signer: signer.public.algorithm,
)
def test_each_kind_of_key_signs(signer: Signer) -> None:
    """What was signed is what is read, and the key is known by its thumbprint."""
    body = claims(LATER)
    (key,) = read_jwk_set(jwk_set(signer))
    signed = verify_statement(signer.sign(body), {key.thumbprint: key}, {}, NOW)

    assert signed.key.thumbprint == signer.public.thumbprint
    assert signed.statement.task == TASK
    assert (signed.statement.scope_digest, signed.statement.policy_digest) == (SCOPE, POLICY)
    assert signed.statement.outcome is Outcome.APPROVE
    assert signed.statement.not_after == datetime.fromtimestamp(LATER, UTC)
    assert signed.statement.jti == body["jti"]


def test_the_thumbprint_is_that_of_the_rfc() -> None:
    """RFC 7638, 3.1, and RFC 8037, appendix A.3: the published examples."""
    okp = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    rsa = {
        "kty": "RSA",
        "n": (
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_B"
            "JECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_F"
            "DW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4"
            "vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
        ),
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    keys = read_jwk_set(json.dumps({"keys": [okp, rsa]}).encode())

    assert [key.thumbprint for key in keys] == [
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
    ]


def test_a_forged_statement_proves_nothing() -> None:
    """Signed by a key that nobody configured, under the name of one that is."""
    mallory = Signer.ed25519()

    assert "signature is wrong" in refused(mallory.sign(claims(LATER), kid=ANN.public.thumbprint))
    assert "no approver's key" in refused(mallory.sign(claims(LATER)))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES256"},
        {"typ": "JWT"},
        {"typ": None},
        {"kid": None},
        {"kid": ["a"]},
        {"jwk": public_jwk(Signer.ed25519().public)},
        {"jku": "https://example.org/keys"},
        {"crit": ["b64"], "b64": False},
        {"x5c": []},
    ],
    ids=str,
)
def test_a_header_that_would_choose_key_or_algorithm_is_refused(header: dict[str, Any]) -> None:
    """The algorithm is the key's own, the key one of the config's; nothing brings its own."""
    refused(ANN.sign(claims(LATER), **header))


@pytest.mark.parametrize(
    "change",
    [
        {"task": "tm_x"},
        {"task": None},
        {"scope_digest": SCOPE.upper()},
        {"scope_digest": SCOPE[:-1]},
        {"policy_digest": None},
        {"outcome": "grant"},
        {"outcome": None},
        {"not_after": float(LATER) + 0.5},
        {"not_after": str(LATER)},
        {"not_after": True},
        {"not_after": 0},
        {"not_after": 2**52},
        {"jti": "short"},
        {"jti": None},
        {"approver": "ann@example.org"},
    ],
    ids=str,
)
def test_a_statement_says_six_things_and_nothing_else(change: dict[str, Any]) -> None:
    """Missing, malformed and additional members; a field that names the approver is one."""
    body = {key: value for key, value in (claims(LATER) | change).items() if value is not None}

    assert "not a statement" in refused(ANN.sign(body))


def test_reordered_members_are_another_spelling() -> None:
    """One statement has one spelling (RFC 8785): others are refused although they are signed."""
    body = claims(LATER)
    for text in (
        json.dumps(dict(sorted(body.items(), reverse=True))),
        json.dumps(body, indent=1),
        canonical(body).decode() + " ",
        canonical(body).decode().replace("{", '{"task":"x",', 1),
    ):
        assert "not a statement" in refused(ANN.sign(text.encode()))


def test_truncated_and_reordered_segments_are_refused() -> None:
    """Every proper prefix, and the three segments in any other order."""
    text = ANN.sign(claims(LATER))
    first, second, third = text.split(".")

    for length in range(len(text)):
        refused(text[:length])
    for parts in ((second, first, third), (first, third, second), (third, second, first)):
        refused(".".join(parts))
    refused(text + "=")
    refused(text + ".")
    refused("x" * (MAX_BYTES + 1))
    refused("\N{SNOWMAN}." + text)


@given(st.integers(0, 2000), st.integers(1, 255))
def test_one_changed_letter_is_noticed(place: int, step: int) -> None:
    """Whatever is changed in what was signed or in the signature, nothing is believed."""
    text = bytearray(ANN.sign(claims(LATER, jti="0123456789abcdef")).encode())
    text[place % len(text)] = (text[place % len(text)] + step) % 256
    refused(text.decode("latin-1"))


@given(st.text())
def test_any_text_is_refused_in_one_way(text: str) -> None:
    """Whatever arrives, it is Denied(approval_invalid)."""
    refused(text)


def test_an_ecdsa_signatures_twin_makes_no_second_statement() -> None:
    """(r, n - s) is as good a signature; the statement in it, with its jti, is the same one."""
    text = BOB.sign(claims(LATER))
    signed, _, signature = text.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    twin = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)
    other = f"{signed}.{encode(twin)}"

    assert other != text
    assert verify(other).statement == verify(text).statement


def chain(leaf: Any, *, with_root: bool = False) -> list[str]:
    """x5c: base64 with padding, leaf first."""
    certificates = leaf.chain if with_root else leaf.chain[:-1]
    return [base64.b64encode(one).decode() for one in certificates]


@pytest.mark.parametrize("with_root", [False, True])
def test_an_x509_svid_signs(*, with_root: bool) -> None:
    """The chain of the header ends in the bundle of its own trust domain."""
    leaf = AUTHORITY.intermediate("example.org").workload("spiffe://example.org/boss")
    assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
    x5c = chain(leaf, with_root=with_root)
    signed = verify(Signer(leaf.key).sign(claims(LATER), kid=None, x5c=x5c))

    assert signed.spiffe_id == SpiffeId("example.org", "/boss")
    assert len(signed.evidence) == 64


def test_a_chain_that_is_no_svid_of_ours_signs_nothing() -> None:
    """Foreign roots of the same name, expired leaves, another's key, what is no certificate."""
    foreign = root("example.org").workload("spiffe://example.org/boss")
    expired = AUTHORITY.workload(
        "spiffe://example.org/boss", ends=timedelta(hours=-1), begins=timedelta(hours=-9)
    )
    good = AUTHORITY.workload("spiffe://example.org/boss")
    for leaf in (foreign, expired):
        assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
        text = Signer(leaf.key).sign(claims(LATER), kid=None, x5c=chain(leaf))
        assert "no X.509-SVID" in refused(text)
    assert "signature is wrong" in refused(BOB.sign(claims(LATER), kid=None, x5c=chain(good)))
    for nonsense in ([], ["!"], "text", ["AAAA"], [7], chain(good) * 9):
        assert "cannot be read" in refused(BOB.sign(claims(LATER), kid=None, x5c=nonsense))


def test_a_partner_whose_root_cannot_be_read_costs_nobody_else_an_approval() -> None:
    """Only the leaf's own trust domain is looked at."""
    leaf = AUTHORITY.workload("spiffe://example.org/people/ann")
    assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
    text = Signer(leaf.key).sign(claims(LATER), kid=None, x5c=chain(leaf))
    bundles = {"a.test": (x509.load_der_x509_certificate(misspelt("a.test")),), **BUNDLES}

    assert verify_statement(text, KEYS, bundles, NOW).spiffe_id == SpiffeId(
        "example.org", "/people/ann"
    )


def altered(was: bytes, becomes: bytes) -> list[str]:
    """x5c of a certificate with some bytes of it changed, in one place or in two."""
    assert len(was) == len(becomes)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "xyz")])
    certificate = (
        x509.CertificateBuilder(name, name, ANN.key.public_key(), 5, NOW, NOW + timedelta(days=1))
        .sign(ANN.key, None)
        .public_bytes(Encoding.DER)
    )
    assert was in certificate
    return [base64.b64encode(certificate.replace(was, becomes)).decode()]


def test_an_authority_approves_for_nobody_whom_it_may_not_name() -> None:
    """Nobody but us has seen this chain: its name constraints bind, as they do in a handshake."""
    for domain, believed in (("ci.example.net", False), ("example.org", True)):
        limits = constraints([uri(domain)])
        leaf = AUTHORITY.intermediate("example.org", extra=limits).workload(
            "spiffe://example.org/people/ann"
        )
        assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
        text = Signer(leaf.key).sign(claims(LATER), kid=None, x5c=chain(leaf))
        if believed:
            assert verify(text).spiffe_id
        else:
            assert "no X.509-SVID" in refused(text)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b"\x30\x05\x06\x03\x2b\x65\x70\x03\x21", b"\x30\x05\x06\x03\x2b\x65\x7f\x03\x21"),
        (b"\x0c\x03xyz", b"\x0c\x03\xffyz"),
    ],
    ids=["a key of an unknown algorithm", "an issuer that is no text"],
)
def test_a_certificate_that_only_half_reads_is_refused(was: bytes, becomes: bytes) -> None:
    """What the library finds out late is a refusal like any other."""
    text = ANN.sign(claims(LATER), kid=None, x5c=altered(was, becomes))
    assert "its certificates" in refused(text)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("{}", "an array named keys"),
        ('{"keys": []}', "an array named keys"),
        ('{"keys": [7]}', "a JWK is an object"),
        ('{"keys": [{"kty": "oct", "x": "AA"}]}', "EC, RSA or OKP"),
        ('{"keys": [{"kty": "oct", "k": "AA"}]}', "a private key"),
        ('{"keys": [{"kty": "OKP", "crv": "X25519", "x": "AA"}]}', "Ed25519 and has an x"),
        ('{"keys": [{"kty": "EC", "use": "enc"}]}', "another use"),
        (
            '{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}',
            "not on the curve|point",
        ),
        (json.dumps({"keys": [public_jwk(BOB.public) | {"alg": "ES384"}]}), "signs with ES256"),
        ("[]", "not an object"),
        (" " * ((1 << 20) + 1), "at most"),
    ],
)
def test_a_key_set_with_anything_unknown_is_refused_whole(keys: str, problem: str) -> None:
    """A key that were skipped would be an approver who silently cannot approve."""
    with pytest.raises(ValueError, match=problem):
        read_jwk_set(keys.encode())


def test_a_weak_rsa_key_is_refused() -> None:
    """RFC 7518, 3.3: at least 2048 bits."""
    with pytest.raises(ValueError, match="2048"):
        _ = Signer.rsa(1024).public
