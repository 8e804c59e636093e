"""Verification of JWT-SVIDs: what is believed, and every way in which a token is not."""

import base64
import json
from collections.abc import Callable
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import hashes, hmac, serialization
from hypothesis import given
from hypothesis import strategies as st

from identity.signer import AUDIENCE, NOW, SUBJECT, Authority, claims, encode, jwks
from taskmint.errors import Code, Unproven
from taskmint.identity.jwt_bundle import JwtBundles, parse_jwt_bundle
from taskmint.identity.jwt_svid import JwtRules, JwtSvid, evidence_of, verify_jwt_svid
from taskmint.model.spiffe import SpiffeId

RULES: Final = JwtRules(AUDIENCE)
KEY: Final = Authority.ecdsa()
RSA_KEY: Final = Authority.rsa()
P384: Final = Authority.ecdsa("k384", 384)
P521: Final = Authority.ecdsa("k521", 521)
FOREIGN: Final = Authority.ecdsa("f1")
STRANGER: Final = Authority.ecdsa("k1")  # our key's id, another's key
BUNDLES: Final[JwtBundles] = {
    "example.org": parse_jwt_bundle(jwks([KEY, RSA_KEY, P384, P521])),
    "partner.test": parse_jwt_bundle(jwks([FOREIGN])),
}


def verify(token: str, now: float = NOW, rules: JwtRules = RULES) -> JwtSvid:
    """Verify against the bundles of these tests."""
    return verify_jwt_svid(token, BUNDLES, rules, now)


def refused(token: str, now: float = NOW) -> Code:
    """Return the code with which a token is refused; its text is ours and holds nothing of it."""
    with pytest.raises(Unproven) as raised:
        verify(token, now)
    assert raised.value.detail.endswith(".")
    assert len(raised.value.detail) < 100
    assert raised.value.__cause__ is None
    return raised.value.code


def test_a_good_token_says_who_and_until_when() -> None:
    """The subject, the expiry, the signing authority and the digest of the text come out."""
    token = KEY.token(claims(jti="one"))

    assert verify(token) == JwtSvid(
        spiffe_id=SpiffeId("example.org", "/ns/orders/sa/report"),
        authority="jwt:example.org#k1",
        not_before=NOW - 60,
        expires_at=NOW + 240,
        evidence=evidence_of(token),
        jti="one",
    )


@pytest.mark.parametrize(
    ("authority", "algorithm"),
    [
        (KEY, "ES256"),
        (P384, "ES384"),
        (P521, "ES512"),
        *((RSA_KEY, kind + bits) for kind in ("RS", "PS") for bits in ("256", "384", "512")),
    ],
)
def test_every_algorithm_of_the_standard_is_believed(authority: Authority, algorithm: str) -> None:
    """JWT-SVID, section 2.1: nine algorithms, each with the key it belongs to."""
    assert verify(authority.token(algorithm=algorithm)).authority.endswith(authority.key_id)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(KEY.token(typ=None), id="no typ"),
        pytest.param(KEY.token(typ="JOSE"), id="typ JOSE"),
        pytest.param(KEY.token(claims(aud=AUDIENCE)), id="audience as a string"),
        pytest.param(KEY.token(claims(iat=None)), id="no iat"),
        pytest.param(KEY.token(claims(nbf=NOW)), id="nbf now"),
        pytest.param(KEY.token(claims(extra={"a": [1.5, None]})), id="claims that are not ours"),
        pytest.param(KEY.token(claims(exp=NOW - 29)), id="row 7: expired within the leeway"),
        pytest.param(KEY.token(claims(iat=NOW + 30)), id="row 8: issued within the leeway"),
        pytest.param(KEY.token(claims(exp=NOW - 60 + 3600)), id="the longest life"),
    ],
)
def test_what_the_standard_allows_is_believed(token: str) -> None:
    """Everything optional may be absent, and the leeway is one number."""
    assert verify(token).spiffe_id == SpiffeId.parse(SUBJECT)


def test_a_federated_domain_speaks_for_itself() -> None:
    """A token of a partner is verified with the partner's keys."""
    token = FOREIGN.token(claims(sub="spiffe://partner.test/w"))

    assert verify(token).spiffe_id == SpiffeId("partner.test", "/w")


def test_a_trust_domain_in_capitals_is_the_same_one() -> None:
    """Row 14: the canonical form is what policy and ledger see."""
    assert str(verify(KEY.token(claims(sub="SPIFFE://Example.ORG/w"))).spiffe_id) == (
        "spiffe://example.org/w"
    )


