"""JWK sets as the Workload API sends them: what is kept, skipped and refused."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.signer import Authority, encode, jwks
from taskmint.identity.jwt_bundle import decode_base64url, parse_jwt_bundle

KEY: Final = Authority.ecdsa()
RSA_KEY: Final = Authority.rsa()
SMALL: Final = Authority.rsa("small", 1024)


def keys(*members: object) -> bytes:
    """A JWK set of these members."""
    return json.dumps({"keys": members}).encode()


def test_each_key_is_bound_to_its_own_algorithms() -> None:
    """The algorithm follows from the key, never from a token."""
    bundle = parse_jwt_bundle(jwks([KEY, RSA_KEY]))

    assert bundle["k1"].algorithms == {"ES256"}
    assert bundle["r1"].algorithms == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def test_an_empty_set_is_a_bundle_that_believes_nobody() -> None:
    """A trust domain may have no JWT authority at the moment."""
    assert not parse_jwt_bundle(b'{"keys": []}')


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param(KEY.jwk(use="x509-svid"), id="for X.509"),
        pytest.param(KEY.jwk(use="enc"), id="for encryption"),
        pytest.param({"kty": "oct", "kid": "o", "k": "c2VjcmV0"}, id="a shared secret"),
        pytest.param({"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": "AA"}, id="Ed25519"),
        pytest.param(KEY.jwk(alg="HS256"), id="bound to an algorithm that is not its own"),
        pytest.param({}, id="nothing"),
    ],
)
def test_a_key_of_another_kind_is_skipped(jwk: dict[str, Any]) -> None:
    """SPIFFE bundle format, section 4.2: unknown types and uses are ignored, the rest stands."""
    assert parse_jwt_bundle(keys(jwk, RSA_KEY.jwk())).keys() == {"r1"}


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param(KEY.jwk(use=None), id="without use"),
        pytest.param(KEY.jwk(use="sig"), id="for signatures"),
        pytest.param(KEY.jwk(alg="ES256"), id="bound to its algorithm"),
    ],
)
def test_spellings_that_agents_use_are_kept(jwk: dict[str, Any]) -> None:
    """SPIRE writes no use on the Workload API."""
    assert parse_jwt_bundle(keys(jwk)).keys() == {"k1"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"{}", id="no keys"),
        pytest.param(b'{"keys": {}}', id="keys is no array"),
        pytest.param(b'{"keys": [], "keys": []}', id="keys twice"),
        pytest.param(b'{"keys": [1]}', id="a key that is no object"),
        pytest.param(b'{"keys": ' + b"[" * 100_000, id="deep nesting"),
        pytest.param(b" " * (1 << 20) + b'{"keys": []}', id="over a mebibyte"),
        pytest.param(keys(KEY.jwk(kid=None)), id="no id"),
        pytest.param(keys(KEY.jwk(kid="")), id="an empty id"),
        pytest.param(keys(KEY.jwk(kid=1)), id="an id that is no text"),
        pytest.param(keys(KEY.jwk(), KEY.jwk()), id="one id for two keys"),
        pytest.param(keys(KEY.jwk(crv="P-192")), id="another curve"),
        pytest.param(keys(KEY.jwk(crv=["P-256"])), id="a curve that is no text"),
        pytest.param(keys(KEY.jwk(x=None)), id="no x"),
        pytest.param(keys(KEY.jwk(x=7)), id="x is a number"),
        pytest.param(keys(KEY.jwk(x="=")), id="x is not base64url"),
        pytest.param(keys(KEY.jwk(y=encode(b"\1" * 32))), id="a point off the curve"),
        pytest.param(keys(KEY.jwk(y=encode(b"\xff" * 99))), id="a point too large"),
        pytest.param(keys(RSA_KEY.jwk(e=encode(b"\2"))), id="an even exponent"),
        pytest.param(keys(SMALL.jwk()), id="an RSA key of 1024 bits"),
        pytest.param(keys(RSA_KEY.jwk(n=encode(b"\xff" * 1025))), id="an RSA key of 8200 bits"),
        pytest.param(
            keys(RSA_KEY.jwk(e=encode(b"\2" + b"\0" * 3 + b"\1"))), id="an exponent of 34 bits"
        ),
    ],
)
def test_a_malformed_set_is_refused_whole(text: bytes) -> None:
    """What claims to be for us and cannot be read makes the set unreadable."""
    with pytest.raises(ValueError, match=r"."):
        parse_jwt_bundle(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    """Nothing but ValueError comes out."""
    try:
        parse_jwt_bundle(text)
    except ValueError:
        return


MEMBERS: Final = st.sampled_from(["kty", "kid", "use", "alg", "crv", "x", "y", "n", "e"])
VALUES: Final = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())


@given(st.dictionaries(MEMBERS, VALUES), st.booleans())
def test_any_key_is_read_or_refused(changes: dict[str, Any], elliptic: bool) -> None:
    """Neither does any member of a key raise anything else."""
    jwk = (KEY if elliptic else RSA_KEY).jwk() | changes
    try:
        parse_jwt_bundle(keys(jwk))
    except ValueError:
        return


@given(st.binary(max_size=40))
def test_base64url_has_one_spelling(raw: bytes) -> None:
    """What was encoded is decoded; with padding it is refused."""
    assert decode_base64url(encode(raw).encode()) == raw
    with pytest.raises(ValueError, match="base64url"):
        decode_base64url(encode(raw).encode() + b"=")