def unsigned(header: dict[str, Any], signature: bytes = b"") -> str:
    """A token whose signature the test makes."""
    text = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims()).encode())}"
    return f"{text}.{encode(signature)}"


def hs256_with_the_public_key() -> str:
    """The classic: the public key's PEM as the secret of an HMAC."""
    secret = KEY.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = {"alg": "HS256", "kid": "k1", "typ": "JWT"}
    signed = unsigned(header).rpartition(".")[0]
    mac = hmac.HMAC(secret, hashes.SHA256())
    mac.update(signed.encode())
    return f"{signed}.{encode(mac.finalize())}"


def with_signature(token: str, change: Callable[[bytes], bytes]) -> str:
    """Replace the signature by what the test makes of it."""
    signed, _, text = token.rpartition(".")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return f"{signed}.{encode(change(raw))}"


def twice(name: str, value: str) -> bytes:
    """Claims in which a key stands twice."""
    return json.dumps(claims()).encode()[:-1] + f', "{name}": {value}}}'.encode()


INVALID: Final = {
    "row 1: alg none": unsigned({"alg": "none", "kid": "k1"}),
    "row 1: alg none, other case": unsigned({"alg": "NONE", "kid": "k1"}),
    "row 1: no alg": unsigned({"kid": "k1"}),
    "row 1: alg is a list": unsigned({"alg": ["ES256"], "kid": "k1"}),
    "row 1: HS256 with the public key": hs256_with_the_public_key(),
    "row 1: an algorithm of another family": unsigned({"alg": "EdDSA", "kid": "k1"}, b"x" * 64),
    "row 2: ES256 with the id of an RSA key": KEY.token(kid="r1"),
    "row 2: RS256 with the id of an EC key": RSA_KEY.token(kid="k1"),
    "row 2: ES256 with a P-384 key": P384.token(algorithm="ES256"),
    "row 2: ES384 with a P-256 key": KEY.token(algorithm="ES384"),
    "row 3: no audience": KEY.token(claims(aud=None)),
    "row 3: an empty audience": KEY.token(claims(aud=[])),
    "row 3: another audience": KEY.token(claims(aud=["broker"])),
    "row 3: our audience as a prefix": KEY.token(claims(aud=["taskmintX"])),
    "row 3: a prefix of our audience": KEY.token(claims(aud="task")),
    "row 3: our audience in other case": KEY.token(claims(aud="TASKMINT")),
    "row 3: our audience as a key": KEY.token(claims(aud={AUDIENCE: 1})),
    "row 4: two audiences": KEY.token(claims(aud=[AUDIENCE, "vault"])),
    "row 4: our audience twice": KEY.token(claims(aud=[AUDIENCE, AUDIENCE])),
    "row 5: no exp": KEY.token(claims(exp=None)),
    "row 6: ten years": KEY.token(claims(exp=NOW + 315_360_000)),
    "row 6: ten years, without iat": KEY.token(claims(exp=NOW + 315_360_000, iat=None)),
    "row 6: one second over the longest life": KEY.token(claims(exp=NOW - 60 + 3601)),
    "row 6: exp as text": KEY.token(claims(exp=str(NOW + 240))),
    "row 6: exp as a float": KEY.token(claims(exp=NOW + 240.0)),
    "row 6: exp as a boolean": KEY.token(claims(exp=True)),
    "row 6: exp negative": KEY.token(claims(exp=-1)),
    "row 6: exp infinite": KEY.token(twice("exp2", "1e400").replace(b"exp2", b"nbf")),
    "row 6: exp NaN": KEY.token(twice("nbf", "NaN")),
    "row 6: an exp of 5,000 digits": KEY.token(twice("nbf", "9" * 5000)),
    "row 6: an exp of 300 digits": KEY.token(twice("nbf", "9" * 300)),
    "row 6: expires before it was issued": KEY.token(claims(iat=NOW + 20, exp=NOW + 10)),
    "row 8: nbf in the future": KEY.token(claims(nbf=NOW + 31)),
    "row 8: iat in the future": KEY.token(claims(iat=NOW + 31)),
    "row 8: iat as text": KEY.token(claims(iat="yesterday")),
    "row 9: an unknown kid": KEY.token(kid="k2"),
    "row 9: no kid": KEY.token(kid=None),
    "row 9: an empty kid": KEY.token(kid=""),
    "row 9: kid is a number": KEY.token(kid=1),
    "row 9: kid is a list": KEY.token(kid=["k1"]),
    "row 9: kid is a path": KEY.token(kid="../../k1"),
    "row 10: jku": KEY.token(jku="https://evil.test/keys"),
    "row 10: x5u": KEY.token(x5u="https://evil.test/chain"),
    "row 10: jwk": STRANGER.token(jwk=STRANGER.jwk()),
    "row 10: crit": KEY.token(crit=["exp"]),
    "row 10: b64": KEY.token(b64=False),
    "row 11: a WIT-SVID": KEY.token(typ="wit+jwt"),
    "row 11: typ in other case": KEY.token(typ="jwt"),
    "row 11: typ is a list": KEY.token(typ=["JWT"]),
    "row 12: our key for the partner": KEY.token(claims(sub="spiffe://partner.test/w")),
    "row 12: the partner's key for us": FOREIGN.token(kid="f1"),
    "row 12: a domain nobody knows": KEY.token(claims(sub="spiffe://nobody.test/w")),
    "row 12: another key under our key's id": STRANGER.token(),
    "row 13: a line feed after the subject": KEY.token(claims(sub=SUBJECT + "\n")),
    "row 13: percent-encoding": KEY.token(claims(sub="spiffe://example.org/%61")),
    "row 13: two dots": KEY.token(claims(sub="spiffe://example.org/a/../b")),
    "row 13: an empty segment": KEY.token(claims(sub="spiffe://example.org//b")),
    "row 13: a slash at the end": KEY.token(claims(sub="spiffe://example.org/a/")),
    "row 13: a port": KEY.token(claims(sub="spiffe://example.org:80/a")),
    "row 13: user information": KEY.token(claims(sub="spiffe://me@example.org/a")),
    "row 13: a query": KEY.token(claims(sub="spiffe://example.org/a?b")),
    "row 13: a fragment": KEY.token(claims(sub="spiffe://example.org/a#b")),
    "row 13: a letter that is not ASCII": KEY.token(claims(sub="spiffe://example.org/é")),
    "row 13: more than 2048 bytes": KEY.token(claims(sub="spiffe://example.org/" + "a" * 2030)),
    "row 13: another scheme": KEY.token(claims(sub="https://example.org/a")),
    "row 13: a lone surrogate": KEY.token(claims(sub="spiffe://example.org/\ud800")),
    "row 13: no subject": KEY.token(claims(sub=None)),
    "row 13: the subject is a list": KEY.token(claims(sub=[SUBJECT])),
    "row 15: no path": KEY.token(claims(sub="spiffe://example.org")),
    "row 16: nothing": "",
    "row 16: JSON serialisation": json.dumps({"payload": "e30", "signatures": []}),
    "row 16: two segments": KEY.token().rpartition(".")[0],
    "row 16: four segments": KEY.token() + ".e30",
    "row 16: a space before": " " + KEY.token(),
    "row 16: a line feed after": KEY.token() + "\n",
    "row 16: padding": KEY.token() + "==",
    "row 16: the other alphabet": KEY.token().replace("_", "/").replace("-", "+") + "+",
    "row 16: letters that are not ASCII": KEY.token() + "é",
    "row 16: a lone surrogate": KEY.token() + "\udc80",
    "row 16: one megabyte": KEY.token(claims(pad="x" * 1_000_000)),
    "row 16: one byte too many": KEY.token(claims(pad="x" * 6000)),
    "row 16: deep nesting": KEY.token(b'{"a":' + b"[" * 4000 + b"]" * 4000 + b"}"),
    "row 16: a claim twice": KEY.token(twice("sub", '"spiffe://example.org/admin"')),
    "row 16: claims that are no object": KEY.token(b'"sub"'),
    "row 16: claims that are no JSON": KEY.token(b"{sub}"),
    "row 16: claims that are no UTF-8": KEY.token(b'{"sub": "\xff"}'),
    "row 16: a byte order mark": KEY.token(b"\xef\xbb\xbf" + json.dumps(claims()).encode()),
    "row 16: UTF-16": KEY.token(json.dumps(claims()).encode("utf-16")),
    "a changed signature": with_signature(KEY.token(), lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])),
    "a signature of zeros": with_signature(KEY.token(), lambda raw: bytes(len(raw))),
    "a signature cut short": with_signature(KEY.token(), lambda raw: raw[:-1]),
    "a signature with more": with_signature(KEY.token(), lambda raw: raw + b"\0"),
    "no signature": with_signature(KEY.token(), lambda _: b""),
    "an RSA signature cut short": with_signature(RSA_KEY.token(), lambda raw: raw[:-1]),
    "PKCS #1 under the name of PSS": with_signature(
        RSA_KEY.token(algorithm="PS256"), lambda _: RSA_KEY.sign(b"x", "RS256")
    ),
}  # fmt: skip


@pytest.mark.parametrize("token", [pytest.param(token, id=name) for name, token in INVALID.items()])
def test_a_bad_token_is_refused(token: str) -> None:
    """Rows 1 to 16: 401 credential_invalid, never another error, never a library's words."""
    assert refused(token) is Code.CREDENTIAL_INVALID


def test_a_token_is_refused_30_seconds_after_it_expired() -> None:
    """Row 7: one leeway, of 30 s, and the code says that a new token helps."""
    assert refused(KEY.token(claims(exp=NOW - 30))) is Code.CREDENTIAL_EXPIRED
    assert refused(KEY.token(claims(exp=NOW)), NOW + 30) is Code.CREDENTIAL_EXPIRED
    assert verify(KEY.token(claims(exp=NOW)), NOW + 29.9).expires_at == NOW


def test_expiry_is_told_only_of_tokens_that_were_good() -> None:
    """Whoever cannot sign learns nothing but that the token is invalid."""
    assert refused(STRANGER.token(claims(exp=NOW - 1000))) is Code.CREDENTIAL_INVALID


def test_stray_bits_in_base64_are_refused() -> None:
    """One token has one spelling: the unused bits of a segment's last character are zero."""
    token = KEY.token()
    last = token[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spelled = token[:-1] + alphabet[alphabet.index(last) | 1]
    assert spelled != token

    assert refused(spelled) is Code.CREDENTIAL_INVALID


def test_a_key_bound_to_one_algorithm_is_used_with_no_other() -> None:
    """A JWK's own `alg` narrows what the key may sign (RFC 7517, section 4.4)."""
    bound = json.dumps({"keys": [RSA_KEY.jwk(alg="PS256")]}).encode()
    bundles = {"example.org": parse_jwt_bundle(bound)}

    verify_jwt_svid(RSA_KEY.token(algorithm="PS256"), bundles, RULES, NOW)
    with pytest.raises(Unproven):
        verify_jwt_svid(RSA_KEY.token(algorithm="RS256"), bundles, RULES, NOW)


# --- properties ------------------------------------------------------------------------------

JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def only_documented(token: str) -> None:
    """A token is verified or refused as documented; nothing else ever happens."""
    try:
        outcome: str = verify(token).spiffe_id.trust_domain
    except Unproven as refusal:
        outcome = refusal.code
    assert outcome in {Code.CREDENTIAL_INVALID, Code.CREDENTIAL_EXPIRED, *BUNDLES}


@given(st.text(max_size=200))
def test_any_text_is_refused_as_documented(text: str) -> None:
    """No text raises anything but the documented refusals."""
    only_documented(text)


@given(st.lists(st.binary(max_size=60), min_size=3, max_size=3))
def test_any_three_segments_are_refused_as_documented(parts: list[bytes]) -> None:
    """Neither do three segments of any bytes."""
    only_documented(".".join(map(encode, parts)))


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit"]), JSON))
def test_any_header_is_refused_as_documented(header: dict[str, Any]) -> None:
    """Neither does any header on good claims."""
    only_documented(unsigned(header, b"x" * 64))


@given(st.dictionaries(st.sampled_from(["sub", "aud", "exp", "iat", "nbf", "jti", "x"]), JSON))
def test_any_signed_claims_are_refused_as_documented(body: dict[str, Any]) -> None:
    """Neither do any claims under a good signature."""
    only_documented(KEY.token(json.dumps(body).encode()))


GOOD: Final = KEY.token()


@given(st.integers(0, len(GOOD) - 1), st.characters(max_codepoint=0x100))
def test_any_changed_character_is_noticed(place: int, character: str) -> None:
    """No character of a good token can be another and the token stay good."""
    changed = GOOD[:place] + character + GOOD[place + 1 :]
    if changed != GOOD:
        assert refused(changed) is Code.CREDENTIAL_INVALID


@given(st.from_regex(r"spiffe://[a-z./%@:?#A-Z0-9\n-]{0,30}", fullmatch=True))
def test_a_subject_is_read_as_the_model_reads_it(subject: str) -> None:
    """A subject is believed exactly when it is a SPIFFE ID of ours with a path."""
    try:
        spiffe_id = SpiffeId.parse(subject)
    except ValueError:
        spiffe_id = SpiffeId("", "")
    if spiffe_id.trust_domain == "example.org" and spiffe_id.path:
        assert verify(KEY.token(claims(sub=subject))).spiffe_id == spiffe_id
    else:
        assert refused(KEY.token(claims(sub=subject))) is Code.CREDENTIAL_INVALID
